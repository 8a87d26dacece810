// Ends that nobody asked for: of processes, threads, promises and handles. Machines end
// with them, and the runtime goes on. The same file is the program that ends, if
// ENDS says how.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import readline from 'node:readline'
import { before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { ConfigurationError, Image, SupermachineError } from '../index.mjs'

const PATIENCE_MS = 120_000
const own = fileURLToPath(import.meta.url)
const ref = process.env.TEST_IMAGE
const soon = () => new Promise((resolve) => setTimeout(resolve, 20))

/** State and parent of a process; nothing if there is none. */
function status(pid) {
  try {
    // The name before them is in brackets, and may have any characters.
    const text = fs.readFileSync(`/proc/${pid}/stat`, 'latin1')
    const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return { state, parent: Number(parent) }
  } catch {
    return undefined
  }
}

/** Processes that this one has started and that run. */
function children() {
  return fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && status(name)?.parent === process.pid)
    .map(Number)
}

async function ended(pids) {
  const giveUp = Date.now() + PATIENCE_MS
  for (const pid of pids) {
    // Whoever inherits it may never ask for its status.
    for (let is = status(pid); is && is.state !== 'Z'; is = status(pid)) {
      assert.ok(Date.now() < giveUp, `process ${pid} goes on`)
      await soon()
    }
  }
}

const say = (value) => fs.writeSync(1, `${JSON.stringify(value)}\n`)

/** A program that ends in one of these ways, with a machine that runs a command. */
async function play(how, snapshot) {
  if (how === 'stuck warm-up') {
    // Nobody will settle it; the process can end nevertheless.
    void Image.build({
      ref,
      warmupTag: 'stuck',
      warmup: () => {
        say(children())
        setTimeout(() => process.exit(7), 50)
        return new Promise(() => {})
      }
    })
    return
  }
  const image = await Image.fromSnapshot(snapshot)
  if (how === 'collected') {
    const pool = await image.pool({ min: 0, max: 1 })
    await (async () => {
      const vm = await pool.acquire()
      await vm.exec({ argv: ['true'] })
    })()
    while (pool.stats().inUse > 0) {
      globalThis.gc()
      await soon()
    }
    const vm = await pool.acquire()
    say(children())
    await vm.release()
    await pool.shutdown()
    process.exit(7)
  }
  const vm = await image.start()
  vm.exec({ argv: ['sleep', '1000'], timeoutMs: 0 }).catch(() => {})
  say(children())
  if (how === 'exit') process.exit(7)
  if (how === 'exception') throw new Error('on purpose')
  if (how === 'rejection') void Promise.reject(new Error('on purpose'))
  // Until it is killed.
  setInterval(() => {}, 1_000)
}

/** In a thread of its own, which is ended with a machine that nobody has released. */
async function playThread({ snapshot, how }) {
  const tell = (said) => parentPort.postMessage({ said })
  if (how === 'warms up') {
    const warmup = () => {
      tell('hello\n')
      return new Promise(() => {})
    }
    await Image.build({ ref, warmupTag: `stuck in a thread of ${process.pid}`, warmup })
  }
  const image = await Image.fromSnapshot(snapshot)
  const vm = await image.start()
  const child = await vm.spawn({ argv: ['sh', '-c', 'echo hello; exec sleep 1000'] })
  const said = (await child.readStdout()).toString()
  // What would be waited for until the end of the process.
  const calls = {
    idles: () => child.signal(9),
    runs: () => vm.exec({ argv: ['sleep', '1000'], timeoutMs: 0 }),
    reads: () => child.readStdout(),
    waits: () => child.wait(),
    'waits in line': async () => {
      const pool = await image.pool({ min: 0, max: 1, acquireTimeoutMs: 0 })
      await pool.acquire()
      await pool.acquire()
    }
  }
  const call = calls[how]()
  call.catch(() => {})
  if (how === 'idles') await call
  // Long enough for it to have begun, in most runs.
  setTimeout(() => tell(said), 100)
  setInterval(() => vm.execPath, 1_000)
}

