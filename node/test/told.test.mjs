// What machines tell of themselves, and ways into them, with real guests.
import assert from 'node:assert/strict'
import dgram from 'node:dgram'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import { ConfigurationError, EndedError, Image } from '../index.mjs'

const ref = process.env.TEST_IMAGE
// Sockets have short names.
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'sm-'))
const snapshotsDir = path.join(scratch, 'snapshots')
after(() => fs.rmSync(scratch, { recursive: true, force: true }))
const again = () => new Promise((resolve) => setTimeout(resolve, 50))
const giveUp = () => AbortSignal.timeout(60_000)

describe('machines', () => {
  let image
  before(async () => {
    image = await Image.build({ ref, snapshotsDir, network: {} })
  })

  test('tell what happens to them, to everyone who asks, until their end', async () => {
    const vm = await image.start()
    const [one, other] = [await vm.events({ signal: giveUp() }), await vm.events()]
    await vm.pause()
    assert.equal(vm.isPaused, true)
    await vm.resume()
    assert.equal(vm.isPaused, false)
    const seen = []
    for await (const event of one) {
      assert.ok(Math.abs(event.atMs - Date.now()) < 600_000, `${event.atMs}`)
      seen.push(event.event)
      if (event.event === 'resumed') break
    }
    assert.deepEqual(seen, ['started', 'paused', 'resumed'])
    // The loop has closed them.
    assert.equal(await one.next(), null)
    const abort = new AbortController()
    for (const expected of seen) assert.equal((await other.next()).event, expected)
    const waits = other.next({ signal: abort.signal })
    abort.abort()
    await assert.rejects(waits, { name: 'AbortError' })
    const last = other.next({ signal: giveUp() })
    await vm.release()
    const { event, orderly, reason } = await last
    assert.deepEqual([event, typeof orderly, typeof reason], ['ended', 'boolean', 'string'])
    assert.equal(await other.next(), null)
    await other.close()
    await assert.rejects(() => vm.events(), EndedError)
  })

  test('whose loop is aborted go on', async () => {
    const vm = await image.start()
    const abort = new AbortController()
    const events = await vm.events({ signal: abort.signal })
    const seen = []
    await assert.rejects(async () => {
      for await (const event of events) {
        seen.push(event.event)
        abort.abort()
      }
    }, { name: 'AbortError' })
    assert.deepEqual(seen, ['started'])
    const waits = await vm.events()
    assert.equal((await waits.next()).event, 'started')
    const next = waits.next()
    await waits.close()
    assert.equal(await next, null)
    assert.equal((await vm.exec({ argv: ['echo', 'well'] })).stdout.toString(), 'well\n')
    await vm.release()
  })

  test('tell what they are, what they use, and where their guests went', async () => {
    const vm = await image.start({
      labels: { team: 'blue' },
      network: { rules: [{ deny: '192.0.2.0/24' }], allow: ['*.example.com'] }
    })
    const about = JSON.parse(fs.readFileSync(path.join(path.dirname(vm.execPath), 'vm.json')))
    assert.deepEqual([about.labels, about.engine], [{ team: 'blue' }, vm.engine])
    assert.ok(path.dirname(vm.execPath).includes(vm.id), vm.id)
    await vm.exec({ argv: ['sh', '-c', 'wget -q -O - http://192.0.2.1:81/; echo told > /dev/console'] })
    const stats = await vm.stats()
    assert.equal(stats.memory.guest_bytes, 256 * 2 ** 20)
    assert.ok(stats.exits.total > 0 && stats.uptime_us > 0 && stats.network.refused > 0)
    const flow = (await vm.networkLog()).find(({ address }) => address === '192.0.2.1')
    const { port, protocol, allowed, cause, rule, end } = flow
    assert.deepEqual({ port, protocol, allowed, cause, rule, end }, {
      port: 81, protocol: 'tcp', allowed: false, cause: 'rule', rule: 0, end: 'denied'
    })
    for (const signal = giveUp(); !(await vm.consoleLog({ signal })).includes('told'); ) await again()
    await assert.rejects(image.start({ labels: { team: 7 } }), ConfigurationError)
    await vm.release()
    assert.throws(() => vm.id, EndedError)
  })

  test('are reached by Unix sockets and have ports for datagrams until these are stopped', async () => {
    const vm = await image.start()
    const argv = ['sh', '-c', 'mkdir -p /www; echo served > /www/page; exec httpd -f -p 127.0.0.1:80 -h /www']
    const server = await vm.spawn({ argv })
    const socket = await vm.exposeUnix(path.join(scratch, 's'), 80)
    assert.equal(socket.path, path.join(scratch, 's'))
    const fetched = async () => {
      for (const signal = giveUp(); ; await again()) {
        signal.throwIfAborted()
        const client = net.connect(socket.path)
        client.on('error', () => {})
        client.end('GET /page HTTP/1.0\r\n\r\n')
        const pieces = []
        client.on('data', (piece) => pieces.push(piece))
        await new Promise((closed) => client.once('close', closed))
        const text = Buffer.concat(pieces).toString()
        if (text.includes('served')) return text
      }
    }
    assert.match(await fetched(), /200 OK/)
    await socket.stop()
    assert.equal(fs.existsSync(socket.path), false)
    const port = await vm.exposeUdp(0, 53)
    assert.match(port.localAddr, /^127\.0\.0\.1:\d+$/)
    // Nothing of the image answers datagrams: the library's tests have what does.
    const taken = async () => {
      const other = dgram.createSocket('udp4')
      const bound = once(other, 'listening').then(() => false, (error) => error.code)
      other.bind(Number(port.localAddr.split(':')[1]), '127.0.0.1')
      const code = await bound
      other.close()
      return code
    }
    assert.equal(await taken(), 'EADDRINUSE')
    await port.stop()
    await port.stop()
    assert.equal(await taken(), false)
    for (const call of [() => vm.exposeUdp(0, 0), () => vm.exposeUnix(path.join(scratch, 's'), 1e6)]) {
      await assert.rejects(call, ConfigurationError)
    }
    await server.signal(9)
    await vm.release()
  })

  test('of no pool are stopped in good order', async () => {
    const vm = await image.start()
    const events = await vm.events()
    assert.equal(await vm.shutdown(60_000), true)
    let last
    for await (const event of events) last = event
    assert.deepEqual([last.event, last.orderly], ['ended', true])
    await assert.rejects(vm.shutdown(), EndedError)
    const pool = await image.pool({ min: 0, max: 1 })
    const leased = await pool.acquire()
    await assert.rejects(leased.shutdown(), ConfigurationError)
    await leased.release()
    await pool.shutdown()
  })
})
