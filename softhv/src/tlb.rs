//! The software TLB: banks of pairs of entries, one bank per translation context.
//!
//! A bank stands for one context (the kernel's, or one address space's), so an
//! entry needs no ASID: switching address spaces swaps a pointer.

use crate::address_hash::AddressSet;
use crate::held::HeldPages;
use crate::page::{PAGE_MASK, PAGE_SIZE};
use crate::walk::Access;
use std::sync::Arc;

/// Pairs of entries per bank; a power of two.
pub const ENTRIES: usize = crate::held::TAGS;
/// Entries of a bank: first the first ones of all pairs, then the second ones.
const ALL: usize = crate::held::WAYS * ENTRIES;
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

impl Entry {
    /// The page it is for, if it allows anything.
    fn page(&self) -> Option<u64> {
        let tags = [self.read, self.write, self.exec];
        tags.into_iter().find(|tag| *tag != INVALID)
    }
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
static NOTHING: [Entry; ALL] = [EMPTY; ALL];

/// Where handlers index from when nothing is to hit.
pub fn nothing() -> *mut Entry {
    NOTHING.as_ptr().cast_mut()
}

/// The memory of a bank in use.
struct Filled {
    entries: Box<[Entry; ALL]>,
    /// Physical page of each entry, for fetches.
    physical: Box<[u64; ALL]>,
    /// Whether there is anything in second entries.
    has_second: bool,
}

impl Filled {
    fn new() -> Self {
        Self {
            entries: boxed(EMPTY),
            physical: boxed(0),
            has_second: false,
        }
    }

    /// Which entry allows `access` to `page`.
    fn find(&self, page: u64, access: Access) -> Option<usize> {
        places(page).into_iter().find(|at| {
            let entry = &self.entries[*at];
            let tag = match access {
                Access::Read => entry.read,
                Access::Write => entry.write,
                Access::Fetch => entry.exec,
            };
            tag == page
        })
    }

    fn clear(&mut self) {
        let used = if self.has_second { ALL } else { ENTRIES };
        self.entries[..used].fill(EMPTY);
        self.has_second = false;
    }
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

    /// Physical and host address of `va`, if the bank allows `access` to its page.
    pub fn find(&self, va: u64, access: Access) -> Option<(u64, u64)> {
        let filled = self.filled.as_ref()?;
        let at = filled.find(va & PAGE_MASK, access)?;
        let physical = filled.physical[at] | (va & !PAGE_MASK);
        Some((physical, va.wrapping_add(filled.entries[at].addend)))
    }

    /// Whether [`Bank::find`] finds it in the second entry of its pair.
    pub fn is_second(&self, va: u64, access: Access) -> bool {
        let page = va & PAGE_MASK;
        let found = self.filled.as_ref().and_then(|f| f.find(page, access));
        found.is_some_and(|at| at != index(page))
    }

    /// Makes the second entry of the pair of `va`'s page the first, which handlers look
    /// at.
    pub fn swap(&mut self, va: u64) {
        let Some(filled) = &mut self.filled else {
            return;
        };
        let [first, second] = places(va & PAGE_MASK);
        filled.entries.swap(first, second);
        filled.physical.swap(first, second);
        for at in [first, second] {
            if let Some(page) = filled.entries[at].page() {
                self.held.note(at, page);
            }
        }
    }

    /// Notes that the jump cache is about to know code of `va`'s page.
    pub fn note_code(&mut self, va: u64) {
        if self.code_pages.insert(va & PAGE_MASK) {
            self.held.note_code(va);
        }
    }

