//! The eight-byte header and the incremental splitter.

use alloc::vec::Vec;

use crate::{
    MAX_DATA_BYTES, MAX_EXEC_BYTES, MAX_HOSTNAME_BYTES, MAX_MESSAGE_BYTES, MAX_OPTIONS_BYTES,
    MAX_PATH_BYTES, MAX_SEED_BYTES, ProtoError, WORKLOAD_TAIL_BYTES,
};

/// Size of a frame header: kind, flags, two reserved bytes, `u32` payload length.
pub const HEADER_BYTES: usize = 8;

/// Which way a stream flows; each direction has its own set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Host to agent.
    ToAgent,
    /// Agent to host.
    ToClient,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $byte:literal, $dir:ident, $max:expr;)*) => {
        /// What a frame carries. The discriminant is the header's kind byte.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $byte,)*
        }

        impl Kind {
            /// The kind for a header byte, if this version defines it.
            #[must_use]
            pub fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Most payload bytes a frame of this kind may carry.
            #[must_use]
            pub fn max_payload(self) -> usize {
                match self {
                    $(Self::$name => $max,)*
                }
            }

            fn flows(self) -> Flows {
                match self {
                    $(Self::$name => Flows::$dir,)*
                }
            }
        }
    };
}

enum Flows {
    Both,
    ToAgent,
    ToClient,
}

/// Room for a frame's fixed fields next to its variable part.
const FIXED: usize = 64;

kinds! {
    /// First frame in each direction.
    Hello = 0x01, Both, 64;

    /// Start a command.
    Exec = 0x10, ToAgent, MAX_EXEC_BYTES;
    /// One piece of a file to write.
    FileChunk = 0x11, ToAgent, MAX_DATA_BYTES + MAX_PATH_BYTES + FIXED;
    /// Bytes for the command's standard input.
    Stdin = 0x12, ToAgent, MAX_DATA_BYTES;
    /// No more standard input.
    StdinEof = 0x13, ToAgent, 0;
    /// Signal the command's process group.
    Signal = 0x14, ToAgent, 4;
    /// New terminal size.
    Resize = 0x15, ToAgent, 4;
    /// Let the command go on without a host.
    Detach = 0x16, ToAgent, 0;
    /// Ask for a [`Kind::Pong`].
    Ping = 0x20, ToAgent, 8;
    /// Step the guest's wall clock.
    SetTime = 0x21, ToAgent, 8;
    /// Credit entropy to the guest kernel and reseed its generator.
    Reseed = 0x22, ToAgent, MAX_SEED_BYTES;
    /// Read a whole file.
    ReadFile = 0x23, ToAgent, MAX_PATH_BYTES + FIXED;
    /// Flush file systems to their disks.
    Sync = 0x24, ToAgent, 0;
    /// Flush, end everything, power the machine off.
    Shutdown = 0x25, ToAgent, 0;
    /// Become a machine of its own after a restore, reset or fork.
    Resume = 0x26, ToAgent, 4 * FIXED + MAX_HOSTNAME_BYTES;
    /// Get ready to be captured.
    Quiesce = 0x27, ToAgent, 4;
    /// Ask whether there is no program.
    Alone = 0x28, ToAgent, 0;
    /// Let held programs go on.
    Release = 0x29, ToAgent, 0;
    /// Make the layers on the machine's disks its root.
    EnterRoot = 0x2a, ToAgent, MAX_OPTIONS_BYTES;
    /// Start the machine's workload.
    StartWorkload = 0x30, ToAgent, MAX_EXEC_BYTES;
    /// Signal the workload.
    WorkloadSignal = 0x31, ToAgent, 4;
    /// Ask how the workload does.
    WorkloadStatus = 0x32, ToAgent, 4;
    /// Wait until something listens on a TCP port.
    AwaitListener = 0x33, ToAgent, 12;
    /// Take up the streams of a durable command.
    Attach = 0x34, ToAgent, 24;
    /// Ask for the durable commands.
    ListExecs = 0x35, ToAgent, 0;
    /// Connect to a port of the machine.
    Dial = 0x36, ToAgent, 8;

    /// First frame of a connection the agent opened to the host.
    AgentReady = 0x81, ToClient, MAX_MESSAGE_BYTES + FIXED;
    /// The command runs.
    Started = 0x90, ToClient, 4;
    /// Bytes from the command's standard output, or from its terminal.
    Stdout = 0x91, ToClient, MAX_DATA_BYTES;
    /// Bytes from the command's standard error.
    Stderr = 0x92, ToClient, MAX_DATA_BYTES;
    /// More standard input may be sent.
    StdinWindow = 0x93, ToClient, 4;
    /// The command will read no more standard input.
    StdinClosed = 0x94, ToClient, 0;
    /// The command ended.
    Exited = 0x95, ToClient, FIXED;
    /// The oldest unanswered request failed; the agent closes after it.
    Error = 0x96, ToClient, MAX_MESSAGE_BYTES + FIXED;
    /// A command of a chain ended, and the next is tried.
    Step = 0x97, ToClient, FIXED;
    /// The command is durable, and this is its id.
    Durable = 0x98, ToClient, 8;
    /// The command goes on without a host.
    Detached = 0x99, ToClient, 24;
    /// The streams of a durable command follow.
    Attached = 0x9a, ToClient, FIXED;
    /// Bytes of an output stream are lost.
    Gap = 0x9b, ToClient, 16;
    /// Answer to a ping.
    Pong = 0xa0, ToClient, 8;
    /// One piece of a file that was asked for.
    FileData = 0xa1, ToClient, MAX_DATA_BYTES + FIXED;
    /// A file write that asked for an answer is complete.
    FileWritten = 0xa2, ToClient, 8;
    /// A control request without a result of its own succeeded.
    Done = 0xa3, ToClient, 0;
    /// What a resume did.
    Resumed = 0xa4, ToClient, FIXED;
    /// How the workload does.
    Workload = 0xa5, ToClient, WORKLOAD_TAIL_BYTES + FIXED;
    /// The durable commands.
    Execs = 0xa6, ToClient, MAX_EXEC_BYTES;
}

