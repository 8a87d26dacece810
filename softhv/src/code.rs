//! Decoded blocks: where they live, how they are found and how they go stale.
//!
//! A block is a run of ops inside one guest page, ending in an op that does not
//! continue to the next. Blocks are keyed by physical address, so processes
//! share those of a library, and by what they were decoded for ([`Mode`]).

use crate::address_hash::AddressMap;
use crate::ahead::store::Store;
use crate::cpu::op::{Handler, Op};
use crate::heap;
use crate::held::HeldLines;
use crate::jump::JumpCache;

use crate::mail::CodeRange;
use crate::mode::{Mode, SP_OFF};
use crate::page::{PAGE_MASK, PAGE_SIZE};
use crate::page_code::PageCode;
use crate::tier::{Compiler, Heat};
use crate::vm::VmShared;
use crate::words::Words;
use std::sync::Arc;

/// Ops of the first arena chunk: 256 KiB,
const FIRST_CHUNK_OPS: usize = 8192;
/// and of all others: 2 MiB, which hosts back with one page if they can. Pages of
/// 4 KiB cost more than decoding what fills them.
const CHUNK_OPS: usize = 65536;
/// Ops that a vCPU may keep while it is idle.
const SMALL_OPS: usize = 1024;
/// Bytes of host code that it may keep beside them.
const SMALL_CODE_BYTES: usize = 32 << 10;
/// Chunks before the arena starts over: some 32 MiB of decoded code.
const MAX_CHUNKS: usize = 17;

/// Where a key has the offset in the page.
const OFFSET_OF_KEY: u64 = !PAGE_MASK & !3;
/// Where a key has the page.
const PAGE_OF_KEY: u64 = PAGE_MASK & !SP_OFF;

#[derive(Clone, Copy)]
struct Block {
    key: u64,
    entry: *mut Op,
    /// The block of the same page that was decoded before.
    next: Option<u32>,
    /// Offsets in the page of the first byte and after the last.
    start: u16,
    end: u16,
}

/// Ops, which stay where they are.
#[derive(Default)]
pub struct Arena {
    /// Each has room for [`CHUNK_OPS`], the first for [`FIRST_CHUNK_OPS`], and is never
    /// grown.
    chunks: Vec<Vec<Op>>,
}

impl Arena {
    fn fits(&self, count: usize) -> bool {
        let last = self.chunks.last();
        last.is_some_and(|chunk| chunk.len() + count <= chunk.capacity())
    }

    /// Whether `count` ops more can be placed.
    fn has_room(&self, count: usize) -> bool {
        self.fits(count) || self.chunks.len() < MAX_CHUNKS
    }

    /// Takes the `ops`, which get places one behind the other; `None` if there is
    /// no room.
    pub fn place(&mut self, ops: &mut Vec<Op>) -> Option<*mut Op> {
        self.has_room(ops.len()).then(|| self.put(ops))
    }

    fn place_one(&mut self, op: Op) -> Option<*mut Op> {
        self.has_room(1).then(|| {
            let (chunk, at) = self.chunk(1);
            chunk.push(op);
            // SAFETY: as in `put`.
            unsafe { chunk.as_mut_ptr().add(at) }
        })
    }

    /// The chunk with room for `count` ops, and how many it has.
    fn chunk(&mut self, count: usize) -> (&mut Vec<Op>, usize) {
        if !self.fits(count) {
            self.chunks.push(if self.chunks.is_empty() {
                Vec::with_capacity(FIRST_CHUNK_OPS)
            } else {
                let chunk = Vec::with_capacity(CHUNK_OPS);
                heap::prefer_huge_pages(&chunk);
                chunk
            });
        }
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        let at = chunk.len();
        (chunk, at)
    }

    fn put(&mut self, ops: &mut Vec<Op>) -> *mut Op {
        let (chunk, at) = self.chunk(ops.len());
        chunk.append(ops);
        // SAFETY: `at` is inside: ops were added just now. Not through a slice,
        // which would claim the ops before, some of which may be executing.
        unsafe { chunk.as_mut_ptr().add(at) }
    }

    fn is_large(&self) -> bool {
        self.chunks.len() > 1 || self.chunks.iter().any(|chunk| chunk.len() > SMALL_OPS)
    }
}