    /// Adds a translation, as the first of its pair. True if [`Bank::as_mut_ptr`] is
    /// another one now.
    pub fn fill(&mut self, fill: &Fill) -> bool {
        let moved = self.filled.is_none();
        let page = fill.page;
        self.make_room(page);
        let filled = self.filled.get_or_insert_with(Filled::new);
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

    /// Makes what `page`'s pair has of another page the second of it.
    fn make_room(&mut self, page: u64) {
        let Some(filled) = &mut self.filled else {
            return;
        };
        let [first, second] = places(page);
        if let Some(before) = filled.entries[first].page()
            && before != page
        {
            filled.entries[second] = filled.entries[first];
            filled.physical[second] = filled.physical[first];
            filled.has_second = true;
            // Before its other note goes.
            self.held.note(second, before);
        } else if filled.entries[second].page() == Some(page) {
            filled.entries[second] = EMPTY;
        }
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
                filled.clear();
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
            for at in places(page) {
                if filled.entries[at].page() == Some(page) {
                    filled.entries[at] = EMPTY;
                }
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

/// The number of the pair of `va`'s page, which is the index of its first entry.
#[inline(always)]
pub fn index(va: u64) -> usize {
    (va >> 12) as usize & (ENTRIES - 1)
}

/// Where a bank can have `page`.
fn places(page: u64) -> [usize; crate::held::WAYS] {
    [index(page), ENTRIES + index(page)]
}

fn boxed<T: Clone>(value: T) -> Box<[T; ALL]> {
    match vec![value; ALL].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("the vector has as many elements"),
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
        assert_eq!(
            bank.find(0x1004, Access::Fetch),
            Some((0x4000_0004, 0x7000_0004))
        );
        assert!(!bank.flush_page(0x2abc));
        assert!(!bank.fill(&fill(0x2000)));
        assert!(bank.flush_page(0x1abc));
        assert_eq!(bank.find(0x1000, Access::Read), None);
        assert!(bank.find(0x2000, Access::Read).is_some());
        assert_eq!(bank.find(0x2000, Access::Write), None);
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
        assert_eq!(bank.find(0x1000, Access::Read), None);
    }

    #[test]
    fn two_pages_of_one_pair_stay_and_the_older_makes_way_for_a_third() {
        let way = ENTRIES as u64 * PAGE_SIZE;
        let pages = [0x1000, 0x1000 + way, 0x1000 + 2 * way];
        let has = |bank: &Bank| pages.map(|page| bank.find(page, Access::Read).is_some());
        let mut bank = Bank::new();
        let _new = bank.fill(&fill(pages[0]));
        let _second = bank.fill(&fill(pages[1]));
        assert_eq!(has(&bank), [true, true, false]);
        // With another right it is the first, and there once.
        let written = Fill {
            write: true,
            ..fill(pages[0])
        };
        let _again = bank.fill(&written);
        assert!(bank.find(pages[0], Access::Write).is_some());
        assert_eq!(has(&bank), [true, true, false]);
        assert!(bank.is_second(pages[1], Access::Read));
        assert!(!bank.is_second(pages[1], Access::Write));
        assert!(!bank.is_second(pages[0], Access::Read));
        for page in [pages[1], pages[0]] {
            bank.swap(page);
            assert!(!bank.is_second(page, Access::Read));
            assert_eq!(has(&bank), [true, true, false]);
            assert!(bank.held().may_hold(pages[0], 1) && bank.held().may_hold(pages[1], 1));
        }
        let _third = bank.fill(&fill(pages[2]));
        assert_eq!(has(&bank), [true, false, true]);
        let held = pages.map(|page| bank.held().may_hold(page, 1));
        assert_eq!(held, [true, false, true]);
        bank.revoke_writes();
        assert_eq!(bank.find(pages[0], Access::Write), None);
        assert!(!bank.flush_page(pages[0]));
        assert_eq!(has(&bank), [false, false, true]);
        let _back = bank.fill(&fill(pages[1]));
        bank.flush();
        assert_eq!(has(&bank), [false; 3]);
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
        assert_eq!(
            bank.find(0x1004, Access::Fetch),
            None,
            "not noted, so not there"
        );
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
        assert_eq!(bank.find(0x1004, Access::Fetch), None);
        assert!(bank.fill(&fill(0x1000)));
        assert_eq!(
            bank.find(0x1004, Access::Fetch),
            Some((0x4000_0004, 0x7000_0004))
        );
    }
}
