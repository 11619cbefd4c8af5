# SPDX-License-Identifier: Apache-2.0
# A static busybox: its shell's language and the applets that scripts lean on.
#: shell /bin/busybox sh
cd /tmp
fib() { if [ "$1" -lt 2 ]; then echo "$1"; else echo $(($(fib $(($1 - 1))) + $(fib $(($1 - 2))))); fi; }
echo "fib 8: $(fib 8)"
i=0
while [ $i -lt 200 ]; do echo "line $i $((i * i % 17))"; i=$((i + 1)); done >lines
/bin/busybox wc -l <lines
/bin/busybox sort -k3,3n -k2,2n lines | /bin/busybox head -n 5
/bin/busybox awk '{ s[$3]++ } END { for (k in s) print k, s[k] }' lines | /bin/busybox sort -n
/bin/busybox sed -n 's/^line \([0-9]*\)5 /\1five /p' lines | /bin/busybox tail -n 3
/bin/busybox mkdir -p a/b/c && /bin/busybox cp lines a/b/c/x && /bin/busybox ln -s c/x a/b/link
/bin/busybox ls -1R a
/bin/busybox cat a/b/link | /bin/busybox md5sum
/bin/busybox tar cf - a | /bin/busybox gzip -c >a.tgz
/bin/busybox mkdir out && /bin/busybox tar xzf a.tgz -C out && /bin/busybox find out | /bin/busybox sort
trap 'echo trapped' USR1
(/bin/busybox kill -USR1 $$)
/bin/busybox sh -c 'exit 7' || echo "status $?"
/bin/busybox sh -c 'kill -TERM $$'
echo "status $?"
for n in 1 2 3; do (/bin/busybox sleep 0.1; exit $n) & pids="$pids $!"; done
for p in $pids; do wait $p; echo "job $?"; done
cat <<END | while read a b; do echo "[$b|$a]"; done
one two
three four five
END
echo end
