//! Translation contexts: which TLB bank is in use, how it is filled, and what
//! TLB maintenance drops.

use crate::code::SP_OFF;
use crate::cpu::Cpu;
use crate::held::HeldPages;
use crate::link::VcpuShared;
use crate::mail::TlbInvalidate;
use crate::phys::MemoryFlags;
use crate::tlb::{self, Bank, Fill, PAGE_MASK, PAGE_SIZE, Space};
use crate::walk::{Access, Controls, Fault, Mapping, Privilege, fsc, strip_tag, walk};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Address spaces a vCPU keeps translations of at once.
const USER_BANKS: usize = 6;

/// Where other vCPUs find what those of EL1 hold, before that of address spaces.
const KERNEL_BANKS: usize = 3;

/// TLB banks and the generations that name their code.
pub struct Mmu {
    kernel: Bank,
    /// EL1 with PSTATE.PAN = 0: the kernel's short windows onto user memory.
    pan_off: Bank,
    /// Up to [`USER_BANKS`], made as address spaces come.
    users: Vec<Bank>,
    current_user: Option<usize>,
    clock: u64,
    next_generation: u64,
    /// Code of the low half executed at EL1 (identity-mapped boot code).
    low_kernel: u64,
    /// The pages of that code.
    low_code: Arc<HeldPages>,
    /// What others see of it.
    shared: Arc<VcpuShared>,
    /// Code of the high half executed at EL0.
    high_user: u64,
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

