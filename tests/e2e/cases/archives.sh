# SPDX-License-Identifier: Apache-2.0
# Round trips through tar, gzip and xz, with modes, times, links and a sparse file.
#: timeout 180
cd /tmp
mkdir -p src/sub/deep
for i in $(seq 1 60); do seq $i $((i * 40)) >src/sub/f$i; done
cp /bin/bash src/program; ln src/sub/f1 src/hard; ln -s sub/f2 src/soft; truncate -s 3M src/sparse; printf end >>src/sparse
chmod 751 src/sub/f3; touch -d @1000000000 src/sub/f4; mkfifo src/pipe; chown 12:34 src/sub/f5
sum() { (cd "$1" && find . -type f -exec sha256sum {} + | sort -k2 | sha256sum); }
meta() { (cd "$1" && find . -printf '%P %y %m %U:%G %n %l\n' | sort | sha256sum); }
sum src; meta src
for z in '' z J; do
    tar c${z}f a.tar$z src && mkdir o$z && tar x${z}pf a.tar$z -C o$z && sum o$z/src && meta o$z/src
done
tar tzf a.tarz | sort | head -n 4; stat -c %Y o/src/sub/f4
tar --sparse -cf s.tar src/sparse && tar xf s.tar -O | cmp - src/sparse && echo sparse
tar cf - src | gzip -1 | gunzip | tar tf - | wc -l
gzip -k src/sub/f60 && gzip -l src/sub/f60.gz | tail -n 1 | awk '{ print $2 }' && zcat src/sub/f60.gz | cmp - src/sub/f60 && echo gz
xz -T2 -k -2 src/program && xz -t src/program.xz && xzcat src/program.xz | cmp - src/program && echo xz
head -c 100 a.tarz >cut; gunzip -c cut >/dev/null 2>&1; echo "broken gzip $?"
tar xf a.tar -C o --strip-components=2 src/sub/f7 && cmp o/f7 src/sub/f7 && echo strip
tar rf a.tar -C src hard && tar tf a.tar | tail -n 1; tar --delete -f a.tar hard && tar tf a.tar | tail -n 1 | wc -l