/// All decoded code of one vCPU.
pub struct CodeCache {
    jump: JumpCache,
    blocks: AddressMap<*mut Op>,
    /// The ops in front of blocks that went stale, to be in front of what is decoded at
    /// their places next: branches and the jump cache still lead to them.
    gone: AddressMap<*mut Op>,
    /// All blocks since the last restart, dropped ones included: there are no
    /// more than there is room for ops.
    list: Vec<Block>,
    /// By page, where its blocks begin in `list`.
    pages: AddressMap<PageCode>,
    /// What is being decoded.
    pub(crate) scratch: Vec<Op>,
    /// Where the ops are.
    arena: Arena,
    /// The words of blocks, if there is a tier that compiles them.
    words: Words,
    /// What compiles blocks.
    tier: Option<Box<dyn Compiler>>,
    /// What was decoded by others, before it is needed.
    ahead: Option<Arc<Store>>,
    /// The lines that were decoded, for others to read.
    lines: Arc<HeldLines>,
    /// What the entry of a block that is gone becomes: a handler that returns to
    /// the run loop.
    stale: Handler,
    /// Counts restarts, after which no op pointer from before is valid.
    pub epoch: u64,
}

impl CodeCache {
    /// An empty cache, with what it makes the entries of blocks that are gone.
    pub fn new(stale: Handler) -> Self {
        Self {
            jump: JumpCache::new(),
            blocks: AddressMap::default(),
            gone: AddressMap::default(),
            list: Vec::new(),
            pages: AddressMap::default(),
            scratch: Vec::new(),
            arena: Arena::default(),
            words: Words::default(),
            tier: None,
            ahead: None,
            lines: Arc::default(),
            stale,
            epoch: 0,
        }
    }

    /// Where the lines that it may hold code of are noted.
    pub fn lines(&self) -> &Arc<HeldLines> {
        &self.lines
    }

    /// Where virtual addresses continue.
    pub fn jumps(&mut self) -> &mut JumpCache {
        &mut self.jump
    }

    /// Drops everything. No op may be executing.
    pub fn clear(&mut self) {
        self.jump.clear();
        self.blocks.clear();
        self.gone.clear();
        self.list.clear();
        self.pages.clear();
        self.arena = Arena::default();
        self.words = Words::default();
        self.ahead = None;
        if let Some(tier) = &mut self.tier {
            tier.clear();
        }
        self.lines.clear();
        self.epoch += 1;
    }

    /// As [`CodeCache::clear`], and gives the memory back to the host. What
    /// [`JumpCache::ptr`] and [`CodeCache::lines`] gave before is not valid
    /// any more.
    pub fn release(&mut self) {
        let epoch = self.epoch + 1;
        let tier = self.tier.take().and_then(|tier| tier.fresh());
        *self = Self::new(self.stale);
        self.tier = tier;
        self.epoch = epoch;
    }

    /// In a forked process, before it opens or closes anything: parts from the
    /// process that the code was made in.
    pub fn part(&mut self) {
        if let Some(tier) = &mut self.tier {
            tier.part();
        }
    }

    /// Makes the code of another process's vCPU that of one here: which
    /// addresses it is reached by is not known yet.
    pub fn settle(&mut self, vm: &VmShared) {
        self.jump = JumpCache::new();
        if let Some(tier) = &mut self.tier {
            tier.settle(&vm.code_memory);
        }
        self.pages.keys().for_each(|page| vm.code_pages.note(*page));
    }

    /// Whether there is enough that [`CodeCache::release`] is worth it.
    pub fn is_large(&self) -> bool {
        self.arena.is_large() || self.ahead.is_some() || self.compiled_bytes() > SMALL_CODE_BYTES
    }

    /// Bytes of host code that there are.
    pub fn compiled_bytes(&self) -> usize {
        self.tier.as_ref().map_or(0, |tier| tier.bytes())
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
        let Some(PageCode { last, .. }) = self.pages.get_mut(&page) else {
            return;
        };
        let mut at = std::mem::take(last);
        while let Some(index) = at {
            let block = &mut self.list[index as usize];
            at = block.next;
            let from = page + u64::from(block.start);
            let to = page + u64::from(block.end);
            if to <= start || from >= end {
                block.next = last.replace(index);
                continue;
            }
            // Chained branches and the jump cache may still lead here: the
            // entry now sends them to the run loop. The memory stays.
            // SAFETY: blocks of this epoch live in chunks that are never freed
            // or moved before `clear`, which also drops this list, and the
            // owning thread, the only one to touch ops, is the caller.
            unsafe { (*block.entry).run = self.stale };
            self.blocks.remove(&block.key);
            if self.tier.is_some() {
                self.gone.insert(block.key, block.entry);
            }
        }
    }

