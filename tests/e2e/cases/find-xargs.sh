# SPDX-License-Identifier: Apache-2.0
# find over a tree of 2,000 files, xargs with four at once, and find's tests and actions.
cd /tmp
mkdir t && cd t
for i in $(seq 1 40); do mkdir d$i; for j in $(seq 1 50); do echo "$i $j" >d$i/f$j; done; done
find . -type f | wc -l
find . -type f -print0 | xargs -0 -P4 -n 25 cat | sort -n -k1,1 -k2,2 | sha256sum
find . -name 'f1?' -path './d2*' | sort | head -n 5
find . -type f -size -6c | wc -l
find . -type f -print0 | xargs -0 -P4 -n 10 sh -c 'echo $#' _ | awk '{ s += $1 } END { print s, NR }'
find d1 -type f -exec grep -l ' 5' {} + | sort | wc -l
find d2 -type f -name 'f?' -exec sh -c 'echo "${1##*/}"' _ {} \; | sort
find . -mindepth 1 -maxdepth 1 -type d | wc -l
find /usr/share -type d 2>/dev/null | LC_ALL=C sort | sha256sum
find /etc -type l -printf '%p -> %l\n' | LC_ALL=C sort | sha256sum
find / -xdev -path /proc -prune -o -type f -perm -4000 -print 2>/dev/null | LC_ALL=C sort
seq 1 20 | xargs -P4 -I{} sh -c 'exit $(({} == 13))'; echo "xargs $?"
seq 3 | xargs -P2 -n1 sh -c 'exit 255' 2>/dev/null; echo "xargs 255: $?"
find d3 d4 -delete; ls -d d3 2>&1; find . -type f | wc -l
find . -empty -o -name 'f50' -quit | wc -l
find nothere 2>&1; echo $?
