//! The second tier: blocks that are entered often are compiled to host code.
//!
//! Compiled code is a handler: it is entered with the vCPU and an op, and goes on
//! to others by their ops, as the interpreter's handlers do. So a block is
//! replaced by its compiled form in the handler of one op, the one in front of it
//! ([`crate::exec::tier`]), to which every branch, link and jump-cache entry leads
//! already. Changed code is dropped, branches are chained and the run loop gets
//! its turn by the same means, whatever tier is at either end.
//!
//! An instruction without a template is executed by the interpreter's handler for
//! it. So is what a template does not cover: an access that the TLB does not have,
//! a branch whose target is not known.
//! Compiled code has nothing on the host stack, and keeps guest state in memory
//! wherever it may be left.

mod asm;
mod atomic;
mod bank;
mod branch;
mod census;
mod conditional;
mod crypto;
mod flags;
mod float;
mod integer;
mod looping;
mod memory;
mod moves;
mod multiply;
pub mod policy;
mod region;
mod registers;
mod state;
mod tally;
#[cfg(test)]
pub(crate) mod tests;
mod translate;
mod vector;
mod vector_float;

use crate::cpu::op::{Handler, Op};
use crate::exec::tier;
use crate::mode::Mode;
use crate::tier::{CodeMemory, CodeShare, Compiler, Heat, Place, Tier};
use crate::words::Words;
use branch::{Exits, Way};
use policy::Policy;
pub use policy::{COUNTS, Refusal};
pub use tally::census;

/// Whether this build has a second tier.
pub const IS_BUILT: bool = true;
use region::Region;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use translate::{Source, translate};

/// Instructions that are compiled at once. Of a longer block the beginning is hot
/// more often than the end, unless that leads back.
const AT_ONCE: usize = 24;
/// More than so many instructions become.
const MOST_BYTES: usize = 32 << 10;

/// A region with what leads into it.
#[derive(Debug)]
struct Loaded {
    region: Region,
    exits: Exits,
    /// The ops in front of its blocks.
    headers: Vec<*mut Op>,
    #[allow(dead_code, reason = "counts the region for as long as it is there")]
    share: Option<CodeShare>,
}

/// The compiled code of one vCPU.
#[derive(Debug)]
struct Translator {
    policy: Policy,
    memory: Arc<CodeMemory>,
    regions: VecDeque<Loaded>,
    seed: u64,
    /// The host gives no executable memory.
    refused: bool,
}

// SAFETY: its pointers lead to ops that move along with it to whichever thread
// has the decoded code.
unsafe impl Send for Translator {}

/// Whether this process can have executable memory.
///
/// # Errors
/// Why not.
pub fn probe() -> Result<(), Refusal> {
    // As large as those that are needed: limits are of sizes.
    Region::new(Policy::HOT.region_bytes)
        .map(drop)
        .map_err(Refusal::NoMemory)
}

/// What compiles for a new vCPU of the machine that has `memory`; `None` if
/// everything is to be interpreted.
#[must_use]
pub fn compiler(tier: Tier, memory: &Arc<CodeMemory>) -> Option<Box<dyn Compiler>> {
    with(tier.policy(), memory)
}

fn with(policy: Policy, memory: &Arc<CodeMemory>) -> Option<Box<dyn Compiler>> {
    if policy.entries == 0 {
        return None;
    }
    Some(Box::new(Translator {
        policy,
        memory: Arc::clone(memory),
        regions: VecDeque::new(),
        seed: seed(),
        refused: false,
    }))
}

impl Compiler for Translator {
    fn fresh(&self) -> Option<Box<dyn Compiler>> {
        with(self.policy, &self.memory)
    }

    fn clear(&mut self) {
        self.regions.clear();
    }

    fn part(&mut self) {
        for loaded in &mut self.regions {
            loaded.region.leave();
        }
    }

    fn settle(&mut self, memory: &Arc<CodeMemory>) {
        self.memory = Arc::clone(memory);
        for loaded in &mut self.regions {
            // No more than the parent had.
            loaded.share = memory.take(true);
        }
    }

    fn bytes(&self) -> usize {
        self.regions.iter().map(|loaded| loaded.region.used()).sum()
    }

    fn header(&mut self, mode: Mode, offset: u16, words: u32, count: u8) -> Op {
        let can = !self.refused && !mode.sp_off;
        let mut header = Op::new(if can { tier::count } else { tier::pass });
        header.imm = Heat::pack(self.entries(), words);
        header.pc_offset = offset;
        header.rd = count;
        header.aux = u16::from(mode.user) | u16::from(mode.fp_traps) << 1;
        header
    }

