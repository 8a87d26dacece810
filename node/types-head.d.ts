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
