//! Finding and decoding the block at an address.

use crate::cpu::Cpu;
use crate::cpu::op::{self, Op};
use crate::exec::bind;
use crate::fp::format::IXC;
use crate::mode::Mode;
use crate::page::{PAGE_MASK, PAGE_SIZE};
use crate::tier::Tier;
use crate::work;
use std::time::Instant;

/// Instructions per block at most.
pub const MAX_BLOCK: usize = 64;

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

    /// Points handlers and other vCPUs at the code cache that there is now.
    pub fn code_replaced(&mut self) {
        self.jump = self.code.jumps().ptr();
        self.shared.held.set_lines(self.code.lines());
    }

    /// The block at physical address `physical`, whose host copy is at `host`.
    pub fn block_at(&mut self, physical: u64, host: u64) -> *const Op {
        let mode = self.mode();
        if let Some(op) = self.code.find(mode, physical) {
            return op;
        }
        if let Some(op) = self.code.enter(mode, physical) {
            return op;
        }
        let offset = physical & !PAGE_MASK;
        let room = ((PAGE_SIZE - offset) / 4) as usize;
        // From the first word read until the lines are noted.
        self.shared.held.looking.begin();
        if let Some(entry) = self.adopt(mode, physical, host) {
            self.shared.held.looking.end();
            return entry;
        }
        let begun = work::begin(self.vm.ahead.counts().decoded);
        let mut ops = std::mem::take(&mut self.code.scratch);
        self.code.begin(&mut ops);
        let most = match self.vm.tier {
            Tier::Count => 1,
            _ => MAX_BLOCK,
        };
        // What is compiled later is what was decoded, whatever is there then.
        let mut words = [0; MAX_BLOCK];
        let count = bind::block(&mut ops, mode, offset as u16, room.min(most), |n| {
            // SAFETY: `host` backs `physical`, mapped in whole pages, and
            // `room` ends at the page's end.
            words[n] = unsafe { word(host, n) };
            words[n]
        });
        self.vm.ahead.decoded(mode.key(physical));
        self.vm.code_pages.note(physical);
        let entry = self.code.insert(mode, physical, &mut ops, &words[..count]);
        self.code.scratch = ops;
        self.vm.work.end(begun, count);
        self.shared.held.looking.end();
        entry
    }

    /// Compiles the block behind `header`. Not inlined, because a handler calls it.
    ///
    /// # Safety
    /// `header` is the entry of one of this vCPU's blocks.
    #[inline(never)]
    pub unsafe fn compile(&mut self, header: *mut Op) {
        let begun = Instant::now();
        let inexact = self.regs.fpsr & IXC != 0;
        // SAFETY: the caller's.
        let instructions = unsafe { self.code.compile(header, inexact) };
        self.vm.work.compiled(begun, instructions);
    }

    /// The block at `physical`, if it was decoded ahead.
    fn adopt(&mut self, mode: Mode, physical: u64, host: u64) -> Option<*const Op> {
        // They cannot be given to several, and have more than one instruction each.
        if self.index != 0 || self.vm.tier == Tier::Count {
            return None;
        }
        let ahead = &self.vm.ahead;
        let fetch = |n| {
            // SAFETY: `host` backs `physical`, mapped in whole pages, and what was
            // decoded ahead for `physical` ends at the page's end.
            unsafe { word(host, n) }
        };
        let entry = self.code.adopt(mode, physical, || ahead.store(), fetch)?;
        self.vm.ahead.took();
        self.vm.code_pages.note(physical);
        Some(entry)
    }
}

/// The `n`th instruction at `host`. Volatile, as the guest may be writing there from
/// another thread.
///
/// # Safety
/// It is guest memory.
unsafe fn word(host: u64, n: usize) -> u32 {
    let at = (host + 4 * n as u64) as *const u32;
    // SAFETY: the caller's.
    unsafe { at.read_volatile() }
}
