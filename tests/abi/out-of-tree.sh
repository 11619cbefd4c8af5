#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A plugin outside the tree: installs the headers and the library somewhere, builds example-plugin/ against them with
# pkg-config only, loads it with --plugin-path and uses it from a guest. Output: TAP.
#
#   out-of-tree.sh BUILD-DIR TESSERA     run by meson (suite abi)
set -u
build=${1:?build directory} tessera=${2:?tessera command}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
n=0 failures=0

# ok NAME COMMAND…: one test; what the command printed is shown when it fails.
ok() {
    local name=$1
    shift
    n=$((n + 1))
    if "$@" >"$work/out" 2>&1 </dev/null; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        sed 's/^/# /' "$work/out"
        failures=$((failures + 1))
    fi
}

# same WANT COMMAND…: the command succeeds and prints exactly WANT.
same() {
    local want=$1 got
    shift
    got=$("$@" 2>"$work/err") || { echo "status $?: $got"; cat "$work/err"; return 1; }
    [ "$got" = "$want" ] || { printf 'wanted: %s\ngot:    %s\n' "$want" "$got"; return 1; }
}

# refuses STATUS WORD COMMAND…: fails with that status and says WORD in one line on standard error.
refuses() {
    local want=$1 word=$2 status
    shift 2
    "$@" >/dev/null 2>"$work/err"
    status=$?
    cat "$work/err"
    [ $status = "$want" ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q -- "$word" "$work/err"
}

installed() { meson install -C "$build" --no-rebuild --quiet --destdir "$work/root"; }

# What is installed under a staging directory still says where it would be in the end. A real installation needs no such step.
relocate() {
    pc=$(find "$work/root" -name tessera-plugin-1.pc)
    [ -f "$pc" ] || return 1
    sed -i "s|^prefix=|prefix=$work/root|" "$pc"
    export PKG_CONFIG_PATH=${pc%/*}
    lib=$(pkg-config --variable=libdir tessera-plugin-1) && plugins=$(pkg-config --variable=plugindir tessera-plugin-1)
    [ -d "$plugins" ] && [ -e "$lib/libtessera-core.so" ]
}

# Headers that are not part of the public interface must not have come along.
headers() {
    local dir
    dir=$(pkg-config --variable=includedir tessera-plugin-1)/tessera-1/tessera
    diff <(cd "$here/../../core/include/tessera" && ls) <(cd "$dir" && ls)
}

# compile SOURCE DIRECTORY: the one command that docs/plugins/writing.md gives.
compile() {
    mkdir -p "$2"
    # shellcheck disable=SC2046 # several words are meant
    ${CC:-cc} -Wall -Wextra -Werror -shared -fPIC -fvisibility=hidden "$1" -o "$2/$(basename "$1" .c).so" \
        $(pkg-config --cflags --libs tessera-plugin-1)
}

# The C blocks of docs/plugins that begin with the name of a file are complete plugins.
extract() {
    mkdir -p "$work/src"
    awk -v out="$work/src/" '/^```c$/ { first = 1; next } /^```/ { file = ""; next }
        first { first = 0; if (match($0, /^\/\* [a-z-]+\.c: /)) file = out substr($2, 1, length($2) - 1) }
        file { print > file }' "$here"/../../docs/plugins/*.md
    ls "$work/src"
}

pages() {
    local source
    for source in "$work"/src/*.c; do
        compile "$source" "$work/docs" || return 1
    done
}

with_meson() { meson setup "$work/meson" "$here/example-plugin" && ninja -C "$work/meson" hello-fs.so; }

lists() { "$tessera" plugins --plugin-path="$plugins" --plugin-path="$1" | grep -q '^    filesystem:hello$'; }
sandbox() { timeout 60 "$tessera" do --plugin-path="$plugins" --plugin-path="$work/one" -- "$@"; }
mounted() { sandbox /bin/sh -c 'mkdir /tmp/m && mount -t hello "$@" none /tmp/m && cd /tmp/m && '"$1" sh "${@:2}"; }
# What Debian always has that can make a system call by its number.
guest_perl() { timeout 60 "$tessera" do --plugin-path="$plugins" --plugin-path="$work/docs" "${@:2}" -- /usr/bin/perl -e "$1"; }
lists_key() { "$tessera" context-keys --plugin-path="$plugins" --plugin-path="$work/docs" | grep -q ' privilege .*const char '; }
installed_command() {
    LD_LIBRARY_PATH=$lib "$work/root$(pkg-config --variable=prefix tessera-plugin-1 | sed "s|^$work/root||")/bin/tessera" \
        plugins --plugin-path="$plugins" | grep -q '^    vfs:'
}

echo 1..23
ok 'install to a staging directory' installed
ok 'pkg-config finds the installed files' relocate
ok 'exactly the public headers are installed' headers
ok 'the installed command loads the installed plugins' installed_command
ok 'the plugin builds with one compiler command' compile "$here/example-plugin/hello-fs.c" "$work/one"
ok 'the plugin builds as a meson project' with_meson
ok 'tessera plugins lists the feature (compiler command)' lists "$work/one"
ok 'tessera plugins lists the feature (meson)' lists "$work/meson"
ok 'a guest mounts it and reads the file' same 'hello from a plugin' mounted 'cat greeting'
ok 'mount options reach it' same 'good day' mounted 'cat greeting' -o 'text=good day'
ok 'a guest lists the directory' same '. .. greeting' mounted 'ls -a | tr "\n" " " | sed "s/ $//"'
ok 'a missing name is not found, writing is refused' same 'no no' mounted \
    '{ cat other || printf "no "; echo x >greeting || printf no; } 2>/dev/null'
ok 'it is in /proc/filesystems' sandbox grep -q hello /proc/filesystems
ok 'loaded twice it is refused in one line' refuses 125 'filesystem:hello' "$tessera" plugins --plugin-path="$work/one" --plugin-path="$work/meson"

ok 'the pages of docs/plugins hold five examples' test "$(extract | wc -l)" = 5
ok 'they compile' pages
ok 'a context key of a plugin gets a slot' lists_key
same_perl() { same "$1" guest_perl "$2" "${@:3}"; }
ok 'a system call of a plugin answers, and checks its pointer' same_perl '0 1 -1 14' \
    '$b = "\0" x 16; $r = syscall(500, $b); ($s, $n) = unpack "qq", $b; print "$r ", 0 + ($s < 60 && $n % 10_000_000 == 0), " ", syscall(500, 8), " ", 0 + $!'
ok 'its context key answers for a task: root' same_perl root '$b = "x" x 8; syscall(501, $b, 8); print unpack "Z*", $b'
ok 'its context key answers for a task: user' same_perl user '$b = "x" x 8; syscall(501, $b, 8); print unpack "Z*", $b' --user=1000
ok 'a kind of file blocks its reader until it is written' same_perl 'got late' \
    'open F, "+<&=", syscall(502); if (!fork) { select undef, undef, undef, 0.1; syswrite F, "late"; exit } sysread F, $t, 99; print "got $t"'
ok 'a socket family of a plugin takes datagrams, and only those' same_perl '5 94' \
    'socket S, 30, 2, 0; print syswrite(S, "hello"), " "; socket T, 30, 1, 0; print 0 + $!'
ok 'a platform that refuses says why' refuses 125 'not a place where programs run' \
    "$tessera" do --plugin-path="$plugins" --plugin-path="$work/docs" --platform=nowhere -- /bin/true
[ $failures = 0 ]
