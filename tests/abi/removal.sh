#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Removing a plugin's .so removes exactly its ability and nothing else (issue 2, item 3). TAP.
#   removal.sh BUILD_DIR TESSERA PROBE
set -u
build=$1 tessera=$2 probe=$3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
n=0
abilities="timerfd epoll unix tmpfs proc dev"

result() { # ok? name got want
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n $2"; else
        echo "not ok $n $2"
        printf '# got:  %s\n# want: %s\n' "$3" "$4"
    fi
}

# The plugins without one, as a flat directory.
without() {
    rm -rf "$dir/plugins"
    mkdir "$dir/plugins"
    cp "$build"/plugins/*/*.so "$dir/plugins"
    [ -z "$1" ] || rm "$dir"/plugins/$1.so # may be a pattern
}

run() { timeout 30 "$tessera" do --plugin-path="$dir/plugins" --ro-bind "$(dirname "$probe")" /opt -- "/opt/$(basename "$probe")" $abilities 2>&1 </dev/null | paste -sd' '; }

expect() { # plugin ability errno
    local want='' a
    for a in $abilities; do
        if [ "$a" = "$2" ]; then want+="$a=$3 "; else want+="$a=ok "; fi
    done
    without "$1"
    local got
    got=$(run)
    [ "$got" = "${want% }" ]
    result $? "/removal/${1:-none}" "$got" "${want% }"
}

# The sandbox cannot be made: status 125 and one line that says what is missing.
expect_refusal() { # plugin word
    without "$1"
    local got status
    got=$(timeout 30 "$tessera" do --plugin-path="$dir/plugins" -- /bin/true 2>&1 </dev/null)
    status=$?
    [ $status = 125 ] && [ "$(printf '%s\n' "$got" | wc -l)" = 1 ] && [[ $got == *"$2"* ]]
    result $? "/removal/$1" "$status: $got" "125: one line with $2"
}

echo 1..15
expect '' none -
expect timerfd timerfd ENOSYS
expect epoll epoll ENOSYS
expect unix unix EAFNOSUPPORT
expect mqueue mqueue ENODEV
expect fs-tmpfs tmpfs ENODEV
expect fs-proc proc ENODEV
expect fs-dev dev ENODEV
expect fs-sys sysfs ENODEV
expect fs-cgroup cgroup2 ENODEV
expect platform-ptrace none -
expect platform-systrap none -
expect_refusal 'platform-*' platform
expect_refusal 'vfs[12]' vfs
expect_refusal fs-host 'filesystem'
