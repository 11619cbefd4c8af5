# SPDX-License-Identifier: Apache-2.0
# Pipes: long pipelines, SIGPIPE, process substitution, named pipes, big transfers, closed ends.
cd /tmp
seq 1 100000 | grep 7 | sort -rn | head -n 3
seq 1 1000 | tee >(wc -l >count) >(tail -n 1 >last) >/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do [ -s count ] && [ -s last ] && break; sleep 0.1; done
cat count last
diff <(seq 1 5) <(seq 1 2 9); echo "diff $?"
paste <(seq 3) <(seq 4 6) <(seq 7 9)
yes | head -n 1; echo "${PIPESTATUS[*]}"
( trap '' PIPE; yes 2>/dev/null | head -n 1 >/dev/null; echo "${PIPESTATUS[*]}" )
mkfifo f; (for i in 1 2 3; do echo "fifo $i"; done >f) & cat f; wait
head -c 8388608 /dev/zero | tr '\0' x | sha256sum
head -c 3000000 /dev/zero | dd bs=7919 status=none | wc -c
x=$(head -c 200000 /dev/zero | tr '\0' y); echo ${#x}
cat /etc/passwd | cat | cat | cat | cat | cat | cat | cat | cmp - /etc/passwd && echo same
{ echo a; sleep 0.2; echo b; } | while read -t 5 l; do echo "got $l"; done
read -t 0.1 x < <(sleep 1); echo "timeout $(( $? > 128 ))"
exec 3< <(echo three); cat <&3; exec 3<&-
echo data | { read -r -n 2 x; echo "$x"; cat; }
(echo one; echo two >&2) 2>&1 >/dev/null | cat
printf '%s\n' {1..20} | xargs -n 7 echo
: | cat; echo "empty $?"
bash -c 'echo x >&-' 2>/dev/null; echo "closed $?"
