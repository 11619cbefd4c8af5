# SPDX-License-Identifier: Apache-2.0
# Threads, locks, conditions, queues, timers and thread-local data.
python3 -u - <<'END'
import queue, threading, time, concurrent.futures as cf
lock, n = threading.Lock(), 0
def add():
    global n
    for _ in range(20000):
        with lock: n += 1
ts = [threading.Thread(target=add) for _ in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]; print(n)
q, out = queue.Queue(5), []
def work():
    while (x := q.get()) is not None: out.append(x * x)
ws = [threading.Thread(target=work) for _ in range(4)]; [w.start() for w in ws]
for i in range(500): q.put(i)
for _ in ws: q.put(None)
[w.join() for w in ws]; print(sum(out), len(out))
with cf.ThreadPoolExecutor(16) as p: print(sum(p.map(lambda x: x + 1, range(1000))))
b = threading.Barrier(10); hit = []
def bar(i): b.wait(); hit.append(i)
ts = [threading.Thread(target=bar, args=(i,)) for i in range(10)]; [t.start() for t in ts]; [t.join() for t in ts]; print(sorted(hit))
e = threading.Event(); t0 = time.monotonic(); print(e.wait(0.2)); d = time.monotonic() - t0; print(0.19 < d < 3)
threading.Timer(0.1, e.set).start(); print(e.wait(10))
c = threading.Condition(); turn = 0; log = []
def ping(me):
    global turn
    for i in range(200):
        with c:
            c.wait_for(lambda: turn == me); log.append(me); turn = 1 - me; c.notify_all()
ts = [threading.Thread(target=ping, args=(i,)) for i in (0, 1)]; [t.start() for t in ts]; [t.join() for t in ts]; print(log == [0, 1] * 200)
s = threading.Semaphore(3); live = 0; most = 0
def sem():
    global live, most
    with s:
        with lock: live += 1; most = max(most, live)
        time.sleep(0.01)
        with lock: live -= 1
ts = [threading.Thread(target=sem) for _ in range(20)]; [t.start() for t in ts]; [t.join() for t in ts]; print(most <= 3)
ids = set(); ts = [threading.Thread(target=lambda: (ids.add(threading.get_native_id()), time.sleep(0.05))) for _ in range(64)]
[t.start() for t in ts]; [t.join() for t in ts]; print(len(ids))
l = threading.local(); l.x = 1; r = []; t = threading.Thread(target=lambda: r.append(hasattr(l, "x"))); t.start(); t.join(); print(r)
for _ in range(300): t = threading.Thread(target=int); t.start(); t.join()
print(threading.active_count())
END