    fn renew_low_kernel(&mut self) {
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
    /// [`Cpu::translation_changed`] must be called.
    fn release(&mut self) {
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

    /// The bank of `space`, taking over the least recently used one if new.
    fn user_bank(&mut self, space: Space) -> usize {
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

/// Above this many pages a range invalidation drops whole contexts instead.
const MAX_PAGES: u64 = 512;

/// Where an access goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Physical address.
    pub physical: u64,
    /// Host address, or `None` where no RAM is mapped for this access.
    pub host: Option<u64>,
    /// RAM is mapped there, but not for this access.
    pub denied: bool,
    /// The mapping is of a Device memory type.
    pub device: bool,
}

impl Cpu {
    fn controls(&self) -> Controls {
        Controls {
            sctlr: self.sys.sctlr,
            tcr: self.sys.tcr,
            ttbr0: self.sys.ttbr0,
            ttbr1: self.sys.ttbr1,
            mair: self.sys.mair,
        }
    }

    /// The address space that the translation registers name now.
    fn space(&self) -> Space {
        // TCR.A1 chooses the register, TCR.AS the width of the ASID.
        let from = if self.sys.tcr >> 22 & 1 != 0 {
            self.sys.ttbr1
        } else {
            self.sys.ttbr0
        };
        let asid = (from >> 48) as u16;
        Space {
            table: self.sys.ttbr0 & 0x0000_ffff_ffff_fffe,
            asid: if self.sys.tcr >> 36 & 1 != 0 {
                asid
            } else {
                asid & 0xff
            },
        }
    }

    /// Points the handlers' views at the banks of the current context. Called
    /// whenever the exception level, PAN, the address space or the alignment of
    /// the stack pointer changed.
    pub fn refresh_context(&mut self) {
        if self.pstate.el == 0 {
            let at = self.current_user();
            self.tlb = self.mmu.users[at].as_mut_ptr();
            self.context = [self.mmu.users[at].generation, self.mmu.high_user];
        } else {
            let bank = if self.pstate.pan {
                &mut self.mmu.kernel
            } else {
                &mut self.mmu.pan_off
            };
            self.tlb = bank.as_mut_ptr();
            self.context = [self.mmu.low_kernel, self.mmu.kernel.generation];
        }
        self.sp_off = self.is_stack_off();
        if self.sp_off {
            self.context = self.context.map(|context| context | SP_OFF);
        }
    }

    fn current_user(&mut self) -> usize {
        if let Some(at) = self.mmu.current_user {
            return at;
        }
        let space = self.space();
        let at = self.mmu.user_bank(space);
        self.mmu.current_user = Some(at);
        self.tlb_user = self.mmu.users[at].as_mut_ptr();
        at
    }

    /// After a write to a translation table base register.
    pub fn space_changed(&mut self) {
        self.mmu.current_user = None;
        self.tlb_user = tlb::nothing();
        self.mmu.pan_off.flush();
        self.mmu.renew_low_kernel();
        // Before anything of that space is used, the run loop looks at the mail.
        self.shared.held.space.set(self.space().asid);
        self.refresh_context();
    }

    /// After a write that changes how everything is translated.
    pub fn translation_changed(&mut self) {
        self.mmu.flush_all();
        self.space_changed();
    }

    /// Gives back to the host what can be found out again: for a vCPU that has
    /// nothing to do. No op may be executing.
    pub fn release_caches(&mut self) {
        self.code.release();
        self.code_replaced();
        self.link_from = std::ptr::null();
        self.mmu.release();
        self.translation_changed();
        crate::heap::trim();
    }

    /// Applies a TLB maintenance operation to this vCPU.
    pub fn invalidate(&mut self, what: TlbInvalidate) {
        match what {
            TlbInvalidate::Asid(asid) => self.mmu.flush_space(asid),
            TlbInvalidate::Va { va, asid, pages } if pages <= MAX_PAGES => {
                self.invalidate_pages(va, pages, Some(asid));
            }
            TlbInvalidate::VaAllAsids { va, pages } if pages <= MAX_PAGES => {
                self.invalidate_pages(va, pages, None);
            }
            _ => self.mmu.flush_all(),
        }
        self.refresh_context();
    }

    fn invalidate_pages(&mut self, va: u64, pages: u64, asid: Option<u16>) {
        for page in 0..pages {
            self.mmu.flush_page(va.wrapping_add(page * PAGE_SIZE), asid);
        }
    }

    /// Host address of `pa` if RAM there allows `access`.
    fn host(&self, pa: u64, access: Access) -> Option<u64> {
        let backing = self.view.lookup(pa)?;
        let needed = match access {
            Access::Read => MemoryFlags::READ,
            Access::Write => MemoryFlags::WRITE,
            Access::Fetch => MemoryFlags::EXEC,
        };
        backing
            .flags
            .contains(needed)
            .then_some(backing.host as u64)
    }

    /// Walks the tables for `va`, tag included.
    pub fn walk(&self, va: u64, user: bool) -> Result<Mapping, Fault> {
        let stripped = strip_tag(va, self.sys.tcr);
        walk(stripped, user, &self.controls(), |at| {
            let host = self.host(at, Access::Read)?;
            // SAFETY: the map's view says that readable memory is there, in
            // units of 16 KiB, so 8 bytes at an address aligned to 8, as
            // descriptors are, lie in it. Guest RAM is shared
            // with other threads, hence the atomic.
            Some(unsafe { (*(host as *const AtomicU64)).load(Ordering::Relaxed) })
        })
    }

    /// Translates an access that does not leave its page, fills the TLB.
    /// `user` asks for EL0 rights (at EL0, and for LDTR and STTR).
    pub fn translate(&mut self, va: u64, access: Access, user: bool) -> Result<Target, Fault> {
        self.shared.held.looking.begin();
        let found = self.translate_now(va, access, user);
        // What the TLB does not keep is used after this: others must not take
        // the vCPU for one that has nothing of it before it looks again.
        if !found.as_ref().is_ok_and(|target| target.device) {
            self.shared.held.looking.end();
        }
        found
    }

    fn translate_now(&mut self, va: u64, access: Access, user: bool) -> Result<Target, Fault> {
        let privilege = Privilege {
            user,
            pan: self.pstate.pan,
        };
        let mapping = self.walk(va, user)?;
        if !mapping.allows(access, privilege) {
            return Err(Fault(fsc::PERMISSION | mapping.level));
        }
        let physical = mapping.page | (va & !PAGE_MASK);
        let device = mapping.attribute & 0xf0 == 0;
        let host = self.host(physical, access);
        let denied = host.is_none() && self.view.lookup(physical).is_some();
        if access == Access::Write && host.is_some() {
            self.dirty.mark(physical);
        }
        if let (Some(host), false) = (host, device) {
            // Filled under the untagged address, the one that TLBI names.
            let page = strip_tag(va, self.sys.tcr) & PAGE_MASK;
            self.fill(page, host & PAGE_MASK, &mapping, privilege);
        }
        Ok(Target {
            physical,
            host,
            denied,
            device,
        })
    }

    fn fill(&mut self, page: u64, host: u64, mapping: &Mapping, privilege: Privilege) {
        let may =
            |access| mapping.allows(access, privilege) && self.host(mapping.page, access).is_some();
        let fill = Fill {
            page,
            host,
            physical: mapping.page,
            read: may(Access::Read),
            write: may(Access::Write) && self.dirty.is_noted(mapping.page),
            exec: may(Access::Fetch),
            block_bytes: mapping.block_bytes,
        };
        let bank = if privilege.user {
            let at = self.current_user();
            &mut self.mmu.users[at]
        } else if privilege.pan {
            &mut self.mmu.kernel
        } else {
            &mut self.mmu.pan_off
        };
        if bank.fill(&fill) {
            self.banks_moved();
        }
    }

    /// Points the handlers' views at where the banks they show are now.
    fn banks_moved(&mut self) {
        if let Some(at) = self.mmu.current_user {
            self.tlb_user = self.mmu.users[at].as_mut_ptr();
        }
        self.tlb = if self.pstate.el == 0 {
            self.tlb_user
        } else if self.pstate.pan {
            self.mmu.kernel.as_mut_ptr()
        } else {
            self.mmu.pan_off.as_mut_ptr()
        };
    }

    /// Physical and host address of the instruction at `pc`, if the TLB has
    /// them. Either way the page counts as one with code from now on.
    pub fn fetch_cached(&mut self, pc: u64) -> Option<(u64, u64)> {
        let hit = if self.pstate.el == 0 {
            let at = self.current_user();
            self.mmu.users[at].note_code(pc);
            self.mmu.users[at].fetch(pc)
        } else if self.pstate.pan {
            self.mmu.kernel.fetch(pc)
        } else {
            self.mmu.pan_off.fetch(pc)
        };
        // The kernel's generation also covers the high half at EL0.
        if pc >> 63 != 0 {
            self.mmu.kernel.note_code(pc);
        } else if self.pstate.el != 0 {
            self.mmu.low_code.note_code(pc);
        }
        hit
    }

    /// AT S1E0R and its kin: the value for PAR_EL1.
    pub fn address_translate(&self, va: u64, write: bool, user: bool) -> u64 {
        let access = if write { Access::Write } else { Access::Read };
        let privilege = Privilege { user, pan: false };
        self.shared.held.looking.begin();
        let mapping = self.walk(va, user);
        self.shared.held.looking.end();
        let result = mapping.and_then(|mapping| {
            if mapping.allows(access, privilege) {
                Ok(mapping)
            } else {
                Err(Fault(fsc::PERMISSION | mapping.level))
            }
        });
        match result {
            // PA at 47:12, memory attribute at 63:56, RES1 bit 11, SH inner.
            Ok(mapping) => mapping.page | u64::from(mapping.attribute) << 56 | 1 << 11 | 3 << 7,
            Err(Fault(code)) => 1 | u64::from(code) << 1 | 1 << 11,
        }
    }
}
