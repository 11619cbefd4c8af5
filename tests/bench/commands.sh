# SPDX-License-Identifier: Apache-2.0
# The whole-command rows of `./dev bench`, as one bash script: prints `ROW MIN MEDIAN` in nanoseconds for each row named. Preparation is not timed.
set -u
export LC_ALL=C PATH=/usr/bin:/bin
# In memory natively too, as all of /tmp is in a sandbox: a disk's fsync is not what is compared.
TMPDIR=$(mktemp -d /dev/shm/bench-XXXXXX 2>/dev/null || mktemp -d /tmp/bench-XXXXXX) || exit 1
export TMPDIR HOME=$TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
cd "$TMPDIR" || exit 1

now() { local t=$EPOCHREALTIME; REPLY=$((${t/./} * 1000)); }

# timed ROW COMMAND…: three times, and up to 15 times while that takes less than a second.
timed() {
    local row=$1 begin start all=()
    shift
    now; start=$REPLY
    while ((${#all[@]} < 3)) || ((${#all[@]} < 15 && REPLY - start < 1000000000)); do
        now; begin=$REPLY
        "$@" >/dev/null || { echo "$row failed" >&2; exit 1; }
        now; all+=($((REPLY - begin)))
    done
    mapfile -t all < <(printf '%s\n' "${all[@]}" | sort -n)
    echo "$row ${all[0]} ${all[${#all[@]} / 2]}"
}

ls_200() { local i; for ((i = 0; i < 200; i++)); do /bin/ls /usr || return; done; }
python_import() { python3 -c 'import json,re,os'; }
tar_files() { rm -f many.tar; tar cf many.tar many && tar tf many.tar; }
tar_host() { tar cf - -C "$BENCH_DATA" many | cat; }
find_host() { find "$BENCH_DATA/many" -newer /etc/passwd -name '*7'; }
gcc_compile() { gcc -O2 -c big.c -o big.o; }
sqlite_inserts() {
    rm -f bench.db
    python3 -c '
import sqlite3
c = sqlite3.connect("bench.db")
c.execute("create table t(id integer primary key, a int, b text)")
for k in range(50):
    c.executemany("insert into t(a, b) values(?, ?)", ((i * 7919 % 10007, "name%d" % i) for i in range(1000)))
    c.commit()
assert c.execute("select count(*) from t").fetchone() == (50000,)'
}

for row; do
    case $row in
        ls-200) timed $row ls_200 ;;
        python-import) python_import; timed $row python_import ;;
        tar-3000)
            mkdir -p many
            for ((i = 0; i < 3000; i++)); do echo "file number $i" >many/f$i; done
            timed $row tar_files
            ;;
        tar-20000) tar_host >/dev/null; timed $row tar_host ;;
        find-20000) find_host >/dev/null; timed $row find_host ;;
        gcc-compile)
            awk 'BEGIN { for (i = 0; i < 300; i++) printf "unsigned f%d(unsigned x)\n{\n    for (int i = 0; i < %d; i++) {\n        x ^= x << 13;\n        x ^= x >> %d;\n    }\n    return x * %du;\n}\n", i, i % 7 + 1, i % 13 + 3, i * 2 + 1 }' >big.c
            gcc_compile; timed $row gcc_compile
            ;;
        sqlite-50000) timed $row sqlite_inserts ;;
        *) echo "no such row: $row" >&2; exit 1 ;;
    esac
done
