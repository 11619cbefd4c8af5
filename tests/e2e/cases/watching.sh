# SPDX-License-Identifier: Apache-2.0
# Programs that wait for files to change: tail -f, and a watcher of a tree as build servers have.
cd /tmp
mkdir -p w; echo one >w/log
tail -f w/log >out & pid=$!
sleep 0.5; echo two >>w/log; printf 'three\nfour\n' >>w/log; sleep 0.5; : >w/log; echo five >>w/log; sleep 0.5
kill $pid; wait $pid 2>/dev/null; cat out
tail -F w/log >out 2>/dev/null & pid=$!
sleep 0.5; mv w/log w/log.1; echo six >w/log; sleep 1.5; echo seven >>w/log; sleep 0.5; kill $pid; wait $pid 2>/dev/null; cat out
cat >watch.py <<'PY'
import ctypes, os, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_CLOEXEC)
CREATE, DELETE, FROM, TO, CLOSE_WRITE, ISDIR, IGNORED = 0x100, 0x200, 0x40, 0x80, 8, 0x40000000, 0x8000
paths, seen, cookies = {}, {}, {}
def add(p): paths[libc.inotify_add_watch(fd, p.encode(), CREATE | DELETE | FROM | TO | CLOSE_WRITE)] = p
def work():
    for i in range(100):
        with open(f'w/f{i}', 'w') as f: f.write('x')
        os.rename(f'w/f{i}', f'w/g{i}')
    for i in range(100): os.unlink(f'w/g{i}')
    os.mkdir('w/end')
add('w')
t = threading.Thread(target=work); t.start()
end = pairs = 0
while not end:
    data = os.read(fd, 4096)
    while data:
        wd, mask, cookie, n = struct.unpack_from('iIII', data)
        name, data = data[16:16 + n].rstrip(b'\0').decode(), data[16 + n:]
        seen[mask] = seen.get(mask, 0) + 1
        if mask & FROM: cookies[cookie] = name
        if mask & TO: pairs += cookies.pop(cookie)[1:] == name[1:]
        end = end or name == 'end'
t.join()
print(sorted(seen.items()), pairs, len(cookies))
PY
python3 watch.py
