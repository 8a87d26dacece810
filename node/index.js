'use strict'

// What of @supermachine/core only JavaScript has: which native part is loaded, errors
// as classes, abort signals, iterators and streams, `using`.

const fs = require('node:fs')
const path = require('node:path')

/** An error of this package. `code` is a word for programs, and stays the same. */
class SupermachineError extends Error {
  constructor(message, { code, kind, retryable = false, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = new.target.name
    this.code = code
    this.kind = kind
    this.retryable = retryable
  }
}

/** Ask for something else: this cannot be had. */
class ConfigurationError extends SupermachineError {}
/** Name something that is there. */
class NotFoundError extends SupermachineError {}
/** Install what is missing on this host. */
class InstallationError extends SupermachineError {}
/** Use another image, mend this one, or bake its snapshot again. */
class ImageError extends SupermachineError {}
/** Try again later, or ask for less. */
class BusyError extends SupermachineError {}
/** Give it more time. */
class TimeoutError extends SupermachineError {}
/** Look at what the guest says. */
class GuestError extends SupermachineError {}
/** Use another machine: this one is over. */
class EndedError extends SupermachineError {}
/** See to the host: it has refused something. */
class HostError extends SupermachineError {}

const classes = {
  configuration: ConfigurationError,
  'not-found': NotFoundError,
  installation: InstallationError,
  image: ImageError,
  rebake: ImageError,
  busy: BusyError,
  'timed-out': TimeoutError,
  guest: GuestError,
  ended: EndedError,
  host: HostError
}

/** Platforms, as npm names them, and the packages with their native parts. */
const packages = {
  'darwin-arm64': '@supermachine/core-darwin-arm64',
  'linux-x64': '@supermachine/core-linux-x64-gnu',
  'linux-arm64': '@supermachine/core-linux-arm64-gnu'
}

/** The directory with native part, worker and what guests boot from; null if none. */
function installed() {
  const name = packages[`${process.platform}-${process.arch}`]
  if (name === undefined) return null
  try {
    return path.dirname(require.resolve(`${name}/package.json`))
  } catch {
    return null
  }
}

function load() {
  const dir = installed()
  const named = process.env.SUPERMACHINE_NATIVE
  const file = named || (dir && path.join(dir, 'supermachine.node'))
  if (!file) {
    throw new InstallationError(
      `@supermachine/core has no native part for ${process.platform}-${process.arch}; ` +
        `there are ${Object.values(packages).join(', ')}: install the one for this host, ` +
        'or name one that was built here with SUPERMACHINE_NATIVE',
      { code: 'unsupported-platform', kind: 'installation' }
    )
  }
  // By its path: programs made of one file find no package with a native main.
  const loaded = { exports: {} }
  try {
    process.dlopen(loaded, path.resolve(file))
  } catch (cause) {
    throw new InstallationError(`the native part ${file} cannot be loaded: ${cause.message}`, {
      code: 'native',
      kind: 'installation',
      cause
    })
  }
  const native = loaded.exports
  const beside = (file) => {
    const candidate = dir && path.join(dir, file)
    return candidate && fs.existsSync(candidate) ? candidate : undefined
  }
  native.install(
    process.env.SUPERMACHINE_WORKER || beside('supermachine-worker'),
    process.env.SUPERMACHINE_ASSETS || (beside('kernel') && dir)
  )
  return native
}

/** What the native part threw, as an error of this package. */
function translated(error) {
  if (error instanceof SupermachineError) return error
  let told
  try {
    told = JSON.parse(error.message)
  } catch {
    // It refuses an argument of the wrong type.
    const refused = ['InvalidArg', 'ObjectExpected', 'StringExpected', 'NumberExpected']
    const expected = typeof error.code === 'string' && error.code.endsWith('Expected')
    if (!refused.includes(error.code) && !expected) return error
    told = { code: 'invalid-argument', kind: 'configuration', message: error.message }
  }
  const Class = classes[told.kind] || SupermachineError
  return new Class(told.message, told)
}

function invalid(message) {
  return new ConfigurationError(message, { code: 'invalid-argument', kind: 'configuration' })
}

function bytes(what, value) {
  if (typeof value === 'string') return Buffer.from(value)
  if (Buffer.isBuffer(value)) return value
  if (ArrayBuffer.isView(value)) {
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  }
  if (value instanceof ArrayBuffer) return Buffer.from(value)
  throw invalid(`${what} must be bytes or a string`)
}

function object(what, value) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(`${what} must be an object`)
  }
  return value
}

