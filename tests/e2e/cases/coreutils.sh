# SPDX-License-Identifier: Apache-2.0
# A tour of coreutils, each once, on files in /tmp.
cd /tmp
mkdir -p d/e/f && touch d/x d/e/y && cp -r d d2 && mv d2 d3 && ls -1R d3
printf 'c 3\na 1\nb 2\na 1\n' >t
sort t | uniq -c; sort -u -k2n t; cut -d' ' -f2 t; tac t; nl t; rev t 2>/dev/null; tr a-z A-Z <t
join <(sort -u t) <(printf 'a x\nb y\n'); comm -12 <(sort -u t) <(printf 'a 1\nz 9\n'); paste -sd, t
head -c 5 t; echo; tail -n 2 t; wc t; fold -w 2 t | head -n 3; expand <<<$'a\tb'; od -c t | head -n 2
split -b 6 t part.; ls part.*; cat part.* | cmp - t && echo joined
csplit -s t 3; ls xx*; rm xx* part.*
ln t hard; ln -s t soft; stat -c '%h %s %F' t hard soft; readlink soft; readlink -f soft; realpath --relative-to=/ soft
chmod 640 t; stat -c '%a %A' t; chmod u+s,g=rx t; stat -c %a t; chmod 644 t
chown 1000:1001 t; stat -c '%u:%g' t; chown 0:0 t
touch -d '2001-02-03 04:05:06 UTC' t; stat -c %Y t; date -u -r t +%F,%T; touch -r t u; [ u -nt t ] || echo "not newer"
truncate -s 1M sparse; stat -c '%s %b' sparse; dd if=/dev/zero of=sparse bs=4096 count=3 seek=10 conv=notrunc status=none; stat -c %s sparse
du -a --apparent-size -b d3 | sort -k2 | awk '{print $2}'; md5sum t; sha1sum t; sha512sum t | cut -c1-20; b2sum t | cut -c1-16; cksum t; sum t
basename /a/b.c .c; dirname /a/b.c; seq -s+ 5; factor 1234567890; expr 6 \* 7; numfmt --to=iec 123456; printf '%b\n' 'a\tb'
base64 <<<hello | base64 -d; base32 <<<hi; shuf -i 1-5 | sort; tsort <<<'a b b c'
echo a b | tee out1 | cat; test -s out1 && [ -d d ] && [ ! -e none ] && echo tests
mkfifo p; [ -p p ] && echo fifo; mknod n p && stat -c %F n; install -m 700 t inst && stat -c %a inst
id -u; id -gn; whoami; groups; logname 2>/dev/null || echo nologname
env -i A=1 env; nice -n 5 nice; nproc >/dev/null && echo nproc; arch; uname -s; pwd; printenv HOME
rmdir d/e 2>/dev/null || echo "not empty"; rm -r d d3; rm none 2>/dev/null || echo "rm failed"; rm -f none && echo "rm -f"
mktemp -d /tmp/zXXXXXX | wc -c; df /tmp | tail -n 1 | awk '{print $6}'; sync; sleep 0.05
cat none 2>&1; ls none 2>&1; cp none x 2>&1; mv t / 2>&1 | sed 's/^mv: //'; touch /etc/x 2>&1; mkdir /usr/q 2>&1
ls -ld /tmp | cut -c1-10; tty; echo "tty $?"; timeout 1 true; echo $?; yes n | head -n 2; stdbuf -oL echo buffered
chroot / /bin/echo chrooted; pathchk -p 'a b' 2>&1; link t l2 && unlink l2; shred -u inst && [ ! -e inst ] && echo shredded
dd if=/dev/urandom of=r bs=64k count=4 status=none; cp --reflink=auto r r2; cmp r r2 && echo equal; ls -i r r2 | awk '{print $1}' | sort -u | wc -l
