# SPDX-License-Identifier: Apache-2.0
# multiprocessing: pools, queues, shared memory, semaphores in /dev/shm, fork and spawn.
#: timeout 180
cd /tmp
cat >mp.py <<'END'
import multiprocessing as mp, os, sys
from multiprocessing import shared_memory
def sq(x): return x * x
def put(q, i): q.put((i, i * 2))
def inc(v, n):
    for _ in range(n):
        with v.get_lock(): v.value += 1
def fill(name, i):
    s = shared_memory.SharedMemory(name); s.buf[i] = i + 1; s.close()
def run(method):
    c = mp.get_context(method)
    with c.Pool(4) as p:
        print(method, sum(p.map(sq, range(2000), 50)), p.apply(sq, (12,)), sorted(p.imap_unordered(sq, range(10))))
    q = c.Queue(); ps = [c.Process(target=put, args=(q, i)) for i in range(6)]; [p.start() for p in ps]
    print(sorted(q.get() for _ in ps)); [p.join() for p in ps]; print([p.exitcode for p in ps])
    v = c.Value("i", 0); ps = [c.Process(target=inc, args=(v, 500)) for _ in range(4)]; [p.start() for p in ps]; [p.join() for p in ps]; print(v.value)
    s = shared_memory.SharedMemory(create=True, size=4096); ps = [c.Process(target=fill, args=(s.name, i)) for i in range(5)]
    [p.start() for p in ps]; [p.join() for p in ps]; print(bytes(s.buf[:6])); s.close(); s.unlink()
    e = c.Event(); p = c.Process(target=e.wait); p.start(); e.set(); p.join(); print(p.exitcode)
    p = c.Process(target=os._exit, args=(7,)); p.start(); p.join(); print(p.exitcode)
    import time
    p = c.Process(target=time.sleep, args=(100,)); p.start(); p.terminate(); p.join(); print(p.exitcode)
    a, b = c.Pipe(); a.send({"k": [1, 2, 3]}); print(b.recv())
if __name__ == "__main__":
    run("fork"); run("spawn"); print(os.listdir("/dev/shm"))
END
python3 -u mp.py
