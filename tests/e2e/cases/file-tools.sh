# SPDX-License-Identifier: Apache-2.0
# Tools that use the rarer file calls: attributes and ACLs through archives, holes, locks, mounts, directory watches of node and java.
#: timeout 240
export LC_ALL=C.UTF-8 HOME=/tmp
said() { sed 's/.*: //'; }
cd /tmp; mkdir src
# Standard input is the caller's: a device that has a position. A pipe has none.
python3 -c 'import os; print(os.lseek(0, 0, 1), os.lseek(0, 5, 0) >= 0)'
true | python3 -c 'import os
try: os.lseek(0, 0, 1)
except OSError as e: print(e.strerror)'
for i in 1 2 3; do echo $i >src/f$i; done; ln src/f1 src/hard; ln -s f1 src/soft; mkfifo src/pipe
setfattr -n user.k -v val src/f1; setfattr -n trusted.k -v tv src/f2; setfacl -m u:33:rw src/f3; setfacl -d -m g:33:rx src
show() { (cd "$1" && find . ! -type l | sort | xargs sh -c 'getfattr -d -m - "$@"; getfacl -p "$@"' show; find . -printf '%P %y %m %n %l\n' | sort) 2>&1; }
show src
tar --xattrs --xattrs-include='*' --acls -cf a.tar src; mkdir o; tar --xattrs --xattrs-include='*' --acls -xpf a.tar -C o; cp -a src copy; rsync -aHAX src/ sync
for d in o/src copy sync; do diff <(show src) <(show $d) && echo "same $d"; done
truncate -s 10M sp; echo x | dd of=sp bs=1 seek=5000000 conv=notrunc 2>/dev/null; cp --reflink=auto --sparse=always sp sp2; cmp sp sp2; du -k sp2 | awk '{ print $1 < 200 }'
cp --reflink=always sp sp3 2>&1 | said
fallocate -l 1M fa; stat -c '%s %b' fa; fallocate -p -o 0 -l 512K fa; stat -c '%s %b' fa; fallocate -n -l 2M fa; stat -c %s fa
fallocate -c -o 0 -l 4096 fa 2>&1 | said; fallocate -i -o 0 -l 4096 fa 2>&1 | said; fallocate -d sp; cmp sp sp2
flock -n fa flock -n fa true || echo locked; flock -s fa flock -s fa echo shared; (flock -x 9; echo in) 9>lk
mkdir mnt b; mount -t tmpfs -o size=1M,mode=700 none mnt; df -k mnt | awk 'END { print $2 }'; stat -c %a mnt
head -c 2M /dev/zero >mnt/x 2>err; said <err; mount --bind mnt b; ls b; mount -o remount,ro,bind b; touch b/y 2>&1 | said; umount b mnt; umount mnt 2>&1 | said
install -d -m 711 -o 5 -g 6 in; install -m 4755 -o 5 /bin/true in/t; stat -c '%a %u %g' in in/t; chown 7 in/t; stat -c %a in/t
cat >n.js <<'J'
const fs = require('fs'), fsp = fs.promises, nap = (ms) => new Promise((r) => setTimeout(r, ms));
(async () => {
  await fsp.mkdir('a/b', { recursive: true }); await fsp.writeFile('a/x', 'hello'); await fsp.symlink('x', 'a/l'); await fsp.cp('a', 'a2', { recursive: true });
  console.log((await fsp.readdir('a2', { withFileTypes: true })).map((d) => d.name + d.isDirectory() + d.isSymbolicLink()).sort());
  for (const [what, mode] of [['a/z', fs.constants.COPYFILE_FICLONE_FORCE], ['a/x', fs.constants.COPYFILE_EXCL]]) await fsp.copyFile('a/x', what, mode).catch((e) => console.log(e.code));
  const seen = [], w = fs.watch('a', (t, f) => seen.push(t + f));
  await nap(300); fs.writeFileSync('a/new', '1'); await nap(300); fs.renameSync('a/new', 'a/new2'); fs.unlinkSync('a/new2'); await nap(500); w.close(); console.log(seen.sort().join(' '));
  await fsp.rm('a', { recursive: true }); console.log(fs.existsSync('a'));
})();
J
node n.js
