//! The host's end: calls in, bytes out; bytes in, events out.
//!
//! A session is one connection. It can carry any number of control requests
//! and commands one after the other. Control requests and staged files may be
//! pipelined in front of a command, all in one write; the agent works in
//! order, answers in order, and closes after the first failure, so nothing
//! runs behind a failed request.

mod conversation;
mod dialing;
mod durable;
mod staging;
mod stdin;

use alloc::vec::Vec;

use crate::{
    AgentReady, Attached, Deframer, Direction, ExecInfo, ExecRequest, Exited, Failure, FileChunk,
    Hello, MAX_DATA_BYTES, MAX_FILE_BYTES, MAX_OPTIONS_BYTES, MAX_PATH_BYTES, MAX_SEED_BYTES,
    MAX_STAGED_BYTES, Offsets, ProtoError, Request, Resume, Resumed, STDIN_WINDOW_BYTES, WinSize,
    WorkloadReport,
};
use conversation::{Conversation, Owed, Stdin};

/// What a session tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The agent introduced itself on a connection the host opened.
    Hello(Hello),
    /// The agent introduced itself on a connection it opened.
    Ready(AgentReady),
    /// The command runs.
    Started {
        /// Guest process id.
        pid: u32,
    },
    /// Bytes of standard output or of the terminal.
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// [`Session::write_stdin`] takes bytes again.
    StdinReady,
    /// The command reads no more stdin; [`Session::write_stdin`] drops bytes.
    StdinClosed,
    /// A command of the chain ended with 0, and the next is tried.
    Step(Exited),
    /// The command is durable.
    Durable {
        /// Its id, for [`Session::attach`].
        id: u64,
    },
    /// The command goes on without this session, which is over.
    Detached {
        /// Its id, for [`Session::attach`].
        id: u64,
        /// How much of its streams this session got.
        sent: Offsets,
    },
    /// The streams of a durable command follow, as those of one that was started.
    Attached(Attached),
    /// Bytes are missing here: the agent could not keep them.
    Gap {
        /// From standard error and not from standard output.
        stderr: bool,
        /// How many.
        bytes: u64,
    },
    /// Answer to [`Session::list_execs`].
    Execs(Vec<ExecInfo>),
    /// The command ended; the session is free for the next request.
    Exited(Exited),
    /// The oldest unanswered request failed; the agent will close.
    Failed(Failure),
    /// Answer to [`Session::ping`].
    Pong(u64),
    /// The whole file asked for with [`Session::read_file`].
    File(Vec<u8>),
    /// The file of [`Session::write_file`] is in place.
    FileWritten {
        /// Its length in bytes.
        bytes: u64,
    },
    /// A request without a result of its own succeeded: `set_time`, `reseed`,
    /// `sync`, `shutdown`, `quiesce`, `alone`, `release`, `signal_workload`,
    /// `await_listener`, `dial`.
    Done,
    /// The machine is one of its own now, and this is what was done.
    Resumed(Resumed),
    /// Answer to [`Session::start_workload`] and [`Session::workload_status`].
    Workload(WorkloadReport),
}

/// State of one connection, as the host sees it.
#[derive(Debug)]
pub struct Session {
    frames: Deframer,
    out: Vec<u8>,
    sent: usize,
    state: Conversation,
    /// A file is being staged in pieces.
    staging: bool,
    failed: Option<ProtoError>,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session for a fresh connection, opened by either side. Its hello is
    /// already in [`Self::outgoing`]; there is no need to wait for the agent's.
    #[must_use]
    pub fn new() -> Self {
        let mut out = Vec::new();
        Hello::new(0).encode(&mut out);
        Self {
            frames: Deframer::new(Direction::ToClient),
            out,
            sent: 0,
            state: Conversation::default(),
            staging: false,
            failed: None,
        }
    }

