//! Decoded blocks: where they live, how they are found and how they go stale.
//!
//! A block is a run of ops inside one guest page, ending in an op that does not
//! continue to the next. Blocks are keyed by physical address, so processes
//! share those of a library, and by what they were decoded for ([`Mode`]).

use crate::cpu::Cpu;
use crate::decode;
use crate::exec::branch::stale;
use crate::op::{self, Op};
use crate::tlb::{PAGE_MASK, PAGE_SIZE};
use crate::vcpu_link::CodeRange;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Entries of the jump cache; a power of two.
pub const JUMP_ENTRIES: usize = 16384;
/// Instructions per block at most.
const MAX_BLOCK: usize = 64;
/// Ops per arena chunk: 256 KiB.
const CHUNK_OPS: usize = 8192;
/// Ops that a vCPU may keep while it is idle.
const SMALL_OPS: usize = 1024;
/// Chunks before the arena starts over: 32 MiB of decoded code.
const MAX_CHUNKS: usize = 128;

/// Where a virtual address continues, if the context is the same.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct JumpEntry {
    /// Virtual address of the block.
    pub pc: u64,
    /// [`Cpu::context`] of that half of the address space at the time.
    pub context: u64,
    /// First op.
    pub op: *const Op,
}

/// Matches nothing: no context is 0. All zeroes, so that entries never used
/// cost the host no memory.
const NO_JUMP: JumpEntry = JumpEntry {
    pc: 0,
    context: 0,
    op: std::ptr::null(),
};

fn no_jumps() -> Box<[JumpEntry]> {
    // SAFETY: zeroes are two integers and a null pointer: `NO_JUMP`.
    unsafe { Box::new_zeroed_slice(JUMP_ENTRIES).assume_init() }
}

/// What a block was decoded for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// At EL0.
    pub user: bool,
    /// FP and vector instructions trap (CPACR_EL1.FPEN).
    pub fp_traps: bool,
    /// The stack pointer is misaligned, and that is checked.
    pub sp_off: bool,
}

/// Set in a context or a key for a misaligned stack pointer: beyond physical
/// addresses, and never set in a generation.
pub const SP_OFF: u64 = 1 << 62;

impl Mode {
    /// Instruction addresses are multiples of 4, which leaves two bits.
    fn key(self, physical: u64) -> u64 {
        let sp_off = if self.sp_off { SP_OFF } else { 0 };
        physical | sp_off | u64::from(self.user) | u64::from(self.fp_traps) << 1
    }
}

/// Multiplicative hash for keys that are addresses.
#[derive(Default, Clone, Copy)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}

type AddressMap<T> = HashMap<u64, T, BuildHasherDefault<AddressHasher>>;

#[derive(Clone, Copy)]
struct Block {
    key: u64,
    entry: *mut Op,
    /// Offsets in the page of the first byte and after the last.
    start: u16,
    end: u16,
}

/// All decoded code of one vCPU.
pub struct CodeCache {
    jump: Box<[JumpEntry]>,
    blocks: AddressMap<*const Op>,
    pages: AddressMap<Vec<Block>>,
    /// Each has room for [`CHUNK_OPS`] and is never grown, so that ops stay
    /// where they are.
    chunks: Vec<Vec<Op>>,
    /// Counts restarts, after which no op pointer from before is valid.
    pub epoch: u64,
}

