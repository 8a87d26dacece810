//! Software step (Arm ARM D2.10): one instruction, then an exception, for a
//! debugger inside the guest.

use crate::cpu::op::Op;
use crate::cpu::{Cpu, RunExit};
use crate::decode;
use crate::dispatch;
use crate::exception::class;
use crate::exec::bind::{Context, bind};
use crate::exec::branch::{handler, pc_after};
use crate::insn::{Call, Insn};
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
        let insn = decode::instruction(word);
        let mut op = bind(&insn, Context { mode, offset }).op;
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
        self.advance(&insn, pc);
    }

    /// Moves on from PSTATE.SS = 1, which a fault of the instruction does not.
    fn advance(&mut self, insn: &Insn, pc: u64) {
        // SVC, HVC and SMC count as executed.
        let calls = matches!(
            insn,
            Insn::Call {
                to: Call::Svc | Call::Hvc | Call::Smc,
                ..
            }
        );
        if calls && !self.pstate.ss {
            self.sys.spsr &= !SPSR_SS;
        }
        // The monitor serves an access that left, and comes back behind it.
        let left = matches!(self.exit, Some(RunExit::Exception { .. })) && self.pc == pc;
        if self.pstate.ss && !left {
            self.pstate.ss = false;
            let exclusive = matches!(
                insn,
                Insn::LoadExclusive { .. } | Insn::LoadExclusivePair { .. }
            );
            self.stepped = Some(exclusive);
        }
    }
}
