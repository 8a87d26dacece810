//! What is compiled, and how much of it is kept.

#[cfg(compiles)]
use crate::tier::Tier;
use std::io;
use std::sync::atomic::AtomicU64;

#[cfg(compiles)]
impl Tier {
    pub(crate) const fn policy(self) -> Policy {
        match self {
            Self::Auto => Policy::HOT,
            Self::Interpret | Self::Count => Policy::OFF,
            Self::Compile => Policy::EAGER,
            Self::Restless => Policy::RESTLESS,
            Self::Census => Policy::CENSUS,
        }
    }
}

/// Why code is interpreted here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no compiling tier for this host, or none in this build.
    #[error("code is compiled on x86-64 Linux only, by an optimised build")]
    NotBuilt,
    /// The host gives this process no executable memory.
    #[error(
        "the host gives no executable memory: allow memfd_create and executable mappings \
         (SELinux's execmem, filters of system calls, vm.memfd_noexec, ulimit -f)"
    )]
    NoMemory(#[source] io::Error),
}

/// What a vCPU compiles.
#[cfg(compiles)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Policy {
    /// A block is compiled when it is entered for the so many-th time; with 0,
    /// nothing is.
    pub entries: u32,
    /// After a number of entries up to that, which differs from block to block.
    pub by_chance: bool,
    /// Bytes of each region of code: what is dropped at once.
    pub region_bytes: usize,
    /// Regions of a vCPU at most.
    pub regions: usize,
    /// Whether code counts what it executes.
    pub counts: bool,
}

#[cfg(compiles)]
impl Policy {
    /// That of [`Tier::Interpret`].
    pub const OFF: Self = Self {
        entries: 0,
        by_chance: false,
        region_bytes: 0,
        regions: 0,
        counts: false,
    };
    /// What is entered often is compiled: 16 MiB of code at most. That of
    /// [`Tier::Auto`].
    pub const HOT: Self = Self {
        entries: 512,
        by_chance: false,
        region_bytes: 1 << 20,
        regions: 16,
        counts: false,
    };
    /// Everything is compiled at once: that of [`Tier::Compile`].
    pub const EAGER: Self = Self {
        entries: 1,
        ..Self::HOT
    };
    /// That of [`Tier::Restless`].
    pub const RESTLESS: Self = Self {
        entries: 4,
        by_chance: true,
        region_bytes: 64 << 10,
        regions: 1,
        counts: false,
    };
    /// That of [`Tier::Census`].
    pub const CENSUS: Self = Self {
        counts: true,
        ..Self::EAGER
    };
}

/// What the vCPUs of this process have compiled, from its start on.
#[derive(Debug)]
pub struct Counts {
    /// Blocks.
    pub blocks: AtomicU64,
    /// Their instructions,
    pub instructions: AtomicU64,
    /// of which the interpreter executes so many.
    pub aside: AtomicU64,
    /// Bytes of host code.
    pub bytes: AtomicU64,
    /// Regions dropped to make room.
    pub evictions: AtomicU64,
    /// vCPUs that the host gave no executable memory.
    pub refusals: AtomicU64,
}

/// The counts of this process.
pub static COUNTS: Counts = Counts {
    blocks: AtomicU64::new(0),
    instructions: AtomicU64::new(0),
    aside: AtomicU64::new(0),
    bytes: AtomicU64::new(0),
    evictions: AtomicU64::new(0),
    refusals: AtomicU64::new(0),
};
