// Made by `cargo xtask node types` of the sources in node/src and of
// node/types-head.d.ts: do not edit.

/// <reference types="node" />

/** An error of this package. `code` is a word for programs, and stays the same. */
export declare class SupermachineError extends Error {
  constructor(message: string, options?: { code?: string; kind?: string; retryable?: boolean; cause?: unknown })
  /** A word for programs. */
  readonly code: string
  /** What a caller can do about it, as a word. */
  readonly kind: string
  /** Whether the same call may work when it is made again. */
  readonly retryable: boolean
}
/** Ask for something else: this cannot be had. */
export declare class ConfigurationError extends SupermachineError {}
/** Name something that is there. */
export declare class NotFoundError extends SupermachineError {}
/** Install what is missing on this host. */
export declare class InstallationError extends SupermachineError {}
/** Use another image, mend this one, or bake its snapshot again. */
export declare class ImageError extends SupermachineError {}
/** Try again later, or ask for less. */
export declare class BusyError extends SupermachineError {}
/** Give it more time. */
export declare class TimeoutError extends SupermachineError {}
/** Look at what the guest says. */
export declare class GuestError extends SupermachineError {}
/** Use another machine: this one is over. */
export declare class EndedError extends SupermachineError {}
/** See to the host: it has refused something. */
export declare class HostError extends SupermachineError {}

/** What each call may be given beside what it is about. */
export interface CallOptions {
  /**
   * Ends the call when it is aborted: its promise is rejected with the signal's reason at
   * once, and what was begun for it is stopped, or let go of when it is there.
   */
  signal?: AbortSignal
}

/** An output of a command: to be iterated over, or as a stream. */
export interface Output extends AsyncIterable<Buffer> {
  /** As a Web stream. */
  stream(): ReadableStream<Uint8Array>
  /** All of it, as text. */
  text(): Promise<string>
}

export interface ExecChild {
  /** The standard output. */
  readonly stdout: Output
  /** The standard error. */
  readonly stderr: Output
  /** The standard input, as a Web stream. */
  stdin(): WritableStream<Uint8Array | string>
}

