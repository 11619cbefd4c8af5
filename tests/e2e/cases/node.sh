# SPDX-License-Identifier: Apache-2.0
# node: timers, promises, worker threads, child processes, streams, files and the JIT.
#: timeout 180
#: needs /usr/bin/node
cd /tmp
cat >n.js <<'END'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (!isMainThread) { let s = 0; for (let i = 0; i < 1e6; i++) s = (s + i * workerData) % 1000003; parentPort.postMessage(s); return; }
const cp = require('child_process'), fs = require('fs'), zlib = require('zlib'), crypto = require('crypto'), { pipeline } = require('stream/promises');
const sleep = ms => new Promise(r => setTimeout(r, ms));
(async () => {
    const order = []; setTimeout(() => order.push('t0'), 0); setImmediate(() => order.push('imm')); process.nextTick(() => order.push('tick')); Promise.resolve().then(() => order.push('micro'));
    await sleep(50); console.log(order.sort().join(' '));
    let n = 0; await new Promise(r => { const i = setInterval(() => { if (++n == 10) { clearInterval(i); r(); } }, 5); }); console.log('interval', n);
    const res = await Promise.all([1, 2, 3, 4].map(w => new Promise((ok, bad) => { const k = new Worker(__filename, { workerData: w }); k.on('message', ok); k.on('error', bad); }))); console.log(res.join(' '));
    console.log(cp.execFileSync('sort', ['-n'], { input: '3\n1\n2\n' }).toString().split('\n').join(' '));
    console.log(await new Promise(r => cp.exec('echo out; exit 3', (e, o) => r([e.code, o.trim()].join(' ')))));
    const c = cp.spawn('sleep', ['100']); c.kill(); console.log(await new Promise(r => c.on('exit', (code, sig) => r(sig))));
    fs.writeFileSync('x', 'y'.repeat(300000)); await pipeline(fs.createReadStream('x'), zlib.createGzip(), fs.createWriteStream('x.gz')); console.log(zlib.gunzipSync(fs.readFileSync('x.gz')).length);
    console.log((await Promise.all([...Array(50).keys()].map(async i => { await fs.promises.writeFile('f' + i, '' + i); return (await fs.promises.readFile('f' + i)).length; }))).reduce((a, b) => a + b));
    console.log(crypto.createHash('sha256').update('abc').digest('hex').slice(0, 16), crypto.randomBytes(8).length, await new Promise(r => crypto.pbkdf2('a', 'b', 1000, 16, 'sha1', (e, k) => r(k.toString('hex')))));
    const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2); console.log(fib(24)); const big = []; for (let i = 0; i < 300000; i++) big.push({ i }); console.log(big.reduce((a, b) => a + b.i, 0)); console.log((2n ** 100n).toString());
    process.on('SIGUSR2', () => console.log('usr2')); process.kill(process.pid, 'SIGUSR2'); await sleep(100);
    console.log(process.platform, process.arch, typeof process.memoryUsage().rss, WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))); process.exitCode = 4;
})();
END
node n.js; echo "node $?"
node -e 'setTimeout(() => console.log("timer"), 20)'; echo 'console.log(1 + 1)' | node; node -p '[1,2,3].map(x => x * 2)'; node -e 'throw new Error("x")' 2>/dev/null; echo "throw $?"
