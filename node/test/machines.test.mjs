// Machines of a real guest. `cargo xtask test node` sets what is needed:
// SUPERMACHINE_NATIVE, SUPERMACHINE_WORKER, and TEST_IMAGE with busybox in it.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createRequire } from 'node:module'
import * as core from '../index.mjs'

const { Image, SupermachineError, ConfigurationError, EndedError, GuestError } = core
const ref = process.env.TEST_IMAGE
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'supermachine-node-'))
const snapshotsDir = path.join(scratch, 'snapshots')
after(() => fs.rmSync(scratch, { recursive: true, force: true }))

describe('a pool of machines', () => {
  let image, pool
  before(async () => {
    image = await Image.build({
      ref,
      snapshotsDir,
      warmupTag: 'v1',
      warmup: async (vm) => {
        await vm.writeFile('/root/warm', 'warm')
        const out = await vm.exec({ argv: ['cat', '/root/warm'] })
        assert.equal(out.stdout.toString(), 'warm')
      }
    })
    pool = await image.pool({ min: 1, max: 2 })
  })
  after(() => pool?.shutdown())

  test('images tell what they are', async () => {
    assert.ok(fs.existsSync(image.snapshotPath))
    assert.equal(image.memoryMib, 256)
    assert.equal(image.vcpus, 1)
    const again = await Image.fromSnapshot(image.snapshotPath)
    assert.equal(again.memoryMib, 256)
  })

  test('commands get files, variables and input, and give output and status', async () => {
    const vm = await pool.acquire()
    try {
      assert.equal((await vm.readFile('/root/warm')).toString(), 'warm')
      const out = await vm.exec({
        argv: ['sh', '-c', 'cat; cat /tmp/code; echo $A; pwd; exit 3'],
        stageFiles: { '/tmp/code': Buffer.from('staged ') },
        env: { A: 'value' },
        cwd: '/tmp',
        stdin: 'typed ',
        timeoutMs: 60_000
      })
      assert.equal(out.stdout.toString(), 'typed staged value\n/tmp\n')
      assert.equal(out.exitCode, 3)
      assert.equal(out.timedOut, false)
      const script = { path: '/tmp/run', contents: '#!/bin/sh\necho ran', mode: 0o755 }
      const ran = await vm.exec({ argv: ['/tmp/run'], stageFilesMode: [script], chain: ['echo', 'next'] })
      assert.equal(ran.stdout.toString(), 'ran\nnext\n')
      assert.equal(ran.step, 1)
      const killed = await vm.exec({ argv: ['sh', '-c', 'kill -9 $$'] })
      assert.deepEqual([killed.exitCode, killed.signal], [-1, 9])
      const late = await vm.exec({ argv: ['sleep', '1000'], timeoutMs: 50 })
      assert.deepEqual([late.exitCode, late.timedOut], [-1, true])
    } finally {
      await vm.release()
    }
    assert.deepEqual(Object.keys(pool.stats()).sort(), ['alive', 'idle', 'inUse', 'max', 'min', 'waiting'])
  })

  test('what one lease writes the next does not see', async () => {
    for (let turn = 0; turn < 2; turn++) {
      const vm = await pool.acquire()
      await assert.rejects(vm.readFile('/root/trace'), SupermachineError)
      await vm.writeFile('/root/trace', new Uint8Array([1, 2, 3]))
      assert.deepEqual([...(await vm.readFile('/root/trace'))], [1, 2, 3])
      await vm.release()
      await vm.dispose()
      await assert.rejects(vm.exec({ argv: ['true'] }), (error) => {
        assert.ok(error instanceof EndedError)
        assert.equal(error.code, 'released')
        return true
      })
      assert.throws(() => vm.vsockPath, EndedError)
    }
  })

  test('files are listed, named anew, copied and removed', async () => {
    const vm = await pool.acquire()
    await vm.mkdir('/tmp/a/b', true)
    await vm.writeFile('/tmp/a/b/file', 'text')
    await vm.rename('/tmp/a/b/file', '/tmp/a/b/other')
    const [info] = await vm.readDir('/tmp/a/b')
    assert.deepEqual([info.name, info.kind, info.size], ['other', 'file', 4])
    assert.equal((await vm.stat('/tmp/a/b')).kind, 'directory')
    const copied = await vm.copyOut('/tmp/a', path.join(scratch, 'out'))
    assert.equal(copied.bytes, 4)
    assert.equal(fs.readFileSync(path.join(scratch, 'out/b/other'), 'utf8'), 'text')
    await vm.remove('/tmp/a', true)
    await assert.rejects(vm.stat('/tmp/a'), SupermachineError)
    await vm.release()
  })

  test('streams of a command are read and written while it runs', async () => {
    const vm = await pool.acquire()
    const child = await vm.spawn({ argv: ['cat'] })
    await child.writeStdin('one')
    assert.equal((await child.readStdout()).toString(), 'one')
    await child.writeStdin('two')
    await child.closeStdin()
    assert.equal(await child.stdout.text(), 'two')
    const end = await child.wait()
    assert.equal(end.exitCode, 0)
    const stuck = await vm.spawn({ argv: ['sleep', '1000'] })
    const waiting = stuck.wait()
    await stuck.signal(9)
    assert.equal((await waiting).signal, 9)
    const piped = await vm.spawn({ argv: ['tr', 'a-z', 'A-Z'] })
    const writer = piped.stdin().getWriter()
    await writer.write(Buffer.from('web'))
    await writer.close()
    const chunks = []
    for await (const chunk of piped.stdout.stream()) chunks.push(chunk)
    assert.equal(Buffer.concat(chunks).toString(), 'WEB')
    await vm.release()
  })

  test('aborted calls end, and the machine is free for others', async () => {
    const vm = await pool.acquire()
    const abort = new AbortController()
    const call = vm.exec({ argv: ['sleep', '1000'], signal: abort.signal })
    abort.abort(new Error('enough'))
    await assert.rejects(call, /enough/)
    const other = await pool.acquire()
    const line = new AbortController()
    const waits = pool.acquire({ signal: line.signal })
    line.abort()
    await assert.rejects(waits, { name: 'AbortError' })
    await vm.release()
    await other.release()
  })

  test('whoever waits can give up, and what comes too late is let go of', async () => {
    const aborted = { signal: AbortSignal.abort() }
    for (const call of [
      () => Image.build({ ref, snapshotsDir, ...aborted }),
      () => image.start(aborted),
      () => image.start({ signal: 'soon' })
    ]) {
      await assert.rejects(call, (error) => ['AbortError', 'ConfigurationError'].includes(error.name))
    }
    await assert.rejects(image.start({ signal: AbortSignal.timeout(1) }), { name: 'TimeoutError' })
    const vm = await image.start({ signal: AbortSignal.timeout(120_000) })
    await assert.rejects(vm.spawn({ argv: ['true'], ...aborted }), { name: 'AbortError' })
    const child = await vm.spawn({ argv: ['sh', '-c', 'read line; exit 4'] })
    await assert.rejects(child.wait({ signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' })
    await child.writeStdin('go\n')
    const ends = await Promise.all([child.wait(), child.wait()])
    assert.deepEqual(ends.map((end) => end.exitCode), [4, 4])
    await vm.release()
  })

  test('64 waiting acquires leave the runtime usable', async () => {
    const held = await Promise.all([pool.acquire(), pool.acquire()])
    const waiting = Array.from({ length: 64 }, () => pool.acquire())
    assert.equal(fs.readFileSync(path.join(import.meta.dirname ?? '.', '../package.json'), 'utf8').length > 0, true)
    await fs.promises.stat(scratch)
    await Promise.all(held.map((vm) => vm.release()))
    for (const turn of waiting) await (await turn).release()
    assert.equal(pool.stats().waiting, 0)
  })

  test('durable commands go on, and are attached to again, also in forks', async () => {
    const vm = await image.start()
    const script = 'echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two; exit 3'
    const started = await vm.spawn({ argv: ['sh', '-c', script], durable: true })
    assert.equal((await started.readStdout()).toString(), 'one\n')
    const { id } = started
    const [fork] = await vm.fork(1)
    for (const machine of [vm, fork]) {
      const [running] = await machine.execs()
      assert.deepEqual([running.id, running.state, running.argv[0]], [id, 'running', 'sh'])
      assert.equal(running.stdoutBytes, 4)
      await machine.writeFile('/go', '')
      const again = await machine.attach(id)
      assert.equal(await again.stdout.text(), 'one\ntwo\n')
      assert.equal((await again.wait()).exitCode, 3)
      assert.equal(await (await machine.attach(id, { stdout: 4 })).stdout.text(), 'two\n')
      assert.equal(await (await machine.attach(id, { latest: true })).stdout.text(), '')
      const [ended] = await machine.execs()
      assert.deepEqual([ended.state, ended.exit.exitCode], ['exited', 3])
    }
    await fork.release()
    assert.equal((await vm.spawn({ argv: ['true'] })).id ?? undefined, undefined)
    for (const bad of [() => vm.attach('x'), () => vm.attach(id, { stdout: 1, latest: true })]) {
      await assert.rejects(bad, { code: 'invalid-argument' })
    }
    const cut = await vm.exec({ argv: ['echo', 'too much'], maxOutputBytes: 3, truncateOutput: true })
    assert.deepEqual([cut.stdout.toString(), cut.truncated], ['too', true])
    await vm.release()
  })

  test('machines are forked and captured', async () => {
    const vm = await image.start()
    await vm.writeFile('/root/state', 'before')
    const [child] = await vm.fork(1)
    assert.equal((await child.readFile('/root/state')).toString(), 'before')
    const snapshot = await vm.snapshot(path.join(scratch, 'captured'))
    const copy = await snapshot.start()
    assert.equal((await copy.readFile('/root/state')).toString(), 'before')
    await Promise.all([vm.release(), child.release(), copy.release()])
  })

  test('ports of the guest are reached from the host until they are stopped', async () => {
    const vm = await pool.acquire()
    await vm.writeFile('/root/page', 'served')
    const server = await vm.spawn({ argv: ['sh', '-c', 'exec httpd -f -p 127.0.0.1:8000 -h /root'] })
    const port = await vm.exposeTcp(0, 8000)
    const giveUp = Date.now() + 60_000
    const fetched = async () => {
      for (;;) {
        try {
          return await (await fetch(`http://${port.localAddr}/page`)).text()
        } catch (error) {
          // The server is about to listen; each runtime has errors of its own for that.
          if (Date.now() > giveUp) throw error
          await new Promise((again) => setTimeout(again, 50))
        }
      }
    }
    assert.equal(await fetched(), 'served')
    await port.stop()
    await port.stop()
    await assert.rejects(fetch(`http://${port.localAddr}/page`))
    await server.signal(9)
    await vm.release()
  })

  test('extra files are part of the image, and volumes outlive machines', async () => {
    const file = path.join(scratch, 'app.toml')
    fs.writeFileSync(file, 'answer = 42')
    const extraFiles = [{ hostPath: file, guestPath: '/etc/app.toml', mode: 0o600 }]
    const volumes = [{ name: 'node-test', sizeMib: 64, mountPoint: '/data' }]
    const image = await Image.build({ ref, snapshotsDir, extraFiles, volumeSlots: 1 })
    for (const [script, said] of [['cat /etc/app.toml > /data/kept', ''], ['cat /data/kept', 'answer = 42']]) {
      const vm = await image.start({ volumes })
      const out = await vm.exec({ argv: ['sh', '-c', script] })
      assert.deepEqual([out.stdout.toString(), out.stderr.toString()], [said, ''])
      assert.equal((await vm.stat('/etc/app.toml')).mode & 0o777, 0o600)
      await vm.release()
    }
  })

  test('guests reach what rules allow, and use secrets that they never have', async () => {
    const server = http.createServer((request, answer) => answer.end('reached'))
    await new Promise((listens) => server.listen(0, '127.0.0.1', listens))
    const port = server.address().port
    const reach = `wget -q -O - http://host.supermachine.internal:${port}/ || echo refused`
    const value = 'sk-0123456789abcdef'
    try {
      const image = await Image.build({ ref, snapshotsDir, network: {} })
      const vm = await image.start({
        network: {
          rules: [{ allow: '*.example.com', ports: '443', protocol: 'tcp' }, { deny: 'any' }],
          hostPorts: [port],
          rateIn: 10_000_000,
          maxFlows: 100
        },
        secrets: [{ name: 'API_KEY', value, hosts: ['api.example.com'] }]
      })
      const out = await vm.exec({ argv: ['sh', '-c', `echo $API_KEY; ${reach}`] })
      const [placeholder, said] = out.stdout.toString().split('\n')
      assert.equal(said, 'reached')
      assert.equal(placeholder.length, value.length)
      assert.notEqual(placeholder, value)
      await vm.release()
      const other = await image.start({ network: { allowAll: true } })
      const refused = await other.exec({ argv: ['sh', '-c', reach] })
      assert.ok(refused.stdout.toString().endsWith('refused\n'))
      await other.release()
      await assert.rejects(image.start({ network: { rules: [{}] } }), ConfigurationError)
    } finally {
      server.close()
    }
  })

  test('what cannot be is refused as an error of a class, with a code', async () => {
    const vm = await pool.acquire()
    const refused = (call) =>
      assert.rejects(call, (error) => {
        assert.ok(error instanceof ConfigurationError, `${error.name}: ${error}`)
        assert.equal(error.code, 'invalid-argument')
        return true
      })
    for (const options of [
      undefined, null, 7, 'echo', [], {}, { argv: 'echo' }, { argv: [] }, { argv: [1] },
      { argv: ['true'], timeoutMs: -1 }, { argv: ['true'], timeoutMs: NaN },
      { argv: ['true'], env: { A: 1 } }, { argv: ['true'], env: { 'A=B': '' } },
      { argv: ['true'], stdin: 7 }, { argv: ['true'], stageFiles: { '/x': 7 } },
      { argv: ['true'], signal: 'stop' }, { argv: ['true'], maxCpus: Infinity }
    ]) {
      await refused(vm.exec(options))
    }
    await refused(vm.writeFile('/tmp/x', 7))
    await refused(vm.writeFile(7, 'x'))
    await refused(Image.build({}))
    await refused(Image.build({ ref, memoryMib: -5, snapshotsDir }))
    await refused(Image.build({ ref, warmup: 'no function', snapshotsDir }))
    await refused(image.pool({ max: NaN }))
    await refused(vm.fork(0.5))
    await refused(vm.exposeTcp(-1, 80))
    await refused(vm.exposeTcp(0, 70_000))
    assert.equal((await vm.exec({ argv: ['echo', 'well'] })).stdout.toString(), 'well\n')
    await vm.release()
  })

  test('a warm-up that throws says what it threw', async () => {
    const build = (warmup) => Image.build({ ref, snapshotsDir, warmupTag: 'bad', warmup })
    const thrown = async () => {
      throw new Error('no numpy here')
    }
    await assert.rejects(build(thrown), (error) => {
      assert.ok(error instanceof GuestError, `${error.name}: ${error}`)
      assert.match(error.message, /no numpy here/)
      return true
    })
    let kept
    await build(async (vm) => {
      kept = vm
    })
    await assert.rejects(kept.exec({ argv: ['true'] }), { code: 'released' })
  })
})

test('both kinds of modules have the same classes', () => {
  const required = createRequire(import.meta.url)('../index.js')
  assert.deepEqual(Object.keys(required).sort(), Object.keys(core).filter((name) => name !== 'default').sort())
  assert.equal(required.Image, core.Image)
})