export interface Vm {
  /** Lets go of the machine without waiting, at the end of a block with `using`. */
  [Symbol.dispose](): void
  /** Releases the machine at the end of a block with `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

export interface Pool {
  /** Shuts the pool down at the end of a block with `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

export interface TcpForwarder {
  /** Stops it at the end of a block with `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

export interface UdpForwarder {
  /** Stops it at the end of a block with `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

export interface UnixForwarder {
  /** Stops it at the end of a block with `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

export interface VmEvents {
  /** Events until the last; a loop that is left closes them. */
  [Symbol.asyncIterator](): AsyncGenerator<VmEvent, void, void>
  /** Closes it at the end of a block with `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

/** Something that happened to a machine, and when, in milliseconds since 1970. */
export type VmEvent = { readonly atMs: number } & (
  /** It runs, told first; it was paused, goes on, or was brought back to its snapshot. */
  | { readonly event: 'started' | 'paused' | 'resumed' | 'reset' }
  /** Its workload listens on a TCP port which the image exposes, or on port 80. */
  | { readonly event: 'listening'; readonly port: number }
  /** Its workload has ended: with an exit code, or by a signal. */
  | { readonly event: 'workload-exited'; readonly code: number | null; readonly signal: number | null }
  /** The guest's kernel killed a program, as there was no memory left for it. */
  | { readonly event: 'oom-killed'; readonly pid: number; readonly program: string }
  /** It ended. Nothing follows. */
  | { readonly event: 'ended'; readonly reason: string; readonly orderly: boolean }
  /** Events were not taken in time; 0 if nobody counted them, and nothing follows. */
  | { readonly event: 'missed'; readonly count: number }
)

/** What a machine has used so far, and what it has now. Times are in microseconds. */
export interface VmStats {
  /** Since it was booted, copied or forked. */
  uptime_us: number
  /** Processor time of the host that its worker has used. */
  cpu_us: number
  /** Of this, what its vCPUs spent in the guest's own code, as a clock shows it. */
  guest_us: number
  /** Instructions that were executed, where they are counted. */
  instructions: number | null
  /** It is paused. */
  is_paused: boolean
  /** Virtual CPUs that it has. */
  vcpus: number
  /** Its memory; null where the system does not tell. */
  memory: {
    guest_bytes: number
    ballooned_bytes: number
    added_bytes: number
    touched_bytes: number | null
    host_bytes: number | null
  }
  /** Page faults of its worker. */
  faults: { minor: number; major: number } | null
  /** How often its engine stopped running the guest, by reason. */
  exits: {
    total: number
    mmio_reads: number
    mmio_writes: number
    firmware: number
    waits: number
    kicks: number
  }
  /** Its disks, the lowest layer first. */
  disks: Array<{ reads: number; read_bytes: number; writes: number; written_bytes: number }>
  /** Its network, if it has one. */
  network: {
    connections: number
    refused: number
    look_ups: number
    sent_bytes: number
    received_bytes: number
    waits: number
    lost_datagrams: number
  } | null
  /** What copying and resetting it took, in pages of 4 KiB. */
  restore: {
    resets: number
    pages_restored: number
    pages_prefetched: number
    prefetch_hits: number | null
  }
}

/** From where on the streams of a durable command are taken up. */
export interface AttachOptions {
  /** Bytes of its standard output that are left out; none by default. */
  stdout?: number
  /** The same of its standard error. */
  stderr?: number
  /** Leave out all that it has written so far. */
  latest?: boolean
}

/** What an image is baked from, and how. */
export interface BuildOptions {
  /**
   * The image, as `docker run` names it (`python:3.12-slim`), or `oci:DIR[:TAG]`,
   * `oci-archive:FILE`, `docker-archive:FILE`, `tar:FILE`, `rootfs:DIR`.
   */
  ref: string
  /** Name of the snapshot; made of the image and the options by default. */
  name?: string
  /**
   * Guest memory in MiB: the most that the guest sees, not what the host gives; 256
   * by default.
   */
  memoryMib?: number
  /** Virtual CPUs; 1 by default. */
  vcpus?: number
  /** When the registry is asked for the image; `missing` by default. */
  pullPolicy?: 'always' | 'missing' | 'never'
  /** The workload, instead of the image's own command. */
  cmd?: Array<string>
  /** The program that commands begin with, instead of the image's. */
  entrypoint?: Array<string>
  /** Added to the workload's environment. */
  env?: Record<string, string>
  /** Where commands start, instead of the image's directory. */
  workdir?: string
  /** Whom commands run as, instead of the image's user. */
  user?: string
  /** Labels, beside those of the image. */
  labels?: Record<string, string>
  /** The port that the workload listens on; 80 by default. */
  guestPort?: number
  /** Capture the machine when its workload listens on that port. */
  listenerRequired?: boolean
  /**
   * What may be reached while it is baked. Its machines have a network interface only if
   * this is said, if only as `{}`; what they reach is said in `start` and `pool`.
   */
  network?: NetworkOptions
  /**
   * Files of the host that become part of the image. What is in them is part of the
   * snapshot's key: another content, another bake.
   */
  extraFiles?: Array<ExtraFile>
  /** Directories of the host that each machine is given. */
  mounts?: Array<MountSpec>
  /** File systems in the memory of each machine. */
  tmpfs?: Array<TmpfsSpec>
  /**
   * Disks that are baked with the image: mounted, empty, before anything runs, and what
   * the warm-up leaves there is in the snapshot. Each machine begins with that, and has
   * what it writes to itself.
   */
  volumes?: Array<VolumeSpec>
  /**
   * How many volumes that outlive them machines may be given in `start`; none by
   * default. These are not there while the image is baked.
   */
  volumeSlots?: number
  /** Tells warm-ups apart: another tag, another snapshot; `default` by default. */
  warmupTag?: string
  /** Where snapshots are kept; `~/.local/supermachine-snapshots` by default. */
  snapshotsDir?: string
}

/** What was copied. */
export interface Copied {
  /** Files and directories. */
  entries: number
  /** Bytes of content. */
  bytes: number
  /** Sockets and devices, which are left out. */
  skipped: number
}

/** A running command with its streams. One that nothing refers to any more is killed. */
export declare class ExecChild {
  private constructor()
  /** By what `vm.attach` finds it again, if it is durable. */
  get id(): string | null
  /**
   * Writes to the standard input; waits while the command does not read. What was
   * written before an abort stays written.
   */
  writeStdin(bytes: Uint8Array | string, options?: CallOptions): Promise<void>
  /** Ends the standard input. */
  closeStdin(options?: CallOptions): Promise<void>
  /**
   * Reads from the standard output, at most 64 KiB; an empty buffer at its end. An
   * aborted read takes nothing.
   */
  readStdout(maxBytes?: number | null, options?: CallOptions): Promise<Buffer>
  /** Reads from the standard error, at most 64 KiB; an empty buffer at its end. */
  readStderr(maxBytes?: number | null, options?: CallOptions): Promise<Buffer>
  /**
   * Sends a signal to the command's process group: 15 for SIGTERM; 9 ends all its
   * descendants.
   */
  signal(signum: number, options?: CallOptions): Promise<void>
  /** Tells the command's terminal its new size. */
  resize(cols: number, rows: number, options?: CallOptions): Promise<void>
  /**
   * Waits for the command to end. Output that nobody has begun to read is dropped. A wait
   * that is aborted ends nothing, and can be begun again.
   */
  wait(options?: CallOptions): Promise<ExecWaitResult>
}

/** A durable command. */
export interface ExecInfo {
  /** For `vm.attach`; the same in copies of the machine. */
  id: string
  /** Program and arguments, cut after about a thousand bytes. */
  argv: Array<string>
  /** What has become of it. */
  state: 'running' | 'exited'
  /** Its process in the guest, while it runs. */
  pid?: number
  /** How it ended, if it has. */
  exit?: ExecWaitResult
  /** Time in the guest since it was started, in milliseconds. */
  sinceStartMs: number
  /** It has a terminal. */
  tty: boolean
  /** Somebody has its streams. */
  attached: boolean
  /** Bytes that it has written to its standard output. */
  stdoutBytes: number
  /** Bytes that it has written to its standard error. */
  stderrBytes: number
}

/** A command. */
export interface ExecOptions {
  /** Program and arguments. The program is looked up in the guest's PATH. */
  argv: Array<string>
  /** Files that are written first, by path, with mode 0o644: at most 256 MiB each. */
  stageFiles?: Record<string, Uint8Array | string>
  /** The same with a mode for each. */
  stageFilesMode?: Array<StagedFile>
  /**
   * When the command is killed: 60,000 by default in `exec` and never in `spawn`;
   * 0 for never.
   */
  timeoutMs?: number
  /** Added to the environment. */
  env?: Record<string, string>
  /** Where it starts; the image's directory by default. */
  cwd?: string
  /** Whom it runs as; the image's user by default. */
  user?: string
  /** A command, or several, to run one after the other if the one before exits with 0. */
  chain?: string[] | string[][]
  /** Give it a terminal: all output is standard output then. */
  tty?: boolean
  /** Size of that. */
  winsize?: WinSize
  /** Its whole standard input. */
  stdin?: Uint8Array | string
  /** Most memory that it and its descendants may have, in bytes. */
  maxMemoryBytes?: number
  /** Most processes. */
  maxProcesses?: number
  /** Most processors, also parts of one. */
  maxCpus?: number
  /** Most bytes of each output that are collected; 256 MiB by default. */
  maxOutputBytes?: number
  /** Drop what is beyond that and let the command go on, instead of killing it. */
  truncateOutput?: boolean
  /**
   * Let it go on when nothing refers to it any more, also in copies of the machine:
   * `vm.attach` takes its streams up again.
   */
  durable?: boolean
}

/** What a command wrote and how it ended. */
export interface ExecOutput {
  /** Standard output; everything, with a terminal. */
  stdout: Buffer
  /** Standard error. */
  stderr: Buffer
  /** Exit code; -1 if a signal or the time limit ended it. */
  exitCode: number
  /** The signal that ended it, if one did. */
  signal?: number
  /** The time limit ended it. */
  timedOut: boolean
  /** Its memory limit ended it. */
  oom: boolean
  /** Largest resident set of the command and its descendants, in KiB. */
  peakRssKib: number
  /** Time it took in the guest, in milliseconds. */
  durationMs: number
  /** Which command of a chain ended last; 0 for the first. */
  step: number
  /** More was written than `maxOutputBytes`, and is not here. */
  truncated: boolean
}

/** How a command ended. */
export interface ExecWaitResult {
  /** Exit code; -1 if a signal or the time limit ended it. */
  exitCode: number
  /** The signal that ended it, if one did. */
  signal?: number
  /** The time limit ended it. */
  timedOut: boolean
  /** Its memory limit ended it. */
  oom: boolean
  /** Largest resident set of the command and its descendants, in KiB. */
  peakRssKib?: number | null
  /** Time it took in the guest, in milliseconds. */
  durationMs: number
  /** Which command of a chain ended last; 0 for the first. */
  step: number
}

/** A file of the host that becomes part of an image. */
export interface ExtraFile {
  /** The file. */
  hostPath: string
  /** Where the guest has it. */
  guestPath: string
  /** Permission bits; those of the file by default. */
  mode?: number
}

/** What the guest says of a file. */
export interface FileInfo {
  /** Its name in the directory that was listed; empty if it was asked for by path. */
  name: string
  /** What it is. */
  kind: 'file' | 'directory' | 'symlink' | 'char-device' | 'block-device' | 'fifo' | 'socket'
  /** Permission bits. */
  mode: number
  /** Owner. */
  uid: number
  /** Group. */
  gid: number
  /** Length in bytes. */
  size: number
  /** When its content was changed last, in milliseconds since 1970. */
  mtimeMs: number
  /** Where it leads, if it is a symbolic link. */
  target?: string
}

/** Numbers in a row. */
export interface IdRange {
  /** The first in the guest. */
  guest: number
  /** The first on the host. */
  host: number
  /** How many. */
  count: number
}

/** A baked image: what machines are copies of. */
export declare class Image {
  private constructor()
  /**
   * Bakes an image into a snapshot, or finds it baked. `warmup` is called with the
   * machine before it is captured: what it leaves in memory and in files, every
   * copy has.
   *
   * A bake whose `signal` is aborted goes on, for the next call that wants it.
   */
  static build(options: BuildOptions & CallOptions & { warmup?: (vm: WarmupVm) => Promise<void> }): Promise<Image>
  /** Opens a snapshot that was made before. */
  static fromSnapshot(path: string, options?: CallOptions): Promise<Image>
  /** Makes a pool of its machines. An aborted one ends when it is there. */
  pool(options?: (PoolOptions & CallOptions) | null): Promise<Pool>
  /** Starts a machine that belongs to no pool. An aborted one is let go of when it is there. */
  start(options?: StartOptions & CallOptions): Promise<Vm>
  /** Where the snapshot is. */
  get snapshotPath(): string
  /** Guest memory in MiB. */
  get memoryMib(): number
  /** Virtual CPUs. */
  get vcpus(): number
  /** What identifies the image that it was baked from. */
  get digest(): string
}

/** How a file of a copy-on-write mount is different in the guest. */
export interface MountChange {
  /**
   * Its path in the mount. What is no UTF-8 in it is shown as U+FFFD, and then it is
   * applied and exported only with all others.
   */
  path: string
  /** How it is different. */
  kind: 'added' | 'changed' | 'deleted'
  /** What the guest has there; not there if it was deleted. */
  file?: 'file' | 'directory' | 'symlink' | 'char-device' | 'block-device' | 'fifo' | 'socket'
  /** How many bytes the guest says that it has. */
  size: number
}

/** A directory or a file of the host that a guest may mount. */
export interface MountSpec {
  /** The directory or the file. */
  hostPath: string
  /** What the guest mounts it by: `mount -t virtiofs TAG DIR`. */
  guestTag: string
  /** It is one file, and `at` is where the guest has it. */
  file?: boolean
  /** What becomes of symbolic links; `opaque` by default. */
  symlinks?: 'deny' | 'opaque' | 'follow'
  /** Refuse every change. */
  readOnly?: boolean
  /** Keep changes in the guest: the directory stays as it is. */
  copyOnWrite?: boolean
  /** Where in the guest it is mounted before anything runs. */
  at?: string
  /** Whose all files are, for the guest; root's by default. */
  owner?: Owner
  /** Numbers of the guest that stand for others of the host, instead of `owner`. */
  ownerMap?: OwnerMap
  /**
   * Keep owners and modes as the guest says beside the files, instead of `owner`: on the
   * host all is still the user's who runs this.
   */
  recordedOwners?: boolean
  /** Have the guest map files instead of reading them (DAX): the large ones or all. */
  dax?: 'large' | 'always'
  /** The size in MiB of the window for mapped files, a multiple of 2; 256 by default. */
  daxWindowMib?: number
}

/**
 * What became of one of a guest's flows: a connection, an exchange of datagrams, a
 * question for a name that it may not ask.
 */
export interface NetworkFlow {
  /** Counts the machine's flows, in the order in which they ended. */
  number: number
  /** When it ended, in milliseconds since 1970. */
  endedMs: number
  /** How long it was there, in milliseconds. */
  lastedMs: number
  /** The name that the guest was told the address for, or that it asked for. */
  name?: string
  /** Where it wanted to. */
  address: string
  /** The port there; 0 for echo requests. */
  port: number
  /** By which protocol. */
  protocol: 'tcp' | 'udp' | 'icmp'
  /** Whether it might. */
  allowed: boolean
  /**
   * What decided that: `rule`, with its number in `rule`; `default`, as no rule fits;
   * `not-public`, `host-port`, `name-server`, `name`, `limit`, `shown`, `secret`.
   */
  cause: string
  /** The number of the rule, from 0. */
  rule?: number
  /** Bytes that the other end was sent, without headers. */
  sentBytes: number
  /** Bytes that the guest got, without headers. */
  receivedBytes: number
  /**
   * How it ended: `denied`, `closed`, `guest-reset`, `remote-reset`, `refused`,
   * `unreachable`, `failed`, `timed-out`, `displaced`, `rewound`.
   */
  end: string
  /**
   * What became of secrets, if it was to a host of some, or a placeholder left on it in
   * clear text; by their names.
   */
  secrets?: SecretsUse
}

/**
 * What a guest may reach. Addresses that are not public are refused unless they are
 * listed.
 */
export interface NetworkOptions {
  /** Everything public but what is denied; only what is allowed by default. */
  allowAll?: boolean
  /** Rules, of which the first that fits decides, before `deny` and `allow`. */
  rules?: Array<NetworkRule>
  /** Hosts (`example.com`, `*.example.com`) and networks (`10.1.0.0/16`). */
  allow?: Array<string>
  /** The same of what may not be reached, which counts first. */
  deny?: Array<string>
  /** TCP ports of the host's loopback interface, at `host.supermachine.internal`. */
  hostPorts?: Array<number>
  /** UDP ports of it. */
  hostUdpPorts?: Array<number>
  /** Most bytes a second that the guest gets. */
  rateIn?: number
  /** Most bytes a second that others get from it. */
  rateOut?: number
  /**
   * Bytes beyond a rate that pass at once after a silence; a tenth of a second's by
   * default.
   */
  burst?: number
  /** Most connections at a time; 10,000 by default. */
  maxFlows?: number
}

/** A rule of what may be reached: it says either `allow` or `deny`. */
export interface NetworkRule {
  /** A host, a network, or `any`, that may be reached. */
  allow?: string
  /** The same of what may not. */
  deny?: string
  /** A port, or a range like `8000-8080`; all by default. */
  ports?: string
  /** All by default. */
  protocol?: 'tcp' | 'udp' | 'icmp'
}

/** A user and a group. */
export interface Owner {
  /** The user's number. */
  uid: number
  /** The group's number. */
  gid: number
}

/** Numbers of users and of groups. */
export interface OwnerMap {
  /** Of users. */
  users: Array<IdRange>
  /** Of groups. */
  groups: Array<IdRange>
}

/** Machines of one image, ready to be used. */
export declare class Pool {
  private constructor()
  /**
   * A machine that nobody has used since the snapshot. Callers are served in the
   * order of their calls. An aborted call leaves the line.
   */
  acquire(options?: CallOptions): Promise<Vm>
  /** How many machines there are, and what they do. It does not wait. */
  stats(): PoolStats
  /**
   * Ends the pool: refuses who waits, ends idle machines, and waits for those in
   * use, up to 30 seconds. That goes on if the call is aborted.
   */
  shutdown(options?: CallOptions): Promise<void>
}

/** How machines of a pool are. */
export interface PoolOptions {
  /** Machines kept ready; 1 by default. */
  min?: number
  /** Machines at most; 1 by default, or `min`. */
  max?: number
  /** How long an acquire waits; 60,000 by default, 0 for as long as it takes. */
  acquireTimeoutMs?: number
  /** When an idle machine beyond `min` is ended; never by default. */
  idleTimeoutMs?: number
  /** Whether a machine goes back to the snapshot when it is released; true by default. */
  restoreOnRelease?: boolean
  /** Guest memory in MiB; the image's by default. */
  memoryMib?: number
  /** Virtual CPUs; the image's by default. */
  vcpus?: number
  /** How long a restore may take; 30,000 by default. */
  restoreTimeoutMs?: number
  /** What the guests may reach; nothing by default. */
  network?: NetworkOptions
  /** Secrets that the guests use and never have. */
  secrets?: Array<Secret>
  /** Directories of the host, for the tags that the image was baked with. */
  mounts?: Array<MountSpec>
  /** File systems in the guests' memory, beside those of the image. */
  tmpfs?: Array<TmpfsSpec>
}

/** How many machines a pool has, and what they do. */
export interface PoolStats {
  /** All that there are. */
  alive: number
  /** Those that somebody has acquired. */
  inUse: number
  /** Those that wait to be acquired. */
  idle: number
  /** Callers that wait for one. */
  waiting: number
  /** Machines kept ready. */
  min: number
  /** Machines at most. */
  max: number
}

/**
 * A secret that the guest never has: its commands find a placeholder in the variable of
 * that name, which becomes the value in headers of requests by HTTPS to the secret's
 * hosts. It needs a network that reaches these.
 */
export interface Secret {
  /** The variable in which programs look for it. */
  name: string
  /** What it is: 8 to 8,192 printable ASCII characters. */
  value: string
  /** Hosts that get it: `api.example.com`, or `api.example.com:8443`. */
  hosts: Array<string>
  /** Headers that it is put into; any by default. */
  headers?: Array<string>
  /** Certificates in PEM format by which its hosts are known; the system's by default. */
  authorities?: string
}

/** What became of secrets on a flow. */
export interface SecretsUse {
  /** Those that were put into requests. */
  used: Array<string>
  /** Those whose placeholder was where none is replaced. */
  misplaced: Array<string>
  /** Why the connection was ended, if it was. */
  refused?: string
}

/** A file that is written before a command starts. */
export interface StagedFile {
  /** Where in the guest. */
  path: string
  /** What is in it. */
  contents: Uint8Array | string
  /** Permission bits; 0o644 by default. */
  mode?: number
}

/** How a machine is, beyond its image. */
export interface StartOptions {
  /** Guest memory in MiB; the image's by default. */
  memoryMib?: number
  /** Virtual CPUs; the image's by default. */
  vcpus?: number
  /** Its name, by which `supermachine exec` finds it. */
  name?: string
  /** The guest's host name. */
  hostname?: string
  /** Labels, by which `supermachine ps` tells machines apart. */
  labels?: Record<string, string>
  /** What the guest may reach; nothing by default. */
  network?: NetworkOptions
  /** Secrets that the guest uses and never has. */
  secrets?: Array<Secret>
  /** Directories of the host, for the tags that the image was baked with. */
  mounts?: Array<MountSpec>
  /** File systems in the guest's memory, beside those of the image. */
  tmpfs?: Array<TmpfsSpec>
  /** Volumes that outlive the machine, at most `volumeSlots` of the image. */
  volumes?: Array<VolumeSpec>
  /** The directory that these are kept in: that of a `VolumeStore`; the user's by default. */
  volumesDir?: string
}

/** A port of the host that leads to one of a guest. */
export declare class TcpForwarder {
  private constructor()
  /** Where it listens, as `127.0.0.1:54321`. */
  get localAddr(): string
  /** Takes no more connections. Those that are open go on. Once more does nothing. */
  stop(): Promise<void>
}

/** A file system in the guest's memory. */
export interface TmpfsSpec {
  /** Where the guest has it. */
  mountPoint: string
  /** The most that it takes in MiB; half of the guest's memory by default. */
  sizeMib?: number
  /** Permission bits of its directory; 0o1777 by default. */
  mode?: number
  /** Whose its directory is; root's by default. */
  owner?: Owner
  /** Whether programs there can be run; they cannot by default. */
  executable?: boolean
}

/** A UDP port of the host that leads to one of a guest. */
export declare class UdpForwarder {
  private constructor()
  /** Where it takes datagrams, as `127.0.0.1:54321`. */
  get localAddr(): string
  /** Takes no more datagrams. Once more does nothing. */
  stop(): Promise<void>
}

/** A Unix socket of the host that leads to a TCP port of a guest. */
export declare class UnixForwarder {
  private constructor()
  /** Where the socket is. */
  get path(): string
  /**
   * Takes no more connections, and removes the socket. Connections that are open go on.
   * Once more does nothing.
   */
  stop(): Promise<void>
}

/** A machine, of a pool or of its own, until it is released. */
export declare class Vm {
  private constructor()
  /**
   * What happens to the machine from now on, for `for await`: that it was paused, that
   * its workload listens or has ended, that it ran out of memory, its end. What the
   * workload does is known up to a second late. Each caller gets all of it. When the
   * call's signal is aborted, so is the loop.
   */
  events(options?: CallOptions): Promise<VmEvents>
  /**
   * What became of the guest's flows: the latest 4,096 that have ended or were refused,
   * the oldest first. A pool's machine begins anew with each reset.
   */
  networkLog(options?: CallOptions): Promise<Array<NetworkFlow>>
  /** Writes a file in the guest, whole or not at all, also if that is aborted. */
  writeFile(path: string, bytes: Uint8Array | string, options?: CallOptions): Promise<void>
  /** Reads a file of the guest. */
  readFile(path: string, options?: CallOptions): Promise<Buffer>
  /** Lists a directory of the guest. */
  readDir(path: string, options?: CallOptions): Promise<Array<FileInfo>>
  /** Says what is at a path of the guest. */
  stat(path: string, options?: CallOptions): Promise<FileInfo>
  /** Makes a directory in the guest, and those above it if `recursive`. */
  mkdir(path: string, recursive?: boolean | null, options?: CallOptions): Promise<void>
  /** Removes a file of the guest, or a directory with all in it if `recursive`. */
  remove(path: string, recursive?: boolean | null, options?: CallOptions): Promise<void>
  /** Gives a file of the guest another name. */
  rename(from: string, to: string, options?: CallOptions): Promise<void>
  /** Copies a tree of the host into the guest. What was copied before an abort stays. */
  copyIn(hostPath: string, guestPath: string, options?: CallOptions): Promise<Copied>
  /** Copies a tree out of the guest. What was copied before an abort stays. */
  copyOut(guestPath: string, hostPath: string, options?: CallOptions): Promise<Copied>
  /**
   * What the guest has changed of the copy-on-write mount with this tag, sorted by
   * path. It is compared with what the host's directory has now.
   */
  mountChanges(tag: string, options?: CallOptions): Promise<Array<MountChange>>
  /**
   * Makes changes of the copy-on-write mount with this tag to the directory of the
   * host, and tells which: those in `changes`, of what `mountChanges` has told, or
   * all. One that is not what it was then (`added`, now `deleted`; a file, now a link)
   * is left out; what is in a file is what the guest has there now. For the guest
   * nothing changes.
   */
  applyChanges(tag: string, changes?: MountChange[] | null, options?: CallOptions): Promise<Array<MountChange>>
  /**
   * Writes the same changes into a file of the host, in the place of what has its
   * name: a tar archive in the form of an image's layer, in which `.wh.NAME` says that
   * NAME was deleted. It is there with all of it or not at all.
   */
  exportChanges(tag: string, hostPath: string, changes?: MountChange[] | null, options?: CallOptions): Promise<Copied>
  /**
   * Grows a volume that the machine has to this size, while it is mounted. One that is
   * as large already stays as it is.
   */
  growVolume(name: string, sizeMib: number, options?: CallOptions): Promise<void>
  /**
   * Runs a command and collects its output. A command that fails is no error: see
   * `exitCode`. An aborted one is killed, with its descendants.
   */
  exec(options: ExecOptions & CallOptions): Promise<ExecOutput>
  /** Starts a command with its streams open. If that is aborted, it is killed. */
  spawn(options: ExecOptions & CallOptions): Promise<ExecChild>
  /**
   * Takes up the streams of a durable command, also one that has ended. What the guest
   * does not keep any more is missing, which a read says as an error.
   */
  attach(id: string, from?: (AttachOptions & CallOptions) | null): Promise<ExecChild>
  /** The durable commands of the machine, oldest first. */
  execs(options?: CallOptions): Promise<Array<ExecInfo>>
  /** Sends the workload a signal. */
  workloadSignal(signum: number, options?: CallOptions): Promise<void>
  /** Tells how the workload is doing. */
  workloadStatus(options?: CallOptions): Promise<WorkloadStatus>
  /**
   * Makes a snapshot of the running machine, which goes on. One that is aborted before
   * it is published leaves nothing, and what was there before stays.
   */
  snapshot(destDir: string, options?: CallOptions): Promise<Image>
  /** Makes machines that go on where this one is. Those of an aborted call end. */
  fork(count: number, options?: CallOptions): Promise<Array<Vm>>
  /** Stops the guest where it is until `resume`. */
  pause(options?: CallOptions): Promise<void>
  /** Lets a paused guest go on. */
  resume(options?: CallOptions): Promise<void>
  /** What the machine has used so far. */
  stats(options?: CallOptions): Promise<VmStats>
  /** The end of the guest's console. */
  consoleLog(options?: CallOptions): Promise<string>
  /** What `supermachine ps` calls it where nothing else is. */
  get id(): string
  /** Name of the engine that runs the guest. */
  get engine(): string
  /** Whether somebody has paused it. */
  get isPaused(): boolean
  /** Where a client of one's own reaches ports of the guest. */
  get vsockPath(): string
  /** Where a client of one's own reaches the agent. */
  get execPath(): string
  /**
   * Gives the machine back to its pool, or stops it if it has none. Once more does
   * nothing. That goes on if the call is aborted.
   */
  release(options?: CallOptions): Promise<void>
  /** The same as `release`. */
  dispose(options?: CallOptions): Promise<void>
  /**
   * Stops a machine that is of no pool in good order: its workload gets its stop signal,
   * and the guest writes its caches out and turns itself off. True if it has within
   * `graceMs`, which is 10,000 by default; after that the plug is pulled. That goes on if
   * the call is aborted.
   */
  shutdown(graceMs?: number | null, options?: CallOptions): Promise<boolean>
  /**
   * Connects a TCP port of the host's loopback interface to one of the guest; 0 for
   * one that is free. It is open until it is stopped, or the machine is released.
   */
  exposeTcp(hostPort: number, guestPort: number, options?: CallOptions): Promise<TcpForwarder>
  /**
   * Connects a UDP port of the host's loopback interface to one of the guest; 0 for one
   * that is free. Each sender has a socket of its own in the guest, until it was silent
   * for two minutes or 256 others came after it.
   */
  exposeUdp(hostPort: number, guestPort: number, options?: CallOptions): Promise<UdpForwarder>
  /**
   * Connects a Unix socket of the host to a TCP port of the guest. The socket is made,
   * for this user alone, and removed when it is stopped.
   */
  exposeUnix(hostPath: string, guestPort: number, options?: CallOptions): Promise<UnixForwarder>
}

/**
 * The events of one machine, from `vm.events()`. What is not taken is kept, up to 1,024
 * events; the machine never waits for it. It ends with the machine, or with its loop.
 */
export declare class VmEvents {
  private constructor()
  /**
   * Waits for the next event; null if there will be no more. An aborted call has taken
   * none.
   */
  next(options?: CallOptions): Promise<VmEvent | null>
  /** Has it end, also for who waits. Once more does nothing. */
  close(): Promise<void>
}

/** What is known of a volume. */
export interface VolumeInfo {
  /** Its name. */
  name: string
  /** Its file. */
  path: string
  /** Its size for the guest, in bytes. */
  size: number
  /** What it takes of the host's disk, in bytes. */
  diskBytes: number
  /** When it was made or last written to, in milliseconds since 1970. */
  changedMs: number
  /** Who has it now: the machine, and the process that started it. */
  inUseBy?: string
}

/**
 * A disk with an ext4 file system: one that is baked with an image, or one that outlives
 * machines and is of one at a time.
 */
export interface VolumeSpec {
  /** Its name. One that outlives machines is made, empty, if there is none. */
  name: string
  /** Its least size in MiB; 1,024 by default. */
  sizeMib?: number
  /** Where the guest has it. */
  mountPoint: string
}

/** A directory of volumes: of disks that outlive machines. */
export declare class VolumeStore {
  private constructor()
  /**
   * That of this user: the directory in the environment variable
   * `SUPERMACHINE_VOLUMES`, else `~/.local/supermachine-volumes`.
   */
  static ofUser(): VolumeStore
  /** That in a directory, which is made, for its owner alone, when the first volume is. */
  static at(dir: string): VolumeStore
  /** Makes an empty volume, with a file system. */
  create(name: string, sizeMib: number, options?: CallOptions): Promise<void>
  /** All volumes, by their names. */
  list(options?: CallOptions): Promise<Array<VolumeInfo>>
  /** What is known of a volume. */
  inspect(name: string, options?: CallOptions): Promise<VolumeInfo>
  /**
   * Removes a volume and all that is in it. One that a machine has stays, and that is
   * an error.
   */
  remove(name: string, options?: CallOptions): Promise<void>
  /**
   * Removes what was left of volumes that were never finished, and if `all` is true
   * every volume that no machine has; the names of these.
   */
  prune(all?: boolean | null, options?: CallOptions): Promise<Array<string>>
  /**
   * Grows a volume that no machine has; one that a machine has is grown by
   * `vm.growVolume`.
   */
  grow(name: string, sizeMib: number, options?: CallOptions): Promise<void>
  /**
   * Copies what a volume holds to a file of the host, in the place of what has its
   * name: the image of a disk with an ext4 file system, with holes. An aborted copy
   * leaves what was there.
   */
  export(name: string, hostPath: string, options?: CallOptions): Promise<void>
  /**
   * Makes a volume of what `export` has written, or another tool that makes ext4 file
   * systems. If that is aborted, there is none.
   */
  import(name: string, hostPath: string, options?: CallOptions): Promise<void>
}

/** The machine that a warm-up is given, until its promise is settled. */
export declare class WarmupVm {
  private constructor()
  /** Runs a command and collects its output. An aborted one is killed. */
  exec(options: ExecOptions & CallOptions): Promise<ExecOutput>
  /** Writes a file in the guest. */
  writeFile(path: string, bytes: Uint8Array | string, options?: CallOptions): Promise<void>
  /** Reads a file of the guest. */
  readFile(path: string, options?: CallOptions): Promise<Buffer>
}

/** Columns and rows of a terminal. */
export interface WinSize {
  /** Columns. */
  cols: number
  /** Rows. */
  rows: number
}

/** How a machine's workload is doing. */
export interface WorkloadStatus {
  /** What has become of it. */
  state: 'not-started' | 'running' | 'exited'
  /** How it ended, if it has. */
  exit?: ExecWaitResult
  /** All that it has written, in bytes. */
  outputBytes: number
  /** The last of that, at most 64 KiB. */
  tail: Buffer
}