    unsafe fn compile(
        &mut self,
        header: *mut Op,
        words: &Words,
        place: &mut Place<'_>,
        inexact: bool,
    ) -> usize {
        // SAFETY: the caller's, of a live block.
        let op = unsafe { &mut *header };
        op.run = tier::pass;
        let Ok(last) = self.room() else {
            self.refused = true;
            COUNTS.refusals.fetch_add(1, Ordering::Relaxed);
            return 0;
        };
        let place_of = Heat::words(op.imm);
        let Some(mut words) = words.get(place_of, usize::from(op.rd)) else {
            return 0;
        };
        let mode = Mode {
            user: op.aux & 1 != 0,
            fp_traps: op.aux & 2 != 0,
            sp_off: false,
        };
        let mut next = None;
        let at_once = match words.len() {
            0..=AT_ONCE => words.len(),
            _ => looping::length(words).max(AT_ONCE),
        };
        if words.len() > at_once {
            words = &words[..at_once];
            next = self.rest(op, at_once, mode, place);
            if next.is_none() {
                return 0;
            }
        }
        let source = Source {
            first: op.link.get(),
            words,
            next,
            mode,
            counts: self.policy.counts,
            inexact,
        };
        let gap = self.gap();
        let Some(loaded) = self.regions.get_mut(last) else {
            return 0;
        };
        let way = Way {
            base: loaded.region.next(),
            gap,
            exits: loaded.exits,
        };
        let Some(translated) = translate(&source, way, place) else {
            return 0;
        };
        if loaded.region.append(&translated.code).is_err() {
            return 0;
        }
        loaded.headers.push(header);
        op.run = handler_at(way.base + usize::from(way.gap));
        let counts = [
            (&COUNTS.blocks, 1),
            (&COUNTS.instructions, words.len()),
            (&COUNTS.aside, translated.aside),
            (&COUNTS.bytes, translated.code.len()),
        ];
        for (count, more) in counts {
            count.fetch_add(more as u64, Ordering::Relaxed);
        }
        words.len()
    }
}

impl Translator {
    /// An op in front of what is behind the first `skipped` instructions of the
    /// block that `header` is in front of, to be compiled when it is hot itself.
    fn rest(
        &mut self,
        header: &Op,
        skipped: usize,
        mode: Mode,
        place: &mut Place<'_>,
    ) -> Option<*const Op> {
        let offset = header.pc_offset + 4 * skipped as u16;
        let words = Heat::words(header.imm) + skipped as u32;
        let count = usize::from(header.rd).checked_sub(skipped)?;
        let mut first = header.link.get();
        // SAFETY: the block has an op for each of its instructions, in order.
        while unsafe { (*first).pc_offset } != offset {
            // SAFETY: the one looked for is further behind.
            first = unsafe { first.add(1) };
        }
        let rest = self.header(mode, offset, words, count as u8);
        rest.link.set(first);
        place(&mut vec![rest]).map(<*mut Op>::cast_const)
    }

    /// Bytes to leave free in front of a block: nobody can say where its immediates
    /// will be.
    fn gap(&mut self) -> u8 {
        (self.by_chance() >> 28) as u8 & 15
    }

    fn entries(&mut self) -> u32 {
        if !self.policy.by_chance {
            return self.policy.entries;
        }
        1 + self.by_chance() % self.policy.entries
    }

    fn by_chance(&mut self) -> u32 {
        self.seed = self
            .seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        (self.seed >> 32) as u32
    }

    /// The number of a region with room for one more block.
    fn room(&mut self) -> std::io::Result<usize> {
        if self.refused {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        if !self
            .regions
            .back()
            .is_some_and(|l| l.region.has_room(MOST_BYTES))
        {
            if let Some(full) = self.regions.back_mut() {
                full.region.seal();
            }
            if self.regions.len() >= self.policy.regions.max(1) {
                self.evict();
            }
            let share = loop {
                match self.memory.take(self.regions.is_empty()) {
                    Some(share) => break share,
                    None => self.evict(),
                }
            };
            let mut region = Region::new(self.policy.region_bytes.max(2 * MOST_BYTES))?;
            let (exits, code) = Exits::emit(region.next());
            region.append(&code.code)?;
            self.regions.push_back(Loaded {
                region,
                exits,
                headers: Vec::new(),
                share: Some(share),
            });
        }
        Ok(self.regions.len() - 1)
    }

    /// Drops the oldest region; its blocks are interpreted until they are hot
    /// again.
    fn evict(&mut self) {
        let Some(old) = self.regions.pop_front() else {
            return;
        };
        for &header in &old.headers {
            let entries = self.entries();
            // SAFETY: headers live as long as the arena, with which all regions
            // are cleared.
            let op = unsafe { &mut *header };
            if old.region.contains(op.run as usize) {
                op.run = tier::count;
                op.imm = Heat::pack(entries, Heat::words(op.imm));
            }
        }
        COUNTS.evictions.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the places of code are chosen by. The standard library has it from the host,
/// for its maps.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Compiled code as a handler.
fn handler_at(address: usize) -> Handler {
    let code = std::ptr::with_exposed_provenance::<()>(address);
    // SAFETY: the code in a region takes what a handler takes and keeps what a
    // handler keeps: see `translate`. It is called through ops only, which lead
    // there as long as the region lives.
    unsafe { std::mem::transmute::<*const (), Handler>(code) }
}
