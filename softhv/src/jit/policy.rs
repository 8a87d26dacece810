//! What is compiled, and how much of it is kept.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

/// What a vCPU compiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// A block is compiled when it is entered for the so many-th time; with 0,
    /// nothing is.
    pub entries: u32,
    /// After a number of entries up to that, which differs from block to block.
    pub by_chance: bool,
    /// Bytes of each region of code: what is dropped at once.
    pub region_bytes: usize,
    /// Regions of a vCPU at most.
    pub regions: usize,
}

impl Policy {
    /// Everything is interpreted.
    pub const OFF: Self = Self {
        entries: 0,
        by_chance: false,
        region_bytes: 0,
        regions: 0,
    };
    /// What is entered often is compiled: 16 MiB of code at most.
    pub const HOT: Self = Self {
        entries: 512,
        by_chance: false,
        region_bytes: 1 << 20,
        regions: 16,
    };
    /// For tests: everything is compiled at once.
    pub const EAGER: Self = Self {
        entries: 1,
        ..Self::HOT
    };
    /// For tests: blocks are compiled after a few entries, and soon dropped again.
    pub const RESTLESS: Self = Self {
        entries: 4,
        by_chance: true,
        region_bytes: 64 << 10,
        regions: 1,
    };
}

static POLICY: Mutex<Policy> = Mutex::new(Policy::HOT);

/// What vCPUs made from now on compile, in this process.
pub fn set_policy(policy: Policy) {
    *POLICY.lock().unwrap_or_else(PoisonError::into_inner) = policy;
}

/// What vCPUs made now compile.
pub fn current() -> Policy {
    *POLICY.lock().unwrap_or_else(PoisonError::into_inner)
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