impl CodeCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self {
            jump: no_jumps(),
            blocks: AddressMap::default(),
            pages: AddressMap::default(),
            chunks: Vec::new(),
            epoch: 0,
        }
    }

    /// Where handlers index from; valid as long as the cache lives.
    pub fn jump_ptr(&mut self) -> *mut JumpEntry {
        self.jump.as_mut_ptr()
    }

    /// What the jump cache knows in `pc`'s place.
    pub fn jump_at(&self, pc: u64, context: u64) -> JumpEntry {
        self.jump[jump_index(pc, context)]
    }

    /// Remembers that `pc` continues at `op`.
    pub fn remember(&mut self, pc: u64, context: u64, op: *const Op) {
        self.jump[jump_index(pc, context)] = JumpEntry { pc, context, op };
    }

    /// Forgets where `pc` continues.
    pub fn forget(&mut self, pc: u64, context: u64) {
        self.jump[jump_index(pc, context)] = NO_JUMP;
    }

    /// Drops everything. No op may be executing.
    pub fn clear(&mut self) {
        self.jump.fill(NO_JUMP);
        self.blocks.clear();
        self.pages.clear();
        self.chunks.clear();
        self.epoch += 1;
    }

    /// As [`CodeCache::clear`], and gives the memory back to the host. What
    /// [`CodeCache::jump_ptr`] gave before is not valid any more.
    pub fn release(&mut self) {
        let epoch = self.epoch + 1;
        *self = Self::new();
        self.epoch = epoch;
    }

    /// Whether there is enough that [`CodeCache::release`] is worth it.
    pub fn is_large(&self) -> bool {
        self.chunks.len() > 1 || self.chunks.iter().any(|chunk| chunk.len() > SMALL_OPS)
    }

    /// Drops the blocks that overlap `range`.
    pub fn invalidate(&mut self, range: CodeRange) {
        let end = range.pa.saturating_add(range.bytes);
        let pages = (end - range.pa).div_ceil(PAGE_SIZE) + 1;
        if pages > self.pages.len() as u64 {
            let all: Vec<u64> = self.pages.keys().copied().collect();
            for page in all {
                self.invalidate_in_page(page, range.pa, end);
            }
            return;
        }
        let mut page = range.pa & PAGE_MASK;
        while page < end {
            self.invalidate_in_page(page, range.pa, end);
            page += PAGE_SIZE;
        }
    }

    fn invalidate_in_page(&mut self, page: u64, start: u64, end: u64) {
        let Some(list) = self.pages.get_mut(&page) else {
            return;
        };
        let blocks = &mut self.blocks;
        list.retain(|block| {
            let from = page + u64::from(block.start);
            let to = page + u64::from(block.end);
            if to <= start || from >= end {
                return true;
            }
            // Chained branches and the jump cache may still lead here: the
            // entry now sends them to the run loop. The memory stays.
            // SAFETY: blocks of this epoch live in chunks that are never freed
            // or moved before `clear`, which also drops this list, and the
            // owning thread, the only one to touch ops, is the caller.
            unsafe { (*block.entry).run = stale };
            blocks.remove(&block.key);
            false
        });
    }

    fn find(&self, mode: Mode, physical: u64) -> Option<*const Op> {
        self.blocks.get(&mode.key(physical)).copied()
    }

    /// Adds a block for the code at `physical`.
    fn insert(&mut self, mode: Mode, physical: u64, ops: &[Op], instructions: usize) -> *const Op {
        let has_room = |chunk: &Vec<Op>| chunk.len() + ops.len() <= CHUNK_OPS;
        if !self.chunks.last().is_some_and(has_room) {
            if self.chunks.len() >= MAX_CHUNKS {
                self.clear();
            }
            self.chunks.push(Vec::with_capacity(CHUNK_OPS));
        }
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        let at = chunk.len();
        chunk.extend_from_slice(ops);
        // SAFETY: `at` is inside: ops were added just now. Not through a slice,
        // which would claim the ops before, some of which may be executing.
        let entry = unsafe { chunk.as_mut_ptr().add(at) };
        let key = mode.key(physical);
        let start = (physical & !PAGE_MASK) as u16;
        self.blocks.insert(key, entry);
        self.pages
            .entry(physical & PAGE_MASK)
            .or_default()
            .push(Block {
                key,
                entry,
                start,
                end: start + 4 * instructions as u16,
            });
        entry
    }
}

impl Default for CodeCache {
    fn default() -> Self {
        Self::new()
    }
}

/// The jump cache index of `pc` in `context`. Processes made by fork run the
/// same addresses in turn and must not throw each other out.
#[inline(always)]
pub fn jump_index(pc: u64, context: u64) -> usize {
    (pc >> 2 ^ context) as usize & (JUMP_ENTRIES - 1)
}

impl Cpu {
    /// What code is decoded for now.
    pub fn mode(&self) -> Mode {
        let user = self.pstate.el == 0;
        // FPEN: 0b01 traps EL0 only, 0b11 nothing, the others both.
        let fp_traps = match self.sys.cpacr >> 20 & 3 {
            3 => false,
            1 => user,
            _ => true,
        };
        Mode {
            user,
            fp_traps,
            sp_off: self.sp_off,
        }
    }

    /// Whether loads and stores by the current stack pointer fault: it is no
    /// multiple of 16, and SCTLR_EL1.SA0 (bit 4) or SA (bit 3) is set.
    #[inline]
    pub fn is_stack_off(&self) -> bool {
        let check = if self.pstate.el == 0 { 1 << 4 } else { 1 << 3 };
        self.regs.x[usize::from(op::SP)] & 15 != 0 && self.sys.sctlr & check != 0
    }

    /// The block at physical address `physical`, whose host copy is at `host`.
    pub fn block_at(&mut self, physical: u64, host: u64) -> *const Op {
        let mode = self.mode();
        if let Some(op) = self.code.find(mode, physical) {
            return op;
        }
        let offset = physical & !PAGE_MASK;
        let room = ((PAGE_SIZE - offset) / 4) as usize;
        let mut ops = Vec::with_capacity(MAX_BLOCK + 1);
        let count = decode::block(&mut ops, mode, offset as u16, room.min(MAX_BLOCK), |n| {
            let at = (host + 4 * n as u64) as *const u32;
            // SAFETY: `host` backs `physical`, mapped in whole pages, and
            // `room` ends at the page's end. Volatile, as the guest may be
            // writing there from another thread.
            unsafe { at.read_volatile() }
        });
        self.vm.code_pages.note(physical);
        self.code.insert(mode, physical, &ops, count)
    }
}