function tests() {
  const skip = fs.existsSync('/proc/self/stat') ? false : 'there is no /proc to look for processes in'
  let image
  before(async () => {
    image = await Image.build({ ref })
  })

  describe('machines end with their process', { skip }, () => {
    for (const [how, status, options] of [
      ['exit', { code: 7, signal: null }, []],
      ['exception', { code: 1, signal: null }, []],
      ['rejection', { code: 1, signal: null }, []],
      ['killed', { code: null, signal: 'SIGKILL' }, []],
      ['stuck warm-up', { code: 7, signal: null }, []],
      ['collected', { code: 7, signal: null }, ['--expose-gc']]
    ]) {
      // Only a machine that does not come, or a handle that is not collected, takes long.
      test(how, { timeout: 300_000 }, async (t) => {
        const env = { ...process.env, ENDS: how, ENDS_SNAPSHOT: image.snapshotPath }
        delete env.NODE_TEST_CONTEXT
        const program = spawn(process.execPath, [...options, own], {
          env,
          stdio: ['ignore', 'pipe', 'pipe']
        })
        t.signal.addEventListener('abort', () => program.kill('SIGKILL'))
        let errors = ''
        program.stderr.on('data', (text) => (errors += text))
        const closed = once(program, 'close')
        const lines = readline.createInterface({ input: program.stdout })
        const [line] = await Promise.race([
          once(lines, 'line'),
          closed.then(() => assert.fail(`it ended before it had a machine: ${errors}`))
        ])
        const machines = JSON.parse(line)
        assert.ok(machines.length > 0, 'its machine is no process')
        if (how === 'killed') program.kill('SIGKILL')
        const [code, signal] = await closed
        assert.deepEqual({ code, signal }, status, errors)
        await ended(machines)
      })
    }
  })

  // Deno collects nothing of a thread that is ended: its machines go with the process.
  const kept = 'Deno' in globalThis && 'Deno keeps what a thread had until the process ends'
  test('a thread has machines of its own, which end with it', { skip: skip || kept }, async () => {
    const others = children()
    const started = (how) => new Worker(own, { workerData: { snapshot: image.snapshotPath, how } })
    const threads = ['idles', 'runs', 'reads', 'waits', 'waits in line', 'warms up'].map(started)
    const told = await Promise.all(
      threads.map(async (thread) => {
        const failed = once(thread, 'error').then(([error]) => Promise.reject(error))
        const [message] = await Promise.race([once(thread, 'message'), failed])
        return message
      })
    )
    for (const message of told) assert.equal(message.said, 'hello\n')
    const machines = children().filter((pid) => !others.includes(pid))
    assert.ok(machines.length >= threads.length, `${machines.length}`)
    await Promise.all(threads.map((thread) => thread.terminate()))
    await ended(machines)
  })

  test('promises that nobody waits for end with their machine, and harm nobody', async () => {
    const vm = await image.start()
    const unwatched = [
      vm.exec({ argv: ['sleep', '1000'], timeoutMs: 0 }),
      vm.spawn({ argv: ['cat'] }).then((child) => child.readStdout()),
      vm.readFile('/no/such/file')
    ].map((promise) => promise.then(() => 'ended', (error) => error))
    await vm.release()
    for (const promise of unwatched) {
      const end = await promise
      // A command's output ends with its machine, or the read of it is refused.
      assert.ok(end === 'ended' || end instanceof SupermachineError, `${end}`)
    }
  })

  test('what is too large is refused, and the machine goes on', async () => {
    const vm = await image.start()
    const large = Buffer.alloc(4 * 1024 * 1024 + 1)
    const words = 'x'.repeat(8 * 1024 * 1024)
    for (const call of [
      () => vm.writeFile('/tmp/large', large),
      () => vm.exec({ argv: ['echo', words] }),
      () => vm.exec({ argv: ['true'], env: { LARGE: words } })
    ]) {
      await assert.rejects(call(), (error) => {
        assert.ok(error instanceof ConfigurationError, `${error.name}: ${error}`)
        assert.match(error.message, /larger than its limit|too large/)
        assert.equal(error.retryable, false)
        return true
      })
    }
    // Files of a command may be larger than those of a call.
    const size = ['stat', '-c', '%s', '/tmp/large']
    const staged = (contents) => vm.exec({ argv: size, stageFiles: { '/tmp/large': contents } })
    assert.equal((await staged(large)).stdout.toString(), `${large.length}\n`)
    await assert.rejects(staged(Buffer.alloc(256 * 1024 * 1024 + 1)), {
      name: 'ConfigurationError',
      code: 'protocol',
      message: 'the file is larger than its limit; call it otherwise'
    })
    const least = Buffer.alloc(4 * 1024 * 1024)
    await vm.writeFile('/tmp/large', least)
    assert.equal((await vm.readFile('/tmp/large')).length, least.length)
    assert.equal((await vm.exec({ argv: ['echo', 'well'] })).stdout.toString(), 'well\n')
    await vm.release()
  })
}

if (!isMainThread) {
  await playThread(workerData)
} else if (process.env.ENDS) {
  await play(process.env.ENDS, process.env.ENDS_SNAPSHOT)
} else {
  tests()
}
