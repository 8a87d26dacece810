//! Translation by a vCPU: which TLB bank is in use, and how it is filled.

use crate::cpu::Cpu;
use crate::mail::TlbInvalidate;
use crate::mode::SP_OFF;
use crate::page::PAGE_MASK;
use crate::phys::MemoryFlags;
use crate::tlb::{self, Bank, Fill, Space};
use crate::walk::{Access, Controls, Fault, Mapping, Privilege, fsc, strip_tag, walk};
use std::sync::atomic::{AtomicU64, Ordering};

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
        if self.index == 0 {
            self.vm.ahead.close();
        }
        self.code.release();
        self.code_replaced();
        self.link_from = std::ptr::null();
        self.mmu.release();
        self.translation_changed();
        crate::heap::trim();
    }

    /// Applies a TLB maintenance operation to this vCPU.
    pub fn invalidate(&mut self, what: TlbInvalidate) {
        self.mmu.invalidate(what);
        self.refresh_context();
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
        if let Some(target) = self.known(va, access, user) {
            return Ok(target);
        }
        self.shared.held.looking.begin();
        let found = self.translate_now(va, access, user);
        self.shared.held.looking.end();
        found
    }

    /// Where an access goes, if the TLB has it, as the first entry of its pair from now
    /// on: handlers of the interpreter look at no other.
    fn known(&mut self, va: u64, access: Access, user: bool) -> Option<Target> {
        let privilege = Privilege {
            user,
            pan: self.pstate.pan,
        };
        let at = strip_tag(va, self.sys.tcr);
        let bank = self.bank(privilege);
        let (physical, host) = bank.find(at, access)?;
        if bank.is_second(at, access) {
            // Both pages change places, and so do their notes.
            self.shared.held.looking.begin();
            self.bank(privilege).swap(at);
            self.shared.held.looking.end();
        }
        Some(Target {
            physical,
            host: Some(host),
            denied: false,
            device: false,
        })
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
        if let Some(host) = host {
            // Filled under the untagged address, the one that TLBI names.
            let page = strip_tag(va, self.sys.tcr) & PAGE_MASK;
            if device {
                self.bank(privilege).note_unfilled(page);
            } else {
                self.fill(page, host & PAGE_MASK, &mapping, privilege);
            }
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
        if self.bank(privilege).fill(&fill) {
            self.banks_moved();
        }
    }

    fn bank(&mut self, privilege: Privilege) -> &mut Bank {
        if privilege.user {
            let at = self.current_user();
            &mut self.mmu.users[at]
        } else if privilege.pan {
            &mut self.mmu.kernel
        } else {
            &mut self.mmu.pan_off
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
            self.mmu.users[at].find(pc, Access::Fetch)
        } else if self.pstate.pan {
            self.mmu.kernel.find(pc, Access::Fetch)
        } else {
            self.mmu.pan_off.find(pc, Access::Fetch)
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
    // Its stack slots must not become the handler's (see `cpu::op::Handler`).
    #[inline(never)]
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
