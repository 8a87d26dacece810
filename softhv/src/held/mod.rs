//! What a vCPU may hold of translations and decoded code, for others to read:
//! who invalidates something tells only those that may hold it, and waits only
//! for those that may be using it.
//!
//! # Why a vCPU that is not told needs not be
//! The one that changes a translation table or code stores, passes a full
//! barrier and then reads what is here. The one that looks at tables or code sets
//! [`Looking`], passes a full barrier, reads them, notes here what it keeps of
//! it, and clears [`Looking`]. One of the barriers comes first: if the reader's
//! does, the changer sees that it is looking, or what it has noted; if the
//! changer's does, the reader sees what is new. Whatever is noted stays until
//! after the last use: notes are taken back by the vCPU that made them, after it
//! has dropped what they stand for.
//!
//! Notes may say too much and never too little.

mod lines;
mod looking;
mod pages;
mod space;

pub use lines::HeldLines;
pub use looking::Looking;
pub use pages::{HeldPages, TAGS, WAYS};
pub use space::CurrentSpace;

use crate::mail::{CodeRange, TlbInvalidate};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a vCPU has of what a message is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// Nothing: it need not be told.
    Nowhere,
    /// Only in this address space, which it cannot use before it makes that
    /// the current one, and takes its mail after that.
    InSpace(u16),
    /// It may be using it.
    Anywhere,
}

/// Where the notes are. They are replaced when their memory is given back.
#[derive(Debug, Default)]
struct Notes {
    /// By number of the bank: the address space it is for, none for those of
    /// EL1, and what it holds.
    banks: Vec<(Option<u16>, Arc<HeldPages>)>,
    lines: Arc<HeldLines>,
}

/// What one vCPU may hold.
#[derive(Debug)]
pub struct Held {
    /// Set while it walks translation tables or decodes.
    pub looking: Looking,
    /// The address space it uses.
    pub space: CurrentSpace,
    notes: Mutex<Notes>,
}

impl Held {
    /// Nothing.
    pub fn new() -> Self {
        Self {
            looking: Looking::default(),
            space: CurrentSpace::new(),
            notes: Mutex::default(),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bank `number` is for `space`, or for EL1, and notes in `pages`. Owner
    /// only, before the bank is filled.
    pub fn set_bank(&self, number: usize, space: Option<u16>, pages: &Arc<HeldPages>) {
        let bank = (space, Arc::clone(pages));
        let mut notes = self.notes();
        if let Some(known) = notes.banks.get_mut(number) {
            *known = bank;
        } else {
            notes.banks.push(bank);
        }
    }

    /// There are only the first `count` banks.
    pub fn keep_banks(&self, count: usize) {
        self.notes().banks.truncate(count);
    }

    /// Code is noted in `lines`. Owner only, before it decodes.
    pub fn set_lines(&self, lines: &Arc<HeldLines>) {
        self.notes().lines = Arc::clone(lines);
    }

    /// What the vCPU has of what `message` is about. After a full barrier.
    pub fn presence(&self, message: &TlbInvalidate) -> Presence {
        // Another sender looks, or the owner is about to hold something else:
        // what it needs not be told costs it little.
        let Ok(notes) = self.notes.try_lock() else {
            return Presence::Anywhere;
        };
        if self.looking.is_on() {
            return Presence::Anywhere;
        }
        let (va, pages, only) = match *message {
            TlbInvalidate::All => return Presence::Anywhere,
            TlbInvalidate::Asid(asid) => {
                let mut spaces = notes.banks.iter().map(|(space, _)| *space);
                return if self.space.is(asid) || spaces.any(|space| space == Some(asid)) {
                    Presence::InSpace(asid)
                } else {
                    Presence::Nowhere
                };
            }
            TlbInvalidate::Va { va, asid, pages } => (va, pages, Some(asid)),
            TlbInvalidate::VaAllAsids { va, pages } => (va, pages, None),
        };
        let mut presence = Presence::Nowhere;
        for (space, held) in &notes.banks {
            let concerned = space.is_none() || only.is_none() || *space == only;
            if !concerned || !held.may_hold(va, pages) {
                continue;
            }
            match (space, only) {
                (Some(_), Some(asid)) => presence = Presence::InSpace(asid),
                _ => return Presence::Anywhere,
            }
        }
        presence
    }

    /// Whether the vCPU may hold code of `range`. After a full barrier.
    pub fn may_hold_code(&self, range: CodeRange) -> bool {
        let Ok(notes) = self.notes.try_lock() else {
            return true;
        };
        self.looking.is_on() || notes.lines.may_hold(range.pa, range.end())
    }
}

impl Default for Held {
    fn default() -> Self {
        Self::new()
    }
}