    /// The block at `physical`, if it was decoded.
    pub fn find(&self, mode: Mode, physical: u64) -> Option<*const Op> {
        let entry = self.blocks.get(&mode.key(physical));
        entry.map(|entry| entry.cast_const())
    }

    /// Adds a block for the code at `physical`, whose instructions are `words`, and
    /// takes the `ops`, which began with [`CodeCache::begin`].
    pub fn insert(
        &mut self,
        mode: Mode,
        physical: u64,
        ops: &mut Vec<Op>,
        words: &[u32],
    ) -> *const Op {
        if !self.arena.has_room(ops.len()) {
            self.clear();
        }
        let mut entry = self.arena.put(ops);
        if self.tier.is_some() {
            // SAFETY: `begin` kept the place in front for it.
            entry = unsafe { self.head(mode, physical, entry, words) };
        }
        self.hold(mode, physical, entry, words.len());
        entry
    }

    /// Puts the op that leads to compiled code in front of a block, and returns where
    /// that is: at `entry`, or where the last block was entered that was decoded at
    /// `physical`.
    ///
    /// # Safety
    /// `entry` is a live op that is nothing yet, with the block behind it.
    unsafe fn head(&mut self, mode: Mode, physical: u64, entry: *mut Op, words: &[u32]) -> *mut Op {
        let Some(tier) = &mut self.tier else {
            return entry;
        };
        let offset = (physical & !PAGE_MASK) as u16;
        let place = self.words.keep(words);
        let header = tier.header(mode, offset, place, words.len() as u8);
        header.link.set(entry.wrapping_add(1));
        let entry = self.gone.remove(&mode.key(physical)).unwrap_or(entry);
        // SAFETY: the caller's, or the entry of a block that is gone, which lives as
        // long and is not executing: handlers have left it for what it leads to.
        unsafe { entry.write(header) };
        entry
    }

    /// Has the `count` instructions at `physical` from now on, at `entry`.
    fn hold(&mut self, mode: Mode, physical: u64, entry: *mut Op, count: usize) {
        let offset = (physical & !PAGE_MASK) as u16;
        let end = offset + 4 * count as u16;
        self.note(mode.key(physical), entry, end);
        self.lines
            .note(physical, (physical & PAGE_MASK) + u64::from(end));
    }

    /// The block for the code at `physical` that was decoded ahead, if there is one and
    /// its instructions are what `fetch` reads now. What is decoded ahead is in what
    /// `store` gives.
    pub fn adopt(
        &mut self,
        mode: Mode,
        physical: u64,
        store: impl FnOnce() -> Option<Arc<Store>>,
        mut fetch: impl FnMut(usize) -> u32,
    ) -> Option<*const Op> {
        if self.ahead.is_none()
            && let Some(store) = store()
        {
            self.ahead = Some(store);
            self.jump.make_own();
        }
        let ahead = self.ahead.take()?;
        // SAFETY: only the thread that has the code takes from it.
        let found = unsafe { ahead.take(mode.key(physical)) };
        let entry = found.and_then(|(place, words)| {
            let mut numbered = words.iter().enumerate();
            if !numbered.all(|(n, word)| fetch(n) == *word) {
                return None;
            }
            let entry = if self.tier.is_some() {
                // SAFETY: the place that was left for it. It lives as long as all code,
                // since the store stays until then, and is given once.
                unsafe { self.head(mode, physical, place, words) }
            } else {
                place.wrapping_add(1)
            };
            self.hold(mode, physical, entry, words.len());
            Some(entry.cast_const())
        });
        self.ahead = Some(ahead);
        entry
    }

    /// What the ops of a new block begin with: room for the one that leads to
    /// compiled code, if any is made.
    pub fn begin(&self, ops: &mut Vec<Op>) {
        if self.tier.is_some() {
            ops.push(Op::new(self.stale));
        }
    }