impl Kind {
    /// The header byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    fn is_allowed(self, direction: Direction) -> bool {
        match self.flows() {
            Flows::Both => true,
            Flows::ToAgent => direction == Direction::ToAgent,
            Flows::ToClient => direction == Direction::ToClient,
        }
    }
}

/// The header of a frame. `len` beyond the kind's limit saturates at `u32::MAX`,
/// which no peer accepts.
#[must_use]
pub fn encode_header(kind: Kind, len: usize) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    [kind.byte(), 0, 0, 0, a, b, c, d]
}

/// Appends one frame whose payload `fill` writes.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    fill(out);
    let len = out.len() - start - HEADER_BYTES;
    if let Some(header) = out.get_mut(start..start + HEADER_BYTES) {
        header.copy_from_slice(&encode_header(kind, len));
    }
}

/// Splits a byte stream into frames, whatever the boundaries of its pieces.
///
/// Memory is bounded by one frame of the direction's longest kind plus the
/// piece fed last, provided the caller takes all frames between two feeds.
#[derive(Debug)]
pub struct Deframer {
    direction: Direction,
    buffer: Vec<u8>,
    taken: usize,
    failed: Option<ProtoError>,
}

impl Deframer {
    /// A splitter for a stream flowing in `direction`.
    #[must_use]
    pub fn new(direction: Direction) -> Self {
        Self {
            direction,
            buffer: Vec::new(),
            taken: 0,
            failed: None,
        }
    }

    /// Adds received bytes. After an error they are dropped.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.room().extend_from_slice(bytes);
        }
    }

    /// Where received bytes may be added without a copy: onto its end. After an error
    /// what is added is dropped by the next call.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if self.failed.is_some() {
            self.buffer.clear();
        }
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        &mut self.buffer
    }

    /// Takes the next complete frame.
    ///
    /// # Errors
    /// A header this version does not allow. The error is final: the position
    /// of the next header is unknown, so every later call repeats it.
    pub fn next_frame(&mut self) -> Result<Option<(Kind, &[u8])>, ProtoError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let pending = self.buffer.get(self.taken..).unwrap_or_default();
        let (kind, len) = match parse_header(self.direction, pending) {
            Ok(Some(header)) => header,
            Ok(None) => {
                self.release_big_buffer();
                return Ok(None);
            }
            Err(error) => {
                self.failed = Some(error.clone());
                self.buffer = Vec::new();
                self.taken = 0;
                return Err(error);
            }
        };
        let start = self.taken + HEADER_BYTES;
        let Some(payload) = self.buffer.get(start..start + len) else {
            return Ok(None);
        };
        self.taken = start + len;
        Ok(Some((kind, payload)))
    }

    /// True if part of a frame is waiting for its rest.
    #[must_use]
    pub fn has_partial(&self) -> bool {
        self.buffer.len() > self.taken
    }

    /// How many bytes the frame lacks whose header is there, 0 if none is.
    #[must_use]
    pub fn missing(&self) -> usize {
        let pending = self.buffer.get(self.taken..).unwrap_or_default();
        match parse_header(self.direction, pending) {
            Ok(Some((_, len))) => (HEADER_BYTES + len).saturating_sub(pending.len()),
            _ => 0,
        }
    }

    /// Takes what was received behind the last frame, and is empty then.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.buffer.split_off(self.taken.min(self.buffer.len()));
        self.buffer = Vec::new();
        self.taken = 0;
        rest
    }

    /// A rare huge `Exec` must not pin its memory for the connection's life.
    fn release_big_buffer(&mut self) {
        if self.taken == self.buffer.len() && self.buffer.capacity() > 4 * MAX_DATA_BYTES {
            self.buffer = Vec::new();
            self.taken = 0;
        }
    }
}

/// Kind and payload length, `None` while the header is incomplete. A bad header
/// is refused as soon as the byte that makes it bad is there, but reported only
/// with all eight present, so that the result does not depend on the split.
fn parse_header(direction: Direction, bytes: &[u8]) -> Result<Option<(Kind, usize)>, ProtoError> {
    let Some([kind_byte, flags, r0, r1, l0, l1, l2, l3]) = bytes.first_chunk::<HEADER_BYTES>()
    else {
        return Ok(None);
    };
    let kind = Kind::from_byte(*kind_byte)
        .filter(|kind| kind.is_allowed(direction))
        .ok_or(ProtoError::UnknownKind { kind: *kind_byte })?;
    if (*flags, *r0, *r1) != (0, 0, 0) {
        return Err(ProtoError::ReservedBits { kind: *kind_byte });
    }
    let len = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
    let max = kind.max_payload();
    if len > max {
        return Err(ProtoError::TooLong {
            kind: *kind_byte,
            len,
            max,
        });
    }
    Ok(Some((kind, len)))
}
