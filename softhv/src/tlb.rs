//! The software TLB: direct-mapped banks, one per translation context.
//!
//! A bank stands for one context (the kernel's, or one address space's), so an
//! entry needs no ASID: switching address spaces swaps a pointer.

use crate::address_hash::AddressSet;
use crate::held::HeldPages;
use crate::page::{PAGE_MASK, PAGE_SIZE};
use std::sync::Arc;

/// Entries per bank; a power of two.
pub const ENTRIES: usize = crate::held::TAGS;
/// A tag that no masked address equals: bit 11 is outside every mask used.
const INVALID: u64 = 0x800;

/// One translation: three tags, so that a compare checks page and right at once.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
pub struct Entry {
    /// Page address if readable, else invalid.
    pub read: u64,
    /// Page address if writable without a detour, else invalid.
    pub write: u64,
    /// Page address if executable, else invalid.
    pub exec: u64,
    /// Added to a virtual address to get the host address.
    pub addend: u64,
}

const EMPTY: Entry = Entry {
    read: INVALID,
    write: INVALID,
    exec: INVALID,
    addend: 0,
};

/// What a fill puts into an entry.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// Page-aligned virtual address.
    pub page: u64,
    /// Page-aligned host address.
    pub host: u64,
    /// Page-aligned physical address.
    pub physical: u64,
    /// Readable in this context.
    pub read: bool,
    /// Writable in this context.
    pub write: bool,
    /// Executable in this context.
    pub exec: bool,
    /// Bytes that the translation covers: more than a page for block entries.
    pub block_bytes: u64,
}

/// What a bank without entries shows handlers, which only read. Constant, so
/// that all processes share it.
static NOTHING: [Entry; ENTRIES] = [EMPTY; ENTRIES];

/// Where handlers index from when nothing is to hit.
pub fn nothing() -> *mut Entry {
    NOTHING.as_ptr().cast_mut()
}

/// The memory of a bank in use.
struct Filled {
    entries: Box<[Entry; ENTRIES]>,
    /// Physical page of each entry, for fetches.
    physical: Box<[u64; ENTRIES]>,
}

/// One translation context's entries.
pub struct Bank {
    /// Made by the first fill.
    filled: Option<Filled>,
    /// Address space this bank holds, for user banks.
    pub space: Option<Space>,
    /// Names this content to the jump cache; renewed when code pages go.
    pub generation: u64,
    /// Last use, for replacement.
    pub used: u64,
    /// Pages that the jump cache may know under [`Bank::generation`].
    code_pages: AddressSet,
    /// What it has and had code of, for others to read.
    held: Arc<HeldPages>,
    /// Virtual range covered by block mappings: a TLBI inside drops the bank.
    blocks: (u64, u64),
    empty: bool,
}

/// What tells one address space from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// TTBR0_EL1.BADDR.
    pub table: u64,
    /// Address space identifier.
    pub asid: u16,
}

impl Bank {
    /// An empty bank.
    pub fn new() -> Self {
        Self {
            filled: None,
            space: None,
            generation: 0,
            used: 0,
            code_pages: AddressSet::default(),
            held: Arc::default(),
            blocks: (u64::MAX, 0),
            empty: true,
        }
    }

    /// Where the pages that it may know are noted; another place after
    /// [`Bank::release`].
    pub fn held(&self) -> &Arc<HeldPages> {
        &self.held
    }

    /// Where handlers index from, to read; valid until the next
    /// [`Bank::release`], or [`Bank::fill`] of a bank without memory.
    pub fn as_mut_ptr(&mut self) -> *mut Entry {
        match &mut self.filled {
            Some(filled) => filled.entries.as_mut_ptr(),
            None => nothing(),
        }
    }

    /// The entry that `va` maps to.
    pub fn entry(&self, va: u64) -> &Entry {
        match &self.filled {
            Some(filled) => &filled.entries[index(va)],
            None => &EMPTY,
        }
    }

    /// Physical and host address of an instruction, if the bank has its page.
    pub fn fetch(&self, pc: u64) -> Option<(u64, u64)> {
        let filled = self.filled.as_ref()?;
        let entry = &filled.entries[index(pc)];
        (entry.exec == pc & PAGE_MASK).then(|| {
            let physical = filled.physical[index(pc)] | (pc & !PAGE_MASK);
            (physical, pc.wrapping_add(entry.addend))
        })
    }

    /// Notes that the jump cache is about to know code of `va`'s page.
    pub fn note_code(&mut self, va: u64) {
        if self.code_pages.insert(va & PAGE_MASK) {
            self.held.note_code(va);
        }
    }

    /// Adds a translation. True if [`Bank::as_mut_ptr`] is another one now.
    pub fn fill(&mut self, fill: &Fill) -> bool {
        let moved = self.filled.is_none();
        let filled = self.filled.get_or_insert_with(|| Filled {
            entries: boxed(EMPTY),
            physical: boxed(0),
        });
        let page = fill.page;
        let addend = fill.host.wrapping_sub(page);
        let tag = |allowed: bool| if allowed { page } else { INVALID };
        filled.entries[index(page)] = Entry {
            read: tag(fill.read),
            write: tag(fill.write),
            exec: tag(fill.exec),
            addend,
        };
        filled.physical[index(page)] = fill.physical;
        if fill.block_bytes > PAGE_SIZE {
            let start = page & !(fill.block_bytes - 1);
            self.blocks.0 = self.blocks.0.min(start);
            self.blocks.1 = self.blocks.1.max(start | (fill.block_bytes - 1));
            self.held.note_blocks(self.blocks);
        }
        self.held.note(index(page), page);
        self.empty = false;
        moved
    }

