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