/** Names and values: what is no string is a mistake, not "undefined". */
function strings(what, value) {
  for (const [name, text] of Object.entries(object(what, value))) {
    if (typeof text !== 'string') throw invalid(`${what}.${name} must be a string`)
  }
  return value
}

/** Options of a command, as the native part has them. */
function command(options) {
  const { signal, ...given } = object('options', options)
  if (!Array.isArray(given.argv)) throw invalid('argv must be an array of strings')
  if (given.env != null) strings('env', given.env)
  if (given.stageFiles != null) {
    const files = Object.entries(object('stageFiles', given.stageFiles))
    given.stageFiles = Object.fromEntries(
      files.map(([name, value]) => [name, bytes(`stageFiles[${name}]`, value)])
    )
  }
  if (given.stageFilesMode != null) {
    given.stageFilesMode = Array.from(given.stageFilesMode, (file) => ({
      ...object('a staged file', file),
      contents: bytes(`contents of ${file.path}`, file.contents)
    }))
  }
  if (given.stdin != null) given.stdin = bytes('stdin', given.stdin)
  if (given.chain != null) {
    if (!Array.isArray(given.chain)) throw invalid('chain must be an array')
    given.chain = Array.isArray(given.chain[0]) ? given.chain : [given.chain]
  }
  return given
}

/** That it is a signal, and not aborted yet. */
function heeded(signal) {
  if (typeof signal.addEventListener !== 'function') throw invalid('signal must be an AbortSignal')
  signal.throwIfAborted()
}

/** Calls `call` with what ends it when `signal` says so. What it gives nevertheless is let
 * go of by `undo`, if that must be. */
async function abortable(signal, native, call, undo) {
  if (signal == null) return call(undefined)
  heeded(signal)
  const token = new native.CancelToken()
  const cancel = () => token.cancel()
  signal.addEventListener('abort', cancel, { once: true })
  try {
    const result = await call(token)
    if (!signal.aborted || undo === undefined) return result
    Promise.resolve(undo(result)).catch(() => {})
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    signal.removeEventListener('abort', cancel)
  }
  throw signal.reason
}

