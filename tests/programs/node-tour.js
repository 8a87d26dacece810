'use strict';
const crypto = require('crypto'), fs = require('fs'), zlib = require('zlib'), assert = require('assert');
const { Worker, isMainThread } = require('worker_threads');
let h = 0;
for (let i = 0; i < 30_000_000; i++) h = (Math.imul(h, 31) + (i ^ (i >>> 3))) | 0;
console.log('hot', h);
const sieve = new Uint8Array(2_000_000); let primes = 0;
for (let i = 2; i < sieve.length; i++) { if (sieve[i]) continue; primes++; for (let j = i * 2; j < sieve.length; j += i) sieve[j] = 1; }
console.log('primes', primes);
const n = 80, a = new Float64Array(n * n).map((_, i) => (i % 7) + 0.5), b = new Float64Array(n * n).map((_, i) => (i % 11) - 3.25), c = new Float64Array(n * n);
for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) { let s = 0; for (let k = 0; k < n; k++) s += a[i * n + k] * b[k * n + j]; c[i * n + j] = s; }
console.log('matrix', c[0], c[777], c.reduce((x, y) => x + y));
class P { constructor(x) { this.x = x; } f() { return this.x + 1; } } class Q extends P { f() { return super.f() * 2; } }
let t = 0; for (let i = 0; i < 1_000_000; i++) { const o = i % 3 ? new P(i) : new Q(i); t = (t + o.f()) % 1000003; } console.log('objects', t);
let f = 1n; for (let i = 1n; i <= 200n; i++) f *= i; console.log('bigint', (f % (10n ** 61n - 1n)).toString(), (2n ** 521n - 1n).toString(16).length, BigInt.asIntN(64, 2n ** 63n));
console.log('json', JSON.stringify(JSON.parse('{"a":[1,2.5e3,{"b":"\\u00e9\\n"}],"c":null,"d":-0}')));
console.log('numbers', 0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, (25).toString(36), (0.1).toFixed(20), (1e21).toLocaleString('en-US'), parseFloat('1e-7'), -7 % 3, 2 ** 53 + 2, 1 / -0);
console.log('math', Math.fround(5.5e-7), Math.clz32(12345), Math.hypot(3, 4, 12), Math.round(-2.5), Math.trunc(-7.9), Math.cbrt(27), (123.456).toPrecision(4), 0xffffffff | 0, -1 >>> 28);
for (const name of ['md5', 'sha1', 'sha256', 'sha512']) console.log(name, crypto.createHash(name).update('abc'.repeat(100000)).digest('hex'));
console.log('hmac', crypto.createHmac('sha256', 'key').update('data').digest('hex'), crypto.pbkdf2Sync('p', 's', 1000, 16, 'sha256').toString('hex'));
const cipher = crypto.createCipheriv('aes-256-gcm', Buffer.alloc(32, 1), Buffer.alloc(12, 2)); const sealed = Buffer.concat([cipher.update('secret message'), cipher.final(), cipher.getAuthTag()]); console.log('gcm', sealed.toString('hex'));
const poly = crypto.createCipheriv('chacha20-poly1305', Buffer.alloc(32, 3), Buffer.alloc(12, 4), { authTagLength: 16 }); console.log('chacha', Buffer.concat([poly.update('secret message'), poly.final(), poly.getAuthTag()]).toString('hex'));
const data = Buffer.from(Array.from({ length: 100000 }, (_, i) => (i * i) & 255)); assert(zlib.gunzipSync(zlib.gzipSync(data)).equals(data)); assert(zlib.brotliDecompressSync(zlib.brotliCompressSync(data, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } })).equals(data));
console.log('regex', 'x1y22z333'.replace(/(\p{L})(\d+)/gu, '$2$1'), 'aaa'.match(/(?<=a)a/g).length, /^(?<y>\d{4})-(?<m>\d\d)$/.exec('2024-05').groups.m, 'a,b;c'.split(/[,;]/).join('|'), /(a+)+$/.test('a'.repeat(20)));
const words = []; let x = 1; for (let i = 0; i < 50000; i++) { x = (x * 48271) % 2147483647; words.push(x.toString(36)); } words.sort(); console.log('sort', words[0], words[25000], words[49999]);
const map = new Map(); for (const w of words) map.set(w.length, (map.get(w.length) || 0) + 1); console.log('map', [...map].sort((p, q) => p[0] - q[0]).join(' '));
console.log('typed', new DataView(new Float32Array([1.5]).buffer).getUint32(0, true).toString(16), new Int8Array([200])[0], new Uint8ClampedArray([300, -5]).join(), Array.from(new Uint16Array(new Uint32Array([0x12345678]).buffer)).map(v => v.toString(16)).join());
function* fib() { let [p, q] = [0, 1]; for (;;) { yield p; [p, q] = [q, p + q]; } } const it = fib(); let v; for (let i = 0; i < 70; i++) v = it.next().value; console.log('fib', v);
console.log('proxy', new Proxy({}, { get: (_, k) => `got ${String(k)}` }).anything, (() => { try { null.x; } catch (e) { return e.constructor.name; } })(), `${[3, 1, 2].toSorted ? 1 : 1}`);
console.log('deopt', [1, 2.5, 'x', null, {}, 7n].map(e => { let r = ''; for (let i = 0; i < 20000; i++) r = typeof e; return r; }).join());
try { (function r() { r(); })(); } catch (e) { console.log('stack', e instanceof RangeError); }
const shared = new Int32Array(new SharedArrayBuffer(8));
const source = `const { workerData: s } = require('worker_threads'); for (let i = 0; i < 100000; i++) Atomics.add(s, 0, 1); Atomics.add(s, 1, 1); Atomics.notify(s, 1);`;
const wasm = new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11])));
let w = 0; for (let i = 0; i < 200000; i++) w = wasm.exports.add(w, i); console.log('wasm', w);
(async () => {
  const order = []; setTimeout(() => order.push('late'), 2000); setTimeout(() => order.push('soon'), 0); process.nextTick(() => order.push('tick')); Promise.resolve().then(() => order.push('micro'));
  while (order.length < 4) await new Promise(r => setTimeout(r, 20)); console.log('order', order.join());
  await Promise.all(Array.from({ length: 4 }, () => new Promise((ok, no) => new Worker(source, { eval: true, workerData: shared }).on('exit', ok).on('error', no))));
  console.log('workers', shared[0], shared[1]);
  await fs.promises.writeFile('/tmp/node-io', data); console.log('io', (await fs.promises.readFile('/tmp/node-io')).equals(data));
  const server = require('http').createServer((q, s) => s.end(q.url.repeat(3))); await new Promise(r => server.listen(0, '127.0.0.1', r));
  const bodies = await Promise.all(Array.from({ length: 20 }, (_, i) => new Promise((ok, no) => require('http').get({ port: server.address().port, host: '127.0.0.1', path: '/' + i }, s => { let d = ''; s.on('data', p => d += p).on('end', () => ok(d)); }).on('error', no))));
  console.log('http', bodies.length, bodies[19]); server.close();
})();
