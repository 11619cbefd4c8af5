# SPDX-License-Identifier: Apache-2.0
# Memory as programs use it: large sparse reservations, copy-on-write over many forks, deep recursion, big heaps, shared maps.
python3 -u - <<'END'
import ctypes, mmap, os, resource, sys, threading
libc = ctypes.CDLL(None, use_errno=True); libc.mmap.restype = ctypes.c_void_p; libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
p = libc.mmap(None, 1 << 40, 0, 0x4022, -1, 0); print(p != 2 ** 64 - 1); libc.mprotect(ctypes.c_void_p(p + (1 << 30)), 8192, 3); ctypes.memset(p + (1 << 30), 7, 8192); print(ctypes.string_at(p + (1 << 30) + 8190, 2)); print(libc.munmap(ctypes.c_void_p(p), ctypes.c_size_t(1 << 40)))
m = mmap.mmap(-1, 1 << 26); m[12345:12350] = b"share"; priv = bytearray(b"\1" * (1 << 24))
for i in range(20):
    if os.fork() == 0:
        priv[i * 4096] = 99; m[i] = i + 1; os._exit(priv.count(99))
print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(20)) == [1] * 20, priv.count(99), bytes(m[:20]) == bytes(range(1, 21)), m[12345:12350])
big = [bytearray(1 << 20) for _ in range(200)]; print(sum(len(b) for b in big)); del big
sys.setrecursionlimit(20000); f = lambda n: 0 if n == 0 else 1 + f(n - 1); print(f(5000))
threading.stack_size(64 << 20); r = []; t = threading.Thread(target=lambda: r.append(f(15000))); t.start(); t.join(); print(r)
if os.fork() == 0:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
    try: bytearray(1 << 30)
    except MemoryError: print("limit", flush=True)
    os._exit(0)
os.wait()
x = mmap.mmap(-1, 4096 * 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); x[:] = b"z" * 40960; x.madvise(mmap.MADV_DONTNEED); print(x[0], x[40959]); x.resize(4096 * 100); print(len(x), x[409599])
print(resource.getpagesize(), resource.getrlimit(resource.RLIMIT_STACK)[0] > 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0)
END
