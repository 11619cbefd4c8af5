# SPDX-License-Identifier: Apache-2.0
# asyncio on pipes, subprocesses, timers, threads and signals: the event loop's epoll and socketpair.
python3 -u - <<'END'
import asyncio, os, signal, time
async def pipe():
    r, w = os.pipe(); loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(); await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(r, "rb"))
    t, _ = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(w, "wb"))
    writer = asyncio.StreamWriter(t, _, None, loop)
    async def send():
        for i in range(2000): writer.write(b"line %d\n" % i); await writer.drain()
        writer.close()
    task = asyncio.create_task(send()); n = 0
    while await reader.readline(): n += 1
    await task; print("pipe", n)
async def child():
    p = await asyncio.create_subprocess_exec("sort", "-rn", stdin=-1, stdout=-1); out, _ = await p.communicate(b"1\n10\n2\n"); print(out, p.returncode)
    ps = await asyncio.gather(*(asyncio.create_subprocess_shell(f"sleep 0.1; exit {i}") for i in range(8))); print([await p.wait() for p in ps])
async def timers():
    t = time.monotonic(); await asyncio.gather(*(asyncio.sleep(0.2) for _ in range(500))); print(0.19 < time.monotonic() - t < 5)
    try: await asyncio.wait_for(asyncio.sleep(10), 0.1)
    except asyncio.TimeoutError: print("timeout")
    order = []
    async def s(x): await asyncio.sleep(x / 10); order.append(x)
    await asyncio.gather(s(3), s(1), s(2)); print(order)
async def threads(): print(await asyncio.gather(*(asyncio.to_thread(lambda x=x: x * 2) for x in range(10))))
async def sig():
    e = asyncio.Event(); asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, e.set); os.kill(os.getpid(), signal.SIGUSR1); await asyncio.wait_for(e.wait(), 5); print("signal")
async def pair():
    import socket
    a, b = socket.socketpair(); a.setblocking(False); b.setblocking(False); loop = asyncio.get_running_loop()
    async def echo():
        while d := await loop.sock_recv(b, 100): await loop.sock_sendall(b, d.upper())
    t = asyncio.create_task(echo())
    for i in range(200): await loop.sock_sendall(a, b"abc"); assert await loop.sock_recv(a, 100) == b"ABC"
    a.close(); await t; print("pair")
async def main():
    for f in pipe, child, timers, threads, sig, pair: await f()
asyncio.run(main())
END