/** Gives up waiting for `call`, which goes on, when `signal` says so. */
async function awaited(signal, call) {
  if (signal == null) return call()
  heeded(signal)
  let abort
  const aborted = new Promise((_, reject) => {
    abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
  })
  const called = call()
  try {
    return await Promise.race([called, aborted])
  } catch (error) {
    if (signal.aborted) called.catch(() => {})
    throw error
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** Options that may be absent. */
function given(options) {
  return options == null ? {} : object('options', options)
}

/** Replaces a function of the native part: what it throws becomes an error of ours,
 * and what it returns is awaited. */
function wrapped(owner, name, replace = (call, ...given) => call(...given)) {
  const native = owner[name]
  const method = async function (...given) {
    try {
      return await replace.call(this, native.bind(this), ...given)
    } catch (error) {
      throw translated(error)
    }
  }
  Object.defineProperty(method, 'name', { value: name })
  Object.defineProperty(owner, name, { value: method, writable: true, configurable: true })
}

/** The same of functions that take so many arguments, and options with a signal behind
 * them, of which the native part has what ends the call. */
function wrappedCalls(native, owner, counts) {
  for (const [name, count] of Object.entries(counts)) {
    wrapped(owner, name, (call, ...all) => {
      const { signal } = given(all[count])
      const own = Array.from({ length: count }, (_, at) => all[at])
      return abortable(signal, native, (token) => call(...own, token), undone[name])
    })
  }
}

/** How results that come when nobody wants them any more are let go of. */
const undone = {
  fork: (children) => children.forEach((vm) => vm.letGo()),
  exposeTcp: (port) => port.stop(),
  exposeUdp: (port) => port.stop(),
  exposeUnix: (socket) => socket.stop()
}

/** The same of a getter. */
function wrappedGetter(owner, name) {
  const { get } = Object.getOwnPropertyDescriptor(owner, name)
  Object.defineProperty(owner, name, {
    configurable: true,
    get() {
      try {
        return get.call(this)
      } catch (error) {
        throw translated(error)
      }
    }
  })
}

/** An output of a command: to be iterated over, or as a stream. */
class Output {
  #read

  constructor(read) {
    this.#read = read
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      const chunk = await this.#read()
      if (chunk.length === 0) return
      yield chunk
    }
  }

  /** As a Web stream. */
  stream() {
    const read = this.#read
    return new ReadableStream(
      {
        async pull(controller) {
          const chunk = await read()
          if (chunk.length === 0) controller.close()
          else controller.enqueue(chunk)
        }
      },
      { highWaterMark: 0 }
    )
  }

  /** All of it, as text. */
  async text() {
    const chunks = []
    for await (const chunk of this) chunks.push(chunk)
    return Buffer.concat(chunks).toString()
  }
}

/** Events of machines are iterated over, until the signal that they were asked for with. */
function events(native) {
  const { Vm, VmEvents } = native
  const signals = new WeakMap()
  wrapped(Vm.prototype, 'events', async (call, options) => {
    const { signal } = given(options)
    const events = await abortable(signal, native, call, (events) => events.close())
    signals.set(events, signal)
    return events
  })
  wrappedCalls(native, VmEvents.prototype, { next: 0 })
  wrapped(VmEvents.prototype, 'close')
  VmEvents.prototype[Symbol.asyncIterator] = async function* iterate() {
    try {
      for (;;) {
        const event = await this.next({ signal: signals.get(this) })
        if (event === null) return
        yield event
      }
    } finally {
      await this.close()
    }
  }
}

/** The class of volumes; as with images, its own functions cannot be replaced. */
function volumeStore(native) {
  function VolumeStore() {
    throw new TypeError('volumes are at a place: VolumeStore.ofUser(), VolumeStore.at(dir)')
  }
  VolumeStore.prototype = native.VolumeStore.prototype
  VolumeStore.prototype.constructor = VolumeStore
  VolumeStore.ofUser = () => native.VolumeStore.ofUser()
  VolumeStore.at = (dir) => {
    if (typeof dir !== 'string' || dir === '') throw invalid('dir must name a directory')
    return native.VolumeStore.at(dir)
  }
  wrappedCalls(native, VolumeStore.prototype, {
    create: 2, list: 0, inspect: 1, remove: 1, prune: 1, grow: 2, export: 2, import: 2
  })
  return VolumeStore
}

function dress(native) {
  const { Pool, Vm, WarmupVm, ExecChild, TcpForwarder, UdpForwarder, UnixForwarder } = native
  const { VmEvents } = native
  // A thread has one of its own; what it has ends with it.
  const environment = new native.Environment()
  // Its own functions cannot be replaced, so the class is: the prototype is the same,
  // and so `instanceof` holds.
  function Image() {
    throw new TypeError('images are built: await Image.build({ ref })')
  }
  Image.prototype = native.Image.prototype
  Image.prototype.constructor = Image
  Image.build = native.Image.build
  Image.fromSnapshot = native.Image.fromSnapshot
  wrapped(Image, 'build', (call, options) => {
    const { warmup, signal, ...given } = object('options', options)
    if (warmup != null && typeof warmup !== 'function') throw invalid('warmup must be a function')
    for (const name of ['env', 'labels']) if (given[name] != null) strings(name, given[name])
    const warm = warmup == null ? undefined : async (vm) => void (await warmup(vm))
    return awaited(signal, () => call(environment, given, warm))
  })
  wrapped(Image, 'fromSnapshot', (call, path, options) =>
    abortable(given(options).signal, native, (token) => call(environment, path, token))
  )
  wrapped(Image.prototype, 'pool', (call, options) => {
    const { signal, ...rest } = given(options)
    return abortable(signal, native, (token) => call(rest, token), (pool) => pool.shutdown())
  })
  wrapped(Image.prototype, 'start', (call, options) => {
    const { signal, ...rest } = given(options)
    if (rest.labels != null) strings('labels', rest.labels)
    return abortable(signal, native, (token) => call(rest, token), (vm) => vm.letGo())
  })
  wrapped(Pool.prototype, 'acquire', (call, options = {}) =>
    abortable(object('options', options).signal, native, call, (vm) => vm.letGo())
  )
  wrappedCalls(native, Pool.prototype, { shutdown: 0 })

  for (const { prototype } of [Vm, WarmupVm]) {
    wrapped(prototype, 'exec', (call, options) => {
      const given = command(options)
      return abortable(options.signal, native, (token) => call(given, token))
    })
    wrapped(prototype, 'writeFile', (call, path, contents, options) => {
      const own = bytes('bytes', contents)
      return abortable(given(options).signal, native, (token) => call(path, own, token))
    })
    wrappedCalls(native, prototype, { readFile: 1 })
  }
  wrapped(Vm.prototype, 'spawn', (call, options) => {
    const rest = command(options)
    const kill = (child) => child.signal(9)
    return abortable(options.signal, native, (token) => call(rest, token), kill)
  })
  wrapped(Vm.prototype, 'attach', (call, id, from) => {
    const { signal, ...rest } = given(from)
    return abortable(signal, native, (token) => call(id, rest, token))
  })
  wrappedCalls(native, Vm.prototype, {
    execs: 0, readDir: 1, stat: 1, mkdir: 2, remove: 2, rename: 2, copyIn: 2, copyOut: 2,
    mountChanges: 1, applyChanges: 2, exportChanges: 3, growVolume: 2, exposeTcp: 2,
    exposeUdp: 2, exposeUnix: 2, networkLog: 0, shutdown: 1,
    workloadSignal: 1, workloadStatus: 0, snapshot: 1, fork: 1, pause: 0, resume: 0, stats: 0,
    consoleLog: 0, release: 0, dispose: 0
  })
  for (const name of ['id', 'engine', 'isPaused', 'vsockPath', 'execPath']) {
    wrappedGetter(Vm.prototype, name)
  }
  events(native)

  wrapped(ExecChild.prototype, 'writeStdin', (call, contents, options) => {
    const own = bytes('bytes', contents)
    return abortable(given(options).signal, native, (token) => call(own, token))
  })
  wrappedCalls(native, ExecChild.prototype, {
    closeStdin: 0, readStdout: 1, readStderr: 1, signal: 1, resize: 2, wait: 0
  })
  for (const [name, read] of [['stdout', 'readStdout'], ['stderr', 'readStderr']]) {
    Object.defineProperty(ExecChild.prototype, name, {
      configurable: true,
      get() {
        return new Output(() => this[read]())
      }
    })
  }
  ExecChild.prototype.stdin = function stdin() {
    return new WritableStream({
      write: (chunk) => this.writeStdin(chunk),
      close: () => this.closeStdin(),
      abort: () => this.signal(9)
    })
  }

  for (const { prototype } of [TcpForwarder, UdpForwarder, UnixForwarder]) wrapped(prototype, 'stop')

  const VolumeStore = volumeStore(native)

  if (Symbol.asyncDispose) {
    for (const { prototype } of [TcpForwarder, UdpForwarder, UnixForwarder]) {
      prototype[Symbol.asyncDispose] = prototype.stop
    }
    VmEvents.prototype[Symbol.asyncDispose] = VmEvents.prototype.close
    Vm.prototype[Symbol.asyncDispose] = Vm.prototype.release
    Pool.prototype[Symbol.asyncDispose] = Pool.prototype.shutdown
  }
  if (Symbol.dispose) Vm.prototype[Symbol.dispose] = Vm.prototype.letGo
  return {
    Image, Pool, Vm, VmEvents, WarmupVm, ExecChild, TcpForwarder, UdpForwarder, UnixForwarder,
    VolumeStore
  }
}

/** Classes that say at the first call why there is nothing behind them. */
function absent(error) {
  const refuse = () => Promise.reject(error)
  const refuseNow = () => {
    throw error
  }
  class Image {}
  class VolumeStore {}
  Object.assign(Image, { build: refuse, fromSnapshot: refuse })
  Object.assign(VolumeStore, { ofUser: refuseNow, at: refuseNow })
  return {
    Image,
    Pool: class Pool {},
    Vm: class Vm {},
    WarmupVm: class WarmupVm {},
    ExecChild: class ExecChild {},
    TcpForwarder: class TcpForwarder {},
    UdpForwarder: class UdpForwarder {},
    UnixForwarder: class UnixForwarder {},
    VmEvents: class VmEvents {},
    VolumeStore
  }
}

let dressed
try {
  dressed = dress(load())
} catch (error) {
  // An installation does not fail where nothing can run, nor does an import.
  if (!(error instanceof InstallationError)) throw error
  dressed = absent(error)
}

module.exports = {
  ...dressed,
  SupermachineError,
  ConfigurationError,
  NotFoundError,
  InstallationError,
  ImageError,
  BusyError,
  TimeoutError,
  GuestError,
  EndedError,
  HostError
}
