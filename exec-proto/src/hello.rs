//! The first frame of each direction. Its leading fields (magic, version) and
//! the frame header keep their layout in every version, so that a mismatch can
//! always be named.

use alloc::vec::Vec;

use crate::frame::put_frame;
use crate::wire::{Reader, put_bytes};
use crate::{Kind, MAGIC, MAX_MESSAGE_BYTES, ProtoError, VERSION};

/// Capability bit: a timeout or disconnect reaches every descendant of a
/// command, double-forked ones too (the agent has control groups).
pub const CAP_TREE_KILL: u32 = 1;

/// Opening frame of either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version of the sender.
    pub version: u16,
    /// `CAP_*` bits of the sender; unknown bits are ignored.
    pub capabilities: u32,
}

impl Hello {
    /// A hello of this crate's version.
    #[must_use]
    pub fn new(capabilities: u32) -> Self {
        Self {
            version: VERSION,
            capabilities,
        }
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, Kind::Hello, |out| self.put(out));
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.capabilities.to_le_bytes());
    }

    /// Reads a hello and refuses every version but ours.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, ProtoError> {
        let mut fields = Reader::new(Kind::Hello, payload);
        let hello = Self::read(&mut fields)?;
        fields.end()?;
        Ok(hello)
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, ProtoError> {
        if fields.take(MAGIC.len())? != MAGIC {
            return Err(ProtoError::NotThisProtocol);
        }
        let version = fields.u16()?;
        if version != VERSION {
            return Err(ProtoError::VersionMismatch {
                ours: VERSION,
                theirs: version,
            });
        }
        fields.u16()?;
        let capabilities = fields.u32()?;
        Ok(Self {
            version,
            capabilities,
        })
    }
}

/// Opening frame of a connection that the agent itself makes to the host's
/// [`crate::READY_PORT`]: a hello with facts about the boot. From then on the
/// connection works like one the host opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentReady {
    /// The agent's hello.
    pub hello: Hello,
    /// Guest `CLOCK_MONOTONIC` in ns when the agent's `main` began.
    pub started_ns: u64,
    /// Guest `CLOCK_MONOTONIC` in ns when the agent began to listen.
    pub ready_ns: u64,
    /// Kernel release as `uname -r` prints it; guest bytes, not trusted text.
    pub kernel_release: Vec<u8>,
}

impl AgentReady {
    /// Appends the frame; an over-long release is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, Kind::AgentReady, |out| {
            self.hello.put(out);
            out.extend_from_slice(&self.started_ns.to_le_bytes());
            out.extend_from_slice(&self.ready_ns.to_le_bytes());
            let len = self.kernel_release.len().min(MAX_MESSAGE_BYTES);
            put_bytes(out, self.kernel_release.get(..len).unwrap_or_default());
        });
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, ProtoError> {
        let mut fields = Reader::new(Kind::AgentReady, payload);
        let ready = Self {
            hello: Hello::read(&mut fields)?,
            started_ns: fields.u64()?,
            ready_ns: fields.u64()?,
            kernel_release: fields.bytes(MAX_MESSAGE_BYTES)?.to_vec(),
        };
        fields.end()?;
        Ok(ready)
    }
}
