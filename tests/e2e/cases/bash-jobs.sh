# SPDX-License-Identifier: Apache-2.0
# Job control without a terminal, background jobs, wait in all its forms, signals between processes.
# bash reports what happens to jobs on standard error, with process ids, when it notices.
exec 2>/dev/null
cd /tmp
(exit 3) & wait $!; echo "wait $?"
# Far apart: bash itself may lose a job (127) that ends together with the one it returns.
for n in 3 1 2; do (sleep $n; exit $n) & done
got=() # in whatever order a busy machine lets them end
for i in 1 2 3; do wait -n; got+=($?); done
printf 'next %s\n' "${got[@]}" | sort
wait -n; echo "none $?"
sleep 100 & p=$!
kill -TERM $p; wait $p; echo "term $?"
sleep 100 & p=$!; kill -KILL $p; wait $p; echo "kill $?"
set -m
sleep 100 & p=$!
[ "$(ps -o pgid= -p $p | tr -d ' ')" = $p ] && echo "own group"
kill -STOP $p
for i in 1 2 3 4 5 6 7 8 9 10; do case $(ps -o stat= -p $p) in T*) break ;; esac; sleep 0.1; done
ps -o stat= -p $p | cut -c1
kill -CONT $p
for i in 1 2 3 4 5 6 7 8 9 10; do case $(ps -o stat= -p $p) in S*) break ;; esac; sleep 0.1; done
ps -o stat= -p $p | cut -c1
kill %1; wait $p; echo "job $?"
(sleep 100 & sleep 100 & wait) & p=$!
sleep 0.3
kill -TERM -- -$p; wait $p; echo "group $?"
for i in 1 2 3 4 5 6 7 8 9 10; do [ -z "$(pgrep -g $p)" ] && break; sleep 0.1; done
pgrep -g $p || echo "group gone"
set +m
bash -c 'trap "echo got int; exit 9" INT; kill -INT $$; echo not here'; echo "int $?"
bash -c 'trap "" TERM; kill -TERM $$; echo survived'
bash -c 'trap "echo chld" CHLD; (exit 0); true'
bash -c 'trap "echo hup" HUP; sleep 1 & kill -HUP $$; wait; echo "after $?"; wait'
( (sleep 0.3; echo orphan) & ); sleep 0.7
nohup bash -c 'kill -HUP $$; echo "ignored hup"'
timeout 0.2 sleep 5; echo "timeout $?"
timeout -s KILL 0.2 sleep 5; echo "timeout kill $?"
pids=() s=0
for i in $(seq 50); do (exit $((i % 5))) & pids+=($!); done
for j in "${pids[@]}"; do wait $j; s=$((s + $?)); done; echo "sum $s"
kill -0 $$ && echo alive; kill -0 999999 || echo dead
disown -a; jobs; echo end