    /// Bytes to write to the connection. Call [`Self::sent`] for those written.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// Tells that the first `count` bytes of [`Self::outgoing`] are written.
    pub fn sent(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count).min(self.out.len());
        if self.sent == self.out.len() {
            self.sent = 0;
            if self.out.capacity() > 4 * MAX_DATA_BYTES {
                self.out = Vec::new();
            } else {
                self.out.clear();
            }
        }
    }

    /// True while an answer is outstanding.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.state.owed.is_empty()
    }

    /// True once the agent reported a failure: it serves this connection no more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.over || self.failed.is_some()
    }

    fn ready_for_request(&self) -> Result<(), ProtoError> {
        if self.is_over() {
            return Err(ProtoError::Misuse {
                what: "the session is over",
            });
        }
        if self.staging {
            return Err(ProtoError::Misuse {
                what: "a file is not complete",
            });
        }
        if self.state.has_command() {
            return Err(ProtoError::Misuse {
                what: "a command occupies the session",
            });
        }
        Ok(())
    }

    /// Queues a command. Ends in [`Event::Started`], output, [`Event::Exited`],
    /// or in [`Event::Failed`].
    ///
    /// # Errors
    /// [`ProtoError::Misuse`] for a request the agent would refuse, while a
    /// command runs, or when the session is over.
    pub fn exec(&mut self, request: &ExecRequest) -> Result<(), ProtoError> {
        self.ready_for_request()?;
        request.check()?;
        Request::Exec(request.clone()).encode(&mut self.out);
        self.state.owed.push_back(Owed::Exec {
            started: false,
            steps: request.chain.len(),
            identified: !request.flags.durable,
        });
        self.state.stdin_starved = false;
        if request.flags.stdin {
            self.state.stdin = Stdin::Open;
            self.state.stdin_window = STDIN_WINDOW_BYTES;
        } else {
            self.state.stdin = Stdin::None;
            self.state.stdin_window = 0;
        }
        Ok(())
    }

    /// Queues a file to be in place before the commands queued after it.
    /// Success has no event of its own.
    ///
    /// # Errors
    /// [`ProtoError::Misuse`] for a path that is not absolute, contains NUL or
    /// is too long, for more than [`MAX_STAGED_BYTES`], or at a bad moment.
    pub fn stage_file(&mut self, path: &[u8], mode: u32, data: &[u8]) -> Result<(), ProtoError> {
        self.put_file(path, mode, data, false, MAX_STAGED_BYTES)
    }

    /// Queues a file write answered by [`Event::FileWritten`].
    ///
    /// # Errors
    /// As [`Self::stage_file`], with a limit of [`MAX_FILE_BYTES`].
    pub fn write_file(&mut self, path: &[u8], mode: u32, data: &[u8]) -> Result<(), ProtoError> {
        self.put_file(path, mode, data, true, MAX_FILE_BYTES)?;
        self.state.owed.push_back(Owed::FileWritten);
        Ok(())
    }

    fn put_file(
        &mut self,
        path: &[u8],
        mode: u32,
        data: &[u8],
        ack: bool,
        max: usize,
    ) -> Result<(), ProtoError> {
        self.ready_for_request()?;
        check_path(path)?;
        if data.len() > max {
            return Err(ProtoError::Misuse {
                what: "the file is larger than its limit",
            });
        }
        let mode = mode & 0o7777;
        let pieces = data.len().div_ceil(MAX_DATA_BYTES).max(1);
        for index in 0..pieces {
            let start = index * MAX_DATA_BYTES;
            let end = data.len().min(start + MAX_DATA_BYTES);
            let first = index == 0;
            Request::FileChunk(FileChunk {
                path: if first { path } else { &[] },
                mode: if first { mode } else { 0 },
                first,
                last: index + 1 == pieces,
                ack,
                data: data.get(start..end).unwrap_or_default(),
            })
            .encode(&mut self.out);
        }
        Ok(())
    }

    /// Sends a signal to the command's process group; nothing happens without
    /// a command.
    ///
    /// # Errors
    /// [`ProtoError::Misuse`] for a number outside 1 to 64.
    pub fn signal(&mut self, number: u32) -> Result<(), ProtoError> {
        check_signal(number)?;
        if self.state.has_command() {
            Request::Signal(number).encode(&mut self.out);
        }
        Ok(())
    }

    /// Tells the command's terminal its new size; nothing happens without a command.
    pub fn resize(&mut self, size: WinSize) {
        if self.state.has_command() {
            Request::Resize(size).encode(&mut self.out);
        }
    }

    /// Queues a ping answered by [`Event::Pong`] with the same number.
    ///
    /// # Errors
    /// [`ProtoError::Misuse`] while a command occupies the session, or when it is over.
    pub fn ping(&mut self, nonce: u64) -> Result<(), ProtoError> {
        self.control(&Request::Ping(nonce), Owed::Pong(nonce))
    }

    /// Queues a step of the guest's wall clock to `unix_ns` nanoseconds since
    /// the epoch, answered by [`Event::Done`].
    ///
    /// # Errors
    /// As [`Self::ping`].
    pub fn set_time(&mut self, unix_ns: u64) -> Result<(), ProtoError> {
        self.control(&Request::SetTime(unix_ns), Owed::Done)
    }

    /// Queues entropy for the guest kernel, answered by [`Event::Done`].
    ///
    /// # Errors
    /// As [`Self::ping`], and for an empty seed or one over [`MAX_SEED_BYTES`].
    pub fn reseed(&mut self, seed: &[u8]) -> Result<(), ProtoError> {
        if seed.is_empty() || seed.len() > MAX_SEED_BYTES {
            return Err(ProtoError::Misuse {
                what: "a seed has 1 to 512 bytes",
            });
        }
        self.control(&Request::Reseed(seed), Owed::Done)
    }

    /// Queues a read of a whole file of at most [`MAX_FILE_BYTES`], answered by
    /// [`Event::File`].
    ///
    /// # Errors
    /// As [`Self::ping`], and for a path that is not absolute, contains NUL or
    /// is too long.
    pub fn read_file(&mut self, path: &[u8]) -> Result<(), ProtoError> {
        check_path(path)?;
        self.control(&Request::ReadFile(path), Owed::File(Vec::new()))
    }

    /// Queues a flush of all file systems, answered by [`Event::Done`].
    ///
    /// # Errors
    /// As [`Self::ping`].
    pub fn sync(&mut self) -> Result<(), ProtoError> {
        self.control(&Request::Sync, Owed::Done)
    }

    /// Queues a clean power-off. [`Event::Done`] means that it has begun.
    ///
    /// # Errors
    /// As [`Self::ping`].
    pub fn shutdown(&mut self) -> Result<(), ProtoError> {
        self.control(&Request::Shutdown, Owed::Done)
    }

    /// Queues what makes a restored, reset or forked copy a machine of its own,
    /// answered by [`Event::Resumed`], or by [`Event::Failed`] when the copy
    /// must not be used.
    ///
    /// # Errors
    /// As [`Self::ping`], and for what [`Resume::check`] refuses.
    pub fn resume(&mut self, resume: &Resume<'_>) -> Result<(), ProtoError> {
        resume.check()?;
        self.control(&Request::Resume(*resume), Owed::Resumed)
    }

    /// Queues what is to be done before a capture: a flush of all file systems
    /// and, with `drop_caches`, the end of the page cache. Answered by
    /// [`Event::Done`].
    ///
    /// # Errors
    /// As [`Self::ping`].
    pub fn quiesce(&mut self, drop_caches: bool) -> Result<(), ProtoError> {
        self.control(&Request::Quiesce { drop_caches }, Owed::Done)
    }

    /// Queues a question before a machine is copied whose kernel cannot hold
    /// programs: answered by [`Event::Done`] if there is none but the agent, else
    /// by [`Event::Failed`].
    ///
    /// # Errors
    /// As [`Self::ping`].
    pub fn alone(&mut self) -> Result<(), ProtoError> {
        self.control(&Request::Alone, Owed::Done)
    }

    /// Queues what lets programs go on that a resume has left held, answered by
    /// [`Event::Done`].
    ///
    /// # Errors
    /// As [`Self::ping`].
    pub fn release(&mut self) -> Result<(), ProtoError> {
        self.control(&Request::Release, Owed::Done)
    }

    /// Queues the order to make the layers on the machine's disks its root, as options of a
    /// kernel's command line say. Answered by [`Event::Done`].
    ///
    /// # Errors
    /// As [`Self::ping`], and for more than [`MAX_OPTIONS_BYTES`].
    pub fn enter_root(&mut self, options: &str) -> Result<(), ProtoError> {
        if options.len() > MAX_OPTIONS_BYTES {
            return Err(ProtoError::Misuse {
                what: "options longer than a kernel's command line",
            });
        }
        self.control(&Request::EnterRoot(options.as_bytes()), Owed::Done)
    }

    /// Queues the start of the machine's one workload, which outlives the
    /// session. Answered by [`Event::Workload`].
    ///
    /// # Errors
    /// As [`Self::ping`], and for what [`ExecRequest::check_workload`] refuses.
    pub fn start_workload(&mut self, request: &ExecRequest) -> Result<(), ProtoError> {
        request.check_workload()?;
        self.control(&Request::StartWorkload(request.clone()), Owed::Workload)
    }

    /// Queues a signal for the workload's process group, or with 9 the end of
    /// all its descendants. Answered by [`Event::Done`], also when it has ended.
    ///
    /// # Errors
    /// As [`Self::ping`], and for a number outside 1 to 64.
    pub fn signal_workload(&mut self, number: u32) -> Result<(), ProtoError> {
        check_signal(number)?;
        self.control(&Request::WorkloadSignal(number), Owed::Done)
    }

    /// Queues a question for the workload's state and the last `tail_bytes` of
    /// its output, answered by [`Event::Workload`].
    ///
    /// # Errors
    /// As [`Self::ping`].
    pub fn workload_status(&mut self, tail_bytes: u32) -> Result<(), ProtoError> {
        self.control(&Request::WorkloadStatus { tail_bytes }, Owed::Workload)
    }

    /// Queues a wait of at most `timeout_ms` until a socket of the machine
    /// listens on TCP port `port`, on whatever address. Answered by
    /// [`Event::Done`], or by [`Event::Failed`] when the time is up or the
    /// workload has ended.
    ///
    /// # Errors
    /// As [`Self::ping`], and for port 0.
    pub fn await_listener(&mut self, port: u16, timeout_ms: u64) -> Result<(), ProtoError> {
        if port == 0 {
            return Err(ProtoError::Misuse {
                what: "no such port",
            });
        }
        self.control(&Request::AwaitListener { port, timeout_ms }, Owed::Done)
    }

    fn control(&mut self, request: &Request<'_>, owed: Owed) -> Result<(), ProtoError> {
        self.ready_for_request()?;
        request.encode(&mut self.out);
        self.state.owed.push_back(owed);
        Ok(())
    }

    /// Adds received bytes. Take all events before feeding again, to keep
    /// memory bounded.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.frames.feed(bytes);
    }

    /// The next event, if one is complete.
    ///
    /// # Errors
    /// A breach of the protocol by the agent; final, the connection is of no
    /// more use.
    pub fn next_event(&mut self) -> Result<Option<Event>, ProtoError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    fn advance(&mut self) -> Result<Option<Event>, ProtoError> {
        while let Some((kind, payload)) = self.frames.next_frame()? {
            if let Some(event) = self.state.accept(kind, payload)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

fn check_path(path: &[u8]) -> Result<(), ProtoError> {
    if path.first() != Some(&b'/') || path.contains(&0) || path.len() >= MAX_PATH_BYTES {
        return Err(ProtoError::Misuse {
            what: "a path is absolute, shorter than 4096 bytes and without NUL",
        });
    }
    Ok(())
}

fn check_signal(number: u32) -> Result<(), ProtoError> {
    if !(1..=64).contains(&number) {
        return Err(ProtoError::Misuse {
            what: "no such signal",
        });
    }
    Ok(())
}