    /// Notes a page that is about to be used without an entry.
    pub fn note_unfilled(&mut self, page: u64) {
        // One note for each entry: what is there now goes.
        if let Some(filled) = &mut self.filled {
            filled.entries[index(page)] = EMPTY;
        }
        self.held.note(index(page), page);
        self.empty = false;
    }

    /// Drops everything and gives the memory back to the host.
    pub fn release(&mut self) {
        self.flush();
        self.filled = None;
        self.code_pages = AddressSet::default();
        self.held = Arc::default();
    }

    /// Drops everything.
    pub fn flush(&mut self) {
        if !self.empty {
            if let Some(filled) = &mut self.filled {
                filled.entries.fill(EMPTY);
            }
            self.blocks = (u64::MAX, 0);
            self.held.clear();
            self.empty = true;
        }
        self.code_pages.clear();
    }

    /// Drops the page at `va`; true if the jump cache may know its code, in
    /// which case the caller gives [`Bank::renew`] a new generation.
    #[must_use]
    pub fn flush_page(&mut self, va: u64) -> bool {
        if self.blocks.0 <= va && va <= self.blocks.1 {
            self.flush();
            return true;
        }
        let page = va & PAGE_MASK;
        if let Some(filled) = &mut self.filled {
            let entry = &mut filled.entries[index(page)];
            if entry.read == page || entry.write == page || entry.exec == page {
                *entry = EMPTY;
            }
        }
        self.code_pages.contains(&page)
    }

    /// Makes the jump cache forget this context.
    pub fn renew(&mut self, generation: u64) {
        self.generation = generation;
        self.code_pages.clear();
        self.held.clear_code();
    }

    /// Takes the direct write right from every entry, so that the next store
    /// to each page takes the slow path.
    pub fn revoke_writes(&mut self) {
        if let Some(filled) = &mut self.filled {
            for entry in filled.entries.iter_mut() {
                entry.write = INVALID;
            }
        }
    }
}

impl Default for Bank {
    fn default() -> Self {
        Self::new()
    }
}

/// The index of `va`'s page.
#[inline(always)]
pub fn index(va: u64) -> usize {
    (va >> 12) as usize & (ENTRIES - 1)
}

fn boxed<T: Clone>(value: T) -> Box<[T; ENTRIES]> {
    match vec![value; ENTRIES].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("the vector has ENTRIES elements"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(page: u64) -> Fill {
        Fill {
            page,
            host: 0x7000_0000,
            physical: 0x4000_0000,
            read: true,
            write: false,
            exec: true,
            block_bytes: PAGE_SIZE,
        }
    }

    #[test]
    fn page_flush_drops_one_page_and_reports_code() {
        let mut bank = Bank::new();
        assert!(bank.fill(&fill(0x1000)));
        assert!(!bank.fill(&fill(0x2000)));
        bank.note_code(0x1010);
        assert_eq!(bank.fetch(0x1004), Some((0x4000_0004, 0x7000_0004)));
        assert!(!bank.flush_page(0x2abc));
        assert!(!bank.fill(&fill(0x2000)));
        assert!(bank.flush_page(0x1abc));
        assert_ne!(bank.entry(0x1000).read, 0x1000);
        assert_eq!(bank.entry(0x2000).read, 0x2000);
        assert_ne!(bank.entry(0x2000).write, 0x2000);
    }

    #[test]
    fn a_page_inside_a_block_mapping_drops_the_bank() {
        let mut bank = Bank::new();
        let _first = bank.fill(&fill(0x1000));
        let _second = bank.fill(&Fill {
            block_bytes: 0x20_0000,
            ..fill(0x40_3000)
        });
        assert!(bank.flush_page(0x41_0000));
        assert_ne!(bank.entry(0x1000).read, 0x1000);
    }

    #[test]
    fn what_a_bank_holds_and_what_is_used_beside_it_is_noted_for_others() {
        let mut bank = Bank::new();
        let _first = bank.fill(&fill(0x1000));
        assert!(bank.held().may_hold(0x1000, 1));
        let same_index = 0x1000 + ENTRIES as u64 * PAGE_SIZE;
        bank.note_unfilled(same_index);
        assert!(bank.held().may_hold(same_index, 1));
        assert!(!bank.held().may_hold(0x1000, 1));
        assert_eq!(bank.fetch(0x1004), None, "not noted, so not there");
        bank.note_code(0x5010);
        bank.flush();
        assert!(!bank.held().may_hold(same_index, 1));
        assert!(bank.held().may_hold(0x5000, 1), "until the generation goes");
        bank.renew(7);
        assert!(!bank.held().may_hold(0x5000, 1));
    }

    #[test]
    fn a_released_bank_shows_handlers_entries_that_miss() {
        let mut bank = Bank::new();
        assert_eq!(bank.as_mut_ptr(), nothing());
        assert!(bank.fill(&fill(0x1000)));
        assert_ne!(bank.as_mut_ptr(), nothing());
        bank.release();
        assert_eq!(bank.as_mut_ptr(), nothing());
        assert_eq!(bank.fetch(0x1004), None);
        assert!(bank.fill(&fill(0x1000)));
        assert_eq!(bank.fetch(0x1004), Some((0x4000_0004, 0x7000_0004)));
    }
}
