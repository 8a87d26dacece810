//! Becoming a machine of one's own: what the host tells a restored, reset or
//! forked copy, and what the copy says it did.

use alloc::vec::Vec;

use crate::wire::{Reader, put_bytes};
use crate::{Kind, MAX_HOSTNAME_BYTES, ProtoError, RESUME_SEED_BYTES};

/// Everything that must differ between copies of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume<'a> {
    /// Secret random bytes for the guest kernel's generator, all credited;
    /// [`RESUME_SEED_BYTES`] of them, never the same twice.
    pub seed: &'a [u8],
    /// Wall clock in ns since the Unix epoch.
    pub wall_ns: u64,
    /// Generation id of this copy, mixed into the generator without credit.
    pub generation: [u8; 16],
    /// New host name; empty keeps the present one.
    pub hostname: &'a [u8],
    /// CPUs to have online; 0 leaves them as they are.
    pub vcpus: u32,
    /// Becomes the content of `/etc/machine-id`; without one the file stays as
    /// the image has it.
    pub machine_id: Option<[u8; 16]>,
    /// Programs stay held until a [`Release`](crate::Request::Release): the
    /// host has something left to do.
    pub stay_held: bool,
}

impl<'a> Resume<'a> {
    /// A resume that reseeds and sets the clock, and nothing else.
    #[must_use]
    pub fn new(seed: &'a [u8], wall_ns: u64, generation: [u8; 16]) -> Self {
        Self {
            seed,
            wall_ns,
            generation,
            hostname: &[],
            vcpus: 0,
            machine_id: None,
            stay_held: false,
        }
    }

    /// Checks what the agent would refuse.
    ///
    /// # Errors
    /// [`ProtoError::Misuse`] naming the first problem.
    pub fn check(&self) -> Result<(), ProtoError> {
        self.problem()
            .map_or(Ok(()), |what| Err(ProtoError::Misuse { what }))
    }

    fn problem(&self) -> Option<&'static str> {
        if !RESUME_SEED_BYTES.contains(&self.seed.len()) {
            return Some("a resume's seed has 32 to 64 bytes");
        }
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        if self.hostname.len() > MAX_HOSTNAME_BYTES || !self.hostname.iter().all(plain) {
            return Some("a host name has at most 64 letters, digits, hyphens and dots");
        }
        None
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.wall_ns.to_le_bytes());
        out.extend_from_slice(&self.generation);
        out.extend_from_slice(&self.vcpus.to_le_bytes());
        put_bytes(out, self.hostname);
        put_bytes(out, self.seed);
        out.push(u8::from(self.machine_id.is_some()));
        if let Some(id) = &self.machine_id {
            out.extend_from_slice(id);
        }
        out.push(u8::from(self.stay_held));
    }

    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, ProtoError> {
        let mut fields = Reader::new(Kind::Resume, payload);
        let resume = Self {
            wall_ns: fields.u64()?,
            generation: fields.id()?,
            vcpus: fields.u32()?,
            hostname: fields.bytes(MAX_HOSTNAME_BYTES)?,
            seed: fields.bytes(*RESUME_SEED_BYTES.end())?,
            machine_id: if fields.bool()? {
                Some(fields.id()?)
            } else {
                None
            },
            stay_held: fields.bool()?,
        };
        if let Some(what) = resume.problem() {
            return Err(fields.bad(what));
        }
        fields.end()?;
        Ok(resume)
    }
}

/// What a [`Resume`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// The kernel's generator took the seed and uses it. The agent answers
    /// with a failure instead of `false`; a host checks all the same.
    pub reseeded: bool,
    /// By how much the wall clock moved, in ns.
    pub clock_step_ns: i64,
    /// The kernel has the new host name.
    pub hostname_set: bool,
    /// The machine's boot id from now on; zeroes if it could not be replaced.
    pub boot_id: [u8; 16],
    /// CPUs online now, whatever was asked for.
    pub vcpus_online: u32,
    /// Guest time that the work took, in ns.
    pub work_ns: u64,
}

impl Resumed {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[u8::from(self.reseeded), u8::from(self.hostname_set)]);
        out.extend_from_slice(&self.clock_step_ns.to_le_bytes());
        out.extend_from_slice(&self.boot_id);
        out.extend_from_slice(&self.vcpus_online.to_le_bytes());
        out.extend_from_slice(&self.work_ns.to_le_bytes());
    }

    pub(crate) fn read(fields: &mut Reader<'_>) -> Result<Self, ProtoError> {
        Ok(Self {
            reseeded: fields.bool()?,
            hostname_set: fields.bool()?,
            clock_step_ns: fields.i64()?,
            boot_id: fields.id()?,
            vcpus_online: fields.u32()?,
            work_ns: fields.u64()?,
        })
    }
}
