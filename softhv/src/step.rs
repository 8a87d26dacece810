//! Software step (Arm ARM D2.10): one instruction, then an exception, for a
//! debugger inside the guest.

use crate::cpu::op::Op;
use crate::cpu::{Cpu, RunExit};
use crate::decode::{self, Context};
use crate::dispatch;
use crate::exception::class;
use crate::exec::branch::{handler, pc_after};
use crate::page::PAGE_MASK;

/// MDSCR_EL1.SS and KDE.
const MDSCR_SS: u64 = 1 << 0;
const MDSCR_KDE: u64 = 1 << 13;
/// PSTATE.D where SPSR has it.
const DAIF_D: u64 = 1 << 9;
const SPSR_SS: u64 = 1 << 21;
/// ISS of a software step exception: IFSC debug, EX, and ISV.
const ISS_DEBUG: u64 = 0x22;
const ISS_EX: u64 = 1 << 6;
const ISS_ISV: u64 = 1 << 24;
/// No jump cache entry has this context, so every branch comes back.
const NO_CONTEXT: u64 = u64::MAX;

handler!(
    /// The end of a block of one instruction.
    after_step, |cpu, op| { (*cpu).pc = pc_after(cpu, op) }
);

impl Cpu {
    /// Whether stepping is on and debug exceptions come from `el` with
    /// PSTATE.D as in `daif`.
    fn steps_at(&self, el: u8, daif: u64) -> bool {
        let mdscr = self.sys.mdscr;
        let enabled = el == 0 || mdscr & MDSCR_KDE != 0 && daif & DAIF_D == 0;
        mdscr & MDSCR_SS != 0 && self.sys.os_lock == 0 && enabled
    }

    /// Whether the next instruction is stepped, or a step is to be reported.
    #[inline]
    pub fn is_stepping(&self) -> bool {
        self.sys.mdscr & MDSCR_SS != 0 && self.steps_at(self.pstate.el, self.pstate.daif)
    }

    /// What an exception return does with SPSR.SS: a step begins only where
    /// debug exceptions were off and will be on.
    pub fn returned_step(&self, spsr: u64) -> u64 {
        let here = self.steps_at(self.pstate.el, self.pstate.daif);
        let there = self.steps_at((spsr >> 2 & 1) as u8, spsr);
        if there && !here {
            spsr
        } else {
            spsr & !SPSR_SS
        }
    }

    /// Executes one instruction, or reports that one was.
    pub fn step(&mut self) {
        let pc = self.pc;
        if !self.pstate.ss {
            let same_level = u64::from(self.pstate.el != 0);
            let iss = match self.stepped.take() {
                Some(exclusive) => ISS_ISV | if exclusive { ISS_EX } else { 0 },
                None => 0,
            };
            self.raise(class::SOFTWARE_STEP | same_level, ISS_DEBUG | iss, pc);
            return;
        }
        let Some((word, offset)) = self.fetch_one() else {
            return;
        };
        let mode = self.mode();
        let mut op = decode::instruction(word, Context { mode, offset }).op;
        op.pc_offset = offset;
        let mut end = Op::new(after_step);
        end.pc_offset = offset;
        let ops = [op, end];
        self.regs.page = self.pc & PAGE_MASK;
        self.context = [NO_CONTEXT; 2];
        // SAFETY: a block of this thread's vCPU; the branch that would keep a
        // pointer into it is forgotten before it goes.
        unsafe { dispatch::execute(self, ops.as_ptr()) };
        self.link_from = std::ptr::null();
        self.refresh_context();
        self.advance(word, pc);
    }

    /// Moves on from PSTATE.SS = 1, which a fault of the instruction does not.
    fn advance(&mut self, word: u32, pc: u64) {
        // SVC, HVC, SMC: 1101_0100_000 imm16 000 LL. They count as executed.
        let calls = word & 0xffe0_001c == 0xd400_0000 && word & 3 != 0;
        if calls && !self.pstate.ss {
            self.sys.spsr &= !SPSR_SS;
        }
        // The monitor serves an access that left, and comes back behind it.
        let left = matches!(self.exit, Some(RunExit::Exception { .. })) && self.pc == pc;
        if self.pstate.ss && !left {
            self.pstate.ss = false;
            // LDXR and its kin: 001000 0 L=1.
            self.stepped = Some(word & 0x3fc0_0000 == 0x0840_0000);
        }
    }
}
