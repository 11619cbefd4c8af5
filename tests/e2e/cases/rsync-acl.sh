# SPDX-License-Identifier: Apache-2.0
# rsync with links, times and attributes; access control lists and extended attributes by their tools.
#: timeout 120
#: needs /usr/bin/rsync
cd /tmp && mkdir -p s/a/b s/c && export LC_ALL=C
for i in {1..50}; do seq "$i" 200 >s/a/f$i; done; ln s/a/f1 s/a/b/hard; ln -s ../f2 s/a/b/soft; truncate -s 10M s/c/sparse; echo end >>s/c/sparse; mkfifo s/c/fifo; touch -d @1000000000.5 s/a/f3; chmod 4750 s/a/f4; chown 12:34 s/a/f5
rsync -aHS s/ d/ && diff <(cd s && find . -printf '%p %m %U:%G %n %s %l\n' | sort) <(cd d && find . -printf '%p %m %U:%G %n %s %l\n' | sort) && diff <(cd s && find . -type f -printf '%p %T@\n' | sort) <(cd d && find . -type f -printf '%p %T@\n' | sort) && echo equal; [ $(du -k d/c/sparse | cut -f1) -lt 200 ] && echo sparse
echo more >>s/a/f7; rm s/a/f8; mv s/a/f9 s/c; rsync -aHi --delete s/ d/ | grep -v '^\.d' | awk '{ print $NF }' | sort; rsync -aHi --delete s/ d/ | wc -l
setfacl -m u:1000:rw,g:50:r s/a/f1 && getfacl -cn s/a/f1; chmod 600 s/a/f1; getfacl -cn s/a/f1 | grep mask; setfacl -d -m u:7:rwx s/c && mkdir s/c/new && touch s/c/file && getfacl -cn s/c/new s/c/file
setpriv --reuid=1000 --regid=1000 --clear-groups cat s/a/f1 2>&1 | head -n 1; setfacl -m m::r s/a/f1; setpriv --reuid=1000 --regid=1000 --clear-groups head -n 1 s/a/f1
setfattr -n user.one -v 1 s/a/f2; setfattr -n user.two -v "a b" s/a/f2; getfattr -d s/a/f2; setfattr -x user.one s/a/f2; getfattr -n user.one s/a/f2 2>&1; rsync -aAX s/ e/ && getfattr -d e/a/f2 && getfacl -cn e/c/new | head -n 3
cp -a s g && getfattr -d g/a/f2 | grep two; tar --acls --xattrs -cf t.tar s && mkdir h && tar --acls --xattrs -xf t.tar -C h && getfacl -cn h/s/a/f1
