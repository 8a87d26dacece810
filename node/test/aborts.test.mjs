// Calls that somebody does not want any more, with real guests: whatever they wait for,
// they end at once, and nothing of them is left.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Image, VolumeStore } from '../index.mjs'

const ref = process.env.TEST_IMAGE
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'supermachine-aborts-'))
const snapshotsDir = path.join(scratch, 'snapshots')
after(() => fs.rmSync(scratch, { recursive: true, force: true }))

const PATIENCE_MS = 120_000
const soon = (ms = 20) => new Promise((resolve) => setTimeout(resolve, ms))
const proc = fs.existsSync('/proc/self/stat')

async function until(what, holds) {
  const giveUp = Date.now() + PATIENCE_MS
  while (!(await holds())) {
    assert.ok(Date.now() < giveUp, what)
    await soon()
  }
}

/** Processes that this one has started and that have not ended. */
function children() {
  const is = (pid) => {
    try {
      const text = fs.readFileSync(`/proc/${pid}/stat`, 'latin1')
      const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
      return state !== 'Z' && Number(parent) === process.pid
    } catch {
      return false
    }
  }
  return fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name) && is(name)).map(Number)
}

/** Makes a call, aborts it while it waits, and looks at what it says. */
async function aborted(call, ms = 30) {
  const abort = new AbortController()
  const reason = new Error('enough')
  const called = call({ signal: abort.signal })
  if (ms === 0) abort.abort(reason)
  else setTimeout(() => abort.abort(reason), ms)
  await assert.rejects(called, (error) => error === reason)
}

/** The same of a call that may be faster, at several times; what it gives is let go of. */
async function raced(call, letGo) {
  for (const ms of [0, 1, 3, 10]) {
    const abort = new AbortController()
    const reason = new Error('enough')
    const called = call({ signal: abort.signal })
    if (ms === 0) abort.abort(reason)
    else setTimeout(() => abort.abort(reason), ms)
    try {
      await letGo(await called)
    } catch (error) {
      if (error !== reason) throw error
    }
  }
}

const programs = async (vm, words) => {
  const count = `ps -o args | grep -v grep | grep -c '${words}'; true`
  return (await vm.exec({ argv: ['sh', '-c', count] })).stdout.toString().trim()
}