    /// What compiles blocks from now on. The cache is empty yet.
    pub fn set_tier(&mut self, tier: Option<Box<dyn Compiler>>) {
        self.tier = tier;
    }

    /// Compiles the block behind `header`, as [`Compiler::compile`], which says what
    /// `inexact` is, and returns as that does.
    ///
    /// # Safety
    /// `header` is the entry of one of these blocks.
    pub unsafe fn compile(&mut self, header: *mut Op, inexact: bool) -> usize {
        let Some(tier) = &mut self.tier else {
            return 0;
        };
        let arena = &mut self.arena;
        // SAFETY: the caller's; entries live as long as the arena.
        unsafe { tier.compile(header, &self.words, &mut |ops| arena.place(ops), inexact) }
    }

    /// The op that a block's entry leads to.
    fn first_of(&self, block: &Block) -> *const Op {
        if self.tier.is_some() {
            // SAFETY: the entry is a live op, which `Compiler::header` made.
            unsafe { (*block.entry).link.get() }
        } else {
            block.entry
        }
    }

    /// An entry at `op`, which is `skipped` instructions behind that of `block`, for the
    /// code of `key`.
    fn entry_inside(
        &mut self,
        mode: Mode,
        key: u64,
        block: &Block,
        op: *const Op,
        skipped: usize,
    ) -> Option<*mut Op> {
        let Some(tier) = &mut self.tier else {
            return Some(op.cast_mut());
        };
        // SAFETY: as in `first_of`.
        let header = unsafe { &*block.entry };
        // SAFETY: a live op of the block.
        let offset = unsafe { (*op).pc_offset };
        let words = Heat::words(header.imm) + skipped as u32;
        let count = usize::from(header.rd).saturating_sub(skipped);
        let inside = tier.header(mode, offset, words, count as u8);
        inside.link.set(op);
        let Some(entry) = self.gone.remove(&key) else {
            return self.arena.place_one(inside);
        };
        // SAFETY: as in `head`.
        unsafe { entry.write(inside) };
        Some(entry)
    }

    /// Notes that the code of `key` up to offset `end` of its page is at
    /// `entry`.
    fn note(&mut self, key: u64, entry: *mut Op, end: u16) {
        // Growing by so much moves what is there less often.
        if self.blocks.len() == self.blocks.capacity() {
            self.blocks.reserve(3 * self.blocks.len());
        }
        self.blocks.insert(key, entry);
        let page = self.pages.entry(key & PAGE_OF_KEY).or_default();
        let next = page.last.replace(self.list.len() as u32);
        let start = (key & OFFSET_OF_KEY) as u16;
        page.cover(start, end);
        self.list.push(Block {
            key,
            entry,
            next,
            start,
            end,
        });
    }

    /// A block that runs over `physical`, entered there: it was decoded from
    /// somewhere before. Even the second op of a fused pair can be entered.
    pub fn enter(&mut self, mode: Mode, physical: u64) -> Option<*const Op> {
        let key = mode.key(physical);
        let offset = (physical & !PAGE_MASK) as u16;
        let page = self.pages.get(&(key & PAGE_OF_KEY))?;
        if !page.may_have(offset) {
            return None;
        }
        let mut at = page.last;
        loop {
            let block = self.list[at? as usize];
            at = block.next;
            let is_same_mode = (block.key ^ key) & !OFFSET_OF_KEY == 0;
            if !is_same_mode || offset < block.start || offset >= block.end {
                continue;
            }
            let skipped = usize::from(offset - block.start) / 4;
            // SAFETY: the block lives (see `invalidate_in_page`), has an op for
            // each instruction from `start` to `end`, in order, and further
            // ones only behind those: the search ends at or before the last.
            let op = unsafe {
                let mut op = self.first_of(&block).add(skipped);
                while (*op).pc_offset != offset {
                    op = op.add(1);
                }
                op
            };
            let entry = self.entry_inside(mode, key, &block, op, skipped)?;
            self.note(key, entry, block.end);
            return Some(entry);
        }
    }
}

// SAFETY: all its pointers lead to ops it owns or to null, so it takes them
// along to whichever thread has it.
unsafe impl Send for CodeCache {}

#[cfg(test)]
mod tests;
