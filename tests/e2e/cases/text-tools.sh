# SPDX-License-Identifier: Apache-2.0
# grep, sed, awk and bc on generated text.
cd /tmp
awk 'BEGIN { s = 1; for (i = 0; i < 50000; i++) { s = (s * 1103515245 + 12345) % 2147483648; printf "%d %s %d\n", i, substr("abcdefghijklmnopqrstuvwxyz", s % 20 + 1, 5), s % 1000 } }' >data
sha256sum <data
grep -c fgh data; grep -E '^[0-9]{3} ' data | wc -l; grep -P '(\d)\1{3}' data | head -n 2; grep -n -m 2 -A1 'cde' data
grep -o '[aeiou]' data | sort | uniq -c; grep -v -F -e abc -e bcd -e cde data | wc -l; grep -rl xyz /etc/nothing 2>&1; grep -q zzzzz data; echo $?
sed -n '10,12p;$p' data; sed -E 's/([0-9]+) ([a-z]+) ([0-9]+)/\3-\2-\1/;5q' data; sed -e '/abc/d' -e 'y/abc/xyz/' data | sha256sum
cp data d2; sed -i.bak '1~2d' d2; wc -l d2 d2.bak; sed -n '/^3 /,/^5 /{=;p}' data; sed ':a;N;$!ba;s/\n/,/g' <(head -n 4 data)
awk '{ n[$2]++; t[$2] += $3 } END { for (k in n) printf "%s %d %.3f\n", k, n[k], t[k] / n[k] }' data | sort | head -n 5
awk -F' ' 'function max(a, b) { return a > b ? a : b } { m = max(m, $3) } END { print m, NR }' data
awk 'BEGIN { while (("echo a b; echo c d" | getline l) > 0) { split(l, p); print p[2], p[1] } print toupper("x"), length("abc"), index("hello", "l"), sprintf("%08.3f", 3.14159) }'
awk 'BEGIN { print "to pipe" | "cat"; close("cat"); print strftime("%Y", 0, 1); system("exit 3"); }'
gawk 'BEGIN { n = split("3 1 2", a); asort(a); print a[1] a[2] a[3]; print gensub(/(.)b/, "\\1-", "g", "abab") }'
echo 'scale=50; 4*a(1)' | bc -l; echo '2^200' | bc; echo 'define f(n) { if (n < 2) return 1; return n * f(n-1); } f(30)' | bc
sort -k3,3n -k1,1nr data | sha256sum; sort -R data | wc -l; sort --parallel=2 -S 1M data | sha256sum; sort -c data 2>&1 | head -n 1; cut -d' ' -f2 data | sort | uniq -d | wc -l
file -b /bin/sh /etc/passwd data | cut -d, -f1; tr -cd 'a-e\n' <data | sha256sum; diff <(head -n 5 data) <(head -n 6 data | tail -n 5); echo "diff $?"