describe('aborted calls', () => {
  let image, vm
  before(async () => {
    image = await Image.build({ ref, snapshotsDir, memoryMib: 512 })
    vm = await image.start()
  })
  after(() => vm?.release())

  test('that were aborted before are not made, whatever they are', async () => {
    const options = { signal: AbortSignal.abort() }
    const store = VolumeStore.at(path.join(scratch, 'volumes'))
    const tar = path.join(scratch, 'tar')
    for (const call of [
      () => vm.exec({ argv: ['true'], ...options }),
      () => vm.spawn({ argv: ['true'], ...options }),
      () => vm.attach('0123456789abcdef0123456789abcdef', options),
      () => vm.execs(options),
      () => vm.writeFile('/tmp/never', 'x', options),
      () => vm.readFile('/etc/passwd', options),
      () => vm.readDir('/', options),
      () => vm.stat('/', options),
      () => vm.mkdir('/tmp/never', true, options),
      () => vm.remove('/bin', true, options),
      () => vm.rename('/bin', '/never', options),
      () => vm.copyIn(scratch, '/tmp/never', options),
      () => vm.copyOut('/etc', path.join(scratch, 'never'), options),
      () => vm.mountChanges('work', options),
      () => vm.applyChanges('work', undefined, options),
      () => vm.exportChanges('work', tar, undefined, options),
      () => vm.growVolume('data', 64, options),
      () => vm.exposeTcp(0, 80, options),
      () => vm.exposeUdp(0, 80, options),
      () => vm.exposeUnix(path.join(scratch, 'socket'), 80, options),
      () => vm.events(options),
      () => vm.networkLog(options),
      () => vm.shutdown(0, options),
      () => vm.workloadSignal(9, options),
      () => vm.workloadStatus(options),
      () => vm.snapshot(path.join(scratch, 'never'), options),
      () => vm.fork(1, options),
      () => vm.pause(options),
      () => vm.resume(options),
      () => vm.stats(options),
      () => vm.consoleLog(options),
      () => vm.release(options),
      () => image.pool(options),
      () => image.start(options),
      () => Image.fromSnapshot(image.snapshotPath, options),
      () => store.create('one', 16, options),
      () => store.list(options),
      () => store.inspect('one', options),
      () => store.remove('one', options),
      () => store.prune(true, options),
      () => store.grow('one', 32, options),
      () => store.export('one', tar, options),
      () => store.import('one', tar, options)
    ]) {
      await assert.rejects(call, { name: 'AbortError' }, `${call}`)
    }
    await assert.rejects(vm.readFile('/etc/passwd', { signal: 'soon' }), { name: 'ConfigurationError' })
    await assert.rejects(vm.readFile('/etc/passwd', 7), { name: 'ConfigurationError' })
    assert.equal((await vm.exec({ argv: ['ls', '/bin/sh'] })).exitCode, 0)
    assert.equal(fs.existsSync(path.join(scratch, 'volumes')), false)
  })

  test('end at once though their machine does nothing any more', { skip: !proc }, async () => {
    const stuck = await image.start()
    const about = fs.readFileSync(path.join(path.dirname(stuck.execPath), 'vm.json'))
    const worker = JSON.parse(about).worker_pid
    const child = await stuck.spawn({ argv: ['cat'] })
    const host = path.join(scratch, 'host')
    fs.writeFileSync(host, 'host')
    process.kill(worker, 'SIGSTOP')
    try {
      for (const call of [
        (options) => stuck.exec({ argv: ['true'], ...options }),
        (options) => stuck.spawn({ argv: ['true'], ...options }),
        (options) => stuck.execs(options),
        (options) => stuck.writeFile('/tmp/file', 'x', options),
        (options) => stuck.readFile('/etc/passwd', options),
        (options) => stuck.readDir('/', options),
        (options) => stuck.stat('/', options),
        (options) => stuck.mkdir('/tmp/dir', false, options),
        (options) => stuck.remove('/tmp/dir', false, options),
        (options) => stuck.rename('/tmp/dir', '/tmp/other', options),
        (options) => stuck.copyIn(host, '/tmp/host', options),
        (options) => stuck.copyOut('/etc/passwd', path.join(scratch, 'out'), options),
        (options) => stuck.workloadStatus(options),
        (options) => stuck.snapshot(path.join(scratch, 'stuck'), options),
        (options) => stuck.fork(1, options),
        (options) => stuck.pause(options),
        (options) => stuck.stats(options),
        (options) => stuck.consoleLog(options),
        (options) => stuck.networkLog(options),
        (options) => stuck.events(options),
        (options) => child.readStdout(undefined, options),
        (options) => child.writeStdin(Buffer.alloc(16 << 20), options),
        (options) => child.wait(options)
      ]) {
        await aborted(call)
      }
    } finally {
      process.kill(worker, 'SIGCONT')
    }
    // What had been asked for by then is done or not, and the machine is as it was.
    await until('it was paused for nobody', () => !stuck.isPaused)
    assert.equal((await stuck.exec({ argv: ['echo', 'well'] })).stdout.toString(), 'well\n')
    await stuck.release()
  })

  test('leave nothing that goes on in the guest', async () => {
    const large = path.join(scratch, 'large')
    const made = await vm.exec({ argv: ['/bin/busybox', 'truncate', '-s', '60G', '/tmp/large'] })
    assert.equal(made.exitCode, 0, made.stderr.toString())
    await aborted((options) => vm.copyOut('/tmp/large', large, options), 100)
    await until('it goes on packing', async () => (await programs(vm, 'files pack')) === '0')
    fs.writeFileSync(large, '')
    fs.truncateSync(large, 60 * 2 ** 30)
    await aborted((options) => vm.copyIn(large, '/tmp/large', options), 50)
    await until('it goes on unpacking', async () => (await programs(vm, 'files unpack')) === '0')
    fs.rmSync(large)
    await vm.remove('/tmp/large')
    await aborted((options) => vm.exec({ argv: ['sleep', '77'], ...options }))
    const kill = (child) => child.signal(9)
    await raced((options) => vm.spawn({ argv: ['sleep', '77'], durable: true, ...options }), kill)
    await until('a command goes on', async () => (await programs(vm, 'sleep 77')) === '0')
  })

  test('of streams take and give nothing, and can be made again', async () => {
    const child = await vm.spawn({ argv: ['cat'] })
    for (let turn = 0; turn < 3; turn++) {
      await aborted((options) => child.readStdout(4, options), turn)
      await child.writeStdin(`turn${turn}`)
      assert.equal((await child.readStdout(4)).toString(), 'turn')
      assert.equal((await child.readStdout()).toString(), `${turn}`)
    }
    await aborted((options) => child.wait(options))
    await child.closeStdin()
    assert.equal((await child.wait()).exitCode, 0)
  })

  test('of snapshots publish none', async () => {
    const dest = path.join(scratch, 'captured')
    await aborted((options) => vm.snapshot(dest, options), 0)
    // Captures of one machine come one after the other.
    const other = await vm.snapshot(path.join(scratch, 'other'))
    assert.ok(fs.existsSync(other.snapshotPath))
    await assert.rejects(Image.fromSnapshot(dest))
  })

  test('of machines and ports leave none', { skip: !proc }, async () => {
    const before = children()
    const left = () => children().filter((pid) => !before.includes(pid)).length
    await raced((options) => vm.fork(3, options), (forks) => Promise.all(forks.map((fork) => fork.release())))
    await raced((options) => image.start(options), (machine) => machine.release())
    await raced((options) => image.pool({ min: 1, max: 1, ...options }), (pool) => pool.shutdown())
    // These go on to their end, whenever they are aborted.
    for (const [made, ends] of [[await image.start(), 'release'], [await image.pool({ min: 1 }), 'shutdown']]) {
      await aborted((options) => made[ends](options), 0).catch(() => {})
    }
    const [child] = await vm.fork(1)
    await child.release()
    await until('machines go on', () => left() === 0)
    assert.equal((await vm.exec({ argv: ['echo', 'well'] })).stdout.toString(), 'well\n')
  })

  test('of a warm-up are killed, and the bake goes on', async () => {
    const warmed = await Image.build({
      ref,
      snapshotsDir,
      warmupTag: 'aborts',
      warmup: async (vm) => {
        await aborted((options) => vm.exec({ argv: ['sleep', '78'], timeoutMs: 0, ...options }))
        await vm.writeFile('/root/warm', 'warm')
      }
    })
    const copy = await warmed.start()
    assert.equal((await copy.readFile('/root/warm')).toString(), 'warm')
    assert.equal(await programs(copy, 'sleep 78'), '0')
    await copy.release()
  })

  test('of volumes leave what was there', async () => {
    const dir = path.join(scratch, 'exports')
    const store = VolumeStore.at(dir)
    await store.create('one', 2048)
    const { path: file } = await store.inspect('one')
    // Bytes to copy, where the file system shares none.
    const own = fs.openSync(file, 'r+')
    for (let at = 64; at < 1024; at += 64) fs.writeSync(own, Buffer.alloc(32 << 20, at), 0, 32 << 20, at << 20)
    fs.closeSync(own)
    const out = path.join(scratch, 'one.image')
    fs.writeFileSync(out, 'was there')
    await aborted((options) => store.export('one', out, options), 0)
    await soon(300)
    assert.equal(fs.readFileSync(out).subarray(0, 9).toString(), 'was there')
    await store.export('one', out)
    await aborted((options) => store.import('two', out, options), 0)
    await soon(300)
    assert.deepEqual((await store.list()).map(({ name }) => name), ['one'])
    await until('a copy is left', () => fs.readdirSync(dir).length === 1)
  })
})
