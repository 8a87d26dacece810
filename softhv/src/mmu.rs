//! Translation contexts: which TLB banks there are, and what TLB maintenance
//! drops of them.

use crate::held::HeldPages;
use crate::link::VcpuShared;
use crate::mail::TlbInvalidate;
use crate::mode::SP_OFF;
use crate::page::PAGE_SIZE;
use crate::tlb::{Bank, Space};
use std::sync::Arc;

/// Address spaces a vCPU keeps translations of at once.
const USER_BANKS: usize = 6;

/// Where other vCPUs find what those of EL1 hold, before that of address spaces.
const KERNEL_BANKS: usize = 3;

/// Above this many pages a range invalidation drops whole contexts instead.
const MAX_PAGES: u64 = 512;

/// TLB banks and the generations that name their code.
pub struct Mmu {
    pub(crate) kernel: Bank,
    /// EL1 with PSTATE.PAN = 0: the kernel's short windows onto user memory.
    pub(crate) pan_off: Bank,
    /// Up to [`USER_BANKS`], made as address spaces come.
    pub(crate) users: Vec<Bank>,
    pub(crate) current_user: Option<usize>,
    clock: u64,
    next_generation: u64,
    /// Code of the low half executed at EL1 (identity-mapped boot code).
    pub(crate) low_kernel: u64,
    /// The pages of that code.
    pub(crate) low_code: Arc<HeldPages>,
    /// What others see of it.
    shared: Arc<VcpuShared>,
    /// Code of the high half executed at EL0.
    pub(crate) high_user: u64,
}

impl Mmu {
    /// Empty banks, of the vCPU of `shared`.
    pub fn new(shared: Arc<VcpuShared>) -> Self {
        let mut mmu = Self {
            kernel: Bank::new(),
            pan_off: Bank::new(),
            users: Vec::new(),
            current_user: None,
            clock: 0,
            next_generation: 0,
            low_kernel: 0,
            low_code: Arc::default(),
            shared,
            high_user: 0,
        };
        mmu.show_kernel_banks();
        mmu.flush_all();
        mmu
    }

    /// A number never used before, spread over all bits but [`SP_OFF`]: the
    /// jump cache mixes it into its index. Two of them differ in other bits
    /// too, since their counts would have to be 2^62 apart.
    fn generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !SP_OFF
    }

    fn renew_kernel(&mut self) {
        let generation = self.generation();
        self.kernel.renew(generation);
        self.high_user = self.generation();
    }

    /// Makes the jump cache forget code of the low half executed at EL1.
    pub fn renew_low_kernel(&mut self) {
        self.low_kernel = self.generation();
        self.low_code.clear_code();
    }

    /// Shows others where the banks that do not go with an address space note
    /// what they hold, and that there are no others.
    fn show_kernel_banks(&self) {
        let held = &self.shared.held;
        held.keep_banks(KERNEL_BANKS);
        for (number, pages) in [self.kernel.held(), self.pan_off.held(), &self.low_code]
            .into_iter()
            .enumerate()
        {
            held.set_bank(number, None, pages);
        }
    }

    fn flush_kernel(&mut self) {
        self.kernel.flush();
        self.pan_off.flush();
        self.renew_kernel();
        self.renew_low_kernel();
    }

    fn flush_user(&mut self, at: usize) {
        let generation = self.generation();
        self.users[at].flush();
        self.users[at].renew(generation);
    }

    /// Drops every translation and renews every generation.
    pub fn flush_all(&mut self) {
        self.flush_kernel();
        for at in 0..self.users.len() {
            self.flush_user(at);
        }
    }

    /// Gives the memory of all banks back to the host. Afterwards
    /// [`Cpu::translation_changed`](crate::cpu::Cpu::translation_changed) must be called.
    pub fn release(&mut self) {
        self.kernel.release();
        self.pan_off.release();
        self.users = Vec::new();
        self.current_user = None;
        self.show_kernel_banks();
    }

    /// Takes direct write access from every page of every bank.
    pub fn revoke_writes(&mut self) {
        self.kernel.revoke_writes();
        self.pan_off.revoke_writes();
        for bank in &mut self.users {
            bank.revoke_writes();
        }
    }

    fn flush_space(&mut self, asid: u16) {
        for at in 0..self.users.len() {
            if self.users[at].space.is_some_and(|space| space.asid == asid) {
                self.flush_user(at);
            }
        }
        // Low-half entries of the PAN window carry the current ASID.
        self.pan_off.flush();
        self.renew_low_kernel();
    }

    fn flush_page(&mut self, va: u64, asid: Option<u16>) {
        // Code of the EL1 banks is known under the kernel's generation, or,
        // in the low half, under one that is renewed here whatever the page.
        let _ = self.pan_off.flush_page(va);
        if self.kernel.flush_page(va) {
            self.renew_kernel();
        }
        if va >> 63 == 0 {
            self.renew_low_kernel();
        }
        for at in 0..self.users.len() {
            let ours = match (self.users[at].space, asid) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(space), Some(asid)) => space.asid == asid,
            };
            if ours && self.users[at].flush_page(va) {
                let generation = self.generation();
                self.users[at].renew(generation);
            }
        }
    }

    /// Drops what `what` names.
    pub fn invalidate(&mut self, what: TlbInvalidate) {
        match what {
            TlbInvalidate::Asid(asid) => self.flush_space(asid),
            TlbInvalidate::Va { va, asid, pages } if pages <= MAX_PAGES => {
                self.flush_pages(va, pages, Some(asid));
            }
            TlbInvalidate::VaAllAsids { va, pages } if pages <= MAX_PAGES => {
                self.flush_pages(va, pages, None);
            }
            _ => self.flush_all(),
        }
    }

    fn flush_pages(&mut self, va: u64, pages: u64, asid: Option<u16>) {
        for page in 0..pages {
            self.flush_page(va.wrapping_add(page * PAGE_SIZE), asid);
        }
    }

    /// The bank of `space`, taking over the least recently used one if new.
    pub fn user_bank(&mut self, space: Space) -> usize {
        self.clock += 1;
        let found = self.users.iter().position(|bank| bank.space == Some(space));
        let at = found.unwrap_or_else(|| {
            let at = if self.users.len() < USER_BANKS {
                self.users.push(Bank::new());
                self.users.len() - 1
            } else {
                let oldest = (0..self.users.len()).min_by_key(|&at| self.users[at].used);
                oldest.unwrap_or(0)
            };
            self.users[at].space = Some(space);
            self.flush_user(at);
            let pages = self.users[at].held();
            let held = &self.shared.held;
            held.set_bank(KERNEL_BANKS + at, Some(space.asid), pages);
            at
        });
        self.users[at].used = self.clock;
        at
    }
}
