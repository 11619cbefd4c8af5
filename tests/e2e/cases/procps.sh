# SPDX-License-Identifier: Apache-2.0
# ps and its relatives: what proc(5) shows of processes.
cd /tmp
sleep 50 & p=$!
for i in 1 2 3 4 5 6 7 8 9 10; do [ "$(ps -o comm= -p $p)" = sleep ] && break; sleep 0.1; done
ps -o comm= -p $p; ps -o args= -p $p; ps -o stat= -p $p | cut -c1; [ "$(ps -o ppid= -p $p | tr -d ' ')" = $$ ] && echo parent; ps -o user=,nice=,tty= -p $p | tr -s ' '
ps -e -o comm= | sort | uniq -c | grep -c -E 'bash|sleep'; ps aux | awk 'NR == 1 { print $1, $2, $11 }'; ps -ef | awk '$8 == "sleep" && $9 == 50' | wc -l; pgrep -x sleep | wc -l; pidof sleep | wc -w
[ "$(pgrep -P $$ -x sleep)" = $p ] && echo pgrep; tr '\0' ' ' </proc/$p/cmdline; echo; cat /proc/$p/comm; readlink /proc/$p/exe /proc/$p/cwd; readlink /proc/self/root
awk '/^(Name|State|PPid|Threads|Uid):/ { print $1, $2 }' /proc/$p/status | grep -v PPid; cut -d' ' -f2-3 /proc/$p/stat; ls /proc/$p/fd | tr '\n' ' '; echo
env A=b cat /proc/self/environ | tr '\0' '\n' | grep ^A=; grep -c . /proc/self/maps | awk '{ print ($1 > 5) }'; grep -o '\[stack\]' /proc/self/maps; ls /proc/self/task | wc -l
free | awk '/^Mem/ { print ($2 > 0) }'; uptime >/dev/null; echo "uptime $?"; vmstat >/dev/null 2>&1; echo "vmstat $?"; awk '{ print ($1 >= 0) }' /proc/loadavg; awk '/^processor/ { n++ } END { print (n > 0) }' /proc/cpuinfo
top -b -n 1 | head -n 7 | grep -c -E 'Tasks|Cpu|Mem'; w >/dev/null 2>&1; pkill -x sleep; wait $p 2>/dev/null; echo "pkill $?"; ps -p $p >/dev/null; echo "gone $?"; cat /proc/sys/kernel/ostype; awk '$2 == "proc" || $2 == "tmpfs"' /proc/filesystems | sort
[ -d /proc/self ] && cat /proc/self/cgroup >/dev/null; sysctl -n kernel.ostype; [ "$(cat /proc/sys/kernel/random/uuid | wc -c)" = 37 ] && echo uuid; awk '$2 == "/tmp" { print $3 }' /proc/mounts; ls /proc/none 2>&1; cat /proc/version | cut -d' ' -f1
