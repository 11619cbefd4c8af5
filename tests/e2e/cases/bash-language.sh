# SPDX-License-Identifier: Apache-2.0
# bash as a language: arrays, traps, here-documents, substitutions, arithmetic, subshells.
cd /tmp
declare -a a=(one "two words" three)
declare -A m=([x]=1 [y]=2 [z]=3)
a+=(four)
printf '<%s>' "${a[@]}" "${#a[@]}" "${a[@]:1:2}"; echo
for k in $(printf '%s\n' "${!m[@]}" | sort); do echo "$k=${m[$k]}"; done
unset 'a[1]'; echo "${!a[@]}"
mapfile -t lines < <(seq 5 8); echo "${lines[*]/#/n}"
s=abcdefghij
echo "${s:2:3} ${s/def/-} ${s^^} ${#s} ${s%%f*} ${s##*f}"
echo $((16#ff + 2 ** 10 - (7 % 3) * (5 > 3)))
x=5; (( x += 10, x <<= 2 )); echo $x
cat <<END
here $x $(echo sub) \$x
END
cat <<'END'
raw $x $(echo sub)
END
cat <<< "string $x"
f() { local x=local; trap 'echo "return trap"' RETURN; echo "$x $1 $#"; return 3; }
f p q; echo "ret $? x $x"
trap - RETURN
( trap 'echo "exit trap $?"' EXIT; exit 4 ); echo "sub $?"
trap 'echo usr1' USR1; kill -USR1 $$; trap - USR1
trap 'echo "err at $BASH_COMMAND"' ERR; false; trap - ERR
set -o pipefail
true | false | true; echo "pipefail $? ${PIPESTATUS[*]}"
set +o pipefail
case "$s" in a*[hij]) echo match ;; *) echo none ;; esac
[[ $s =~ ^(a.c)(.*)$ ]] && echo "${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
select_sum=0; for ((i = 0; i < 1000; i++)); do ((select_sum += i)); done; echo $select_sum
while IFS=: read -r user _ uid _; do [ "$uid" = 0 ] && echo "uid 0 is $user"; done < /etc/passwd
exec 5>fd5; echo to5 >&5; exec 5>&-; cat fd5
{ echo out; echo err >&2; } 2>&1 | sort
echo {a..e}{1..2}
printf '%05d|%-6s|%x|%q\n' 42 ab 255 'a b'
eval 'echo ev$((1+1))'
coproc CO { while read -r l; do echo "co:$l"; done; }
echo hello >&"${CO[1]}"; read -r r <&"${CO[0]}"; echo "$r"
eval "exec ${CO[1]}>&-"; wait "$CO_PID"; echo "coproc $?"
umask 027; touch u; stat -c %a u; umask 022
ulimit -n >/dev/null && echo limit ok
type -t cd printf ls f
readonly R=1; (R=2) 2>/dev/null; echo "readonly $?"
bash -c 'echo "$0 $1"' zero one
bash --norc -c 'exec nosuchprogram' 2>/dev/null; echo "missing $?"
/tmp/u 2>/dev/null; echo "not executable $?"
time_out=$( { TIMEFORMAT=%R; time sleep 0.1; } 2>&1 ); [[ $time_out == 0.[1-9]* ]] && echo timed
