//! System instructions: register moves, barriers, maintenance, exceptions.

use super::branch::{handler, pc_after, pc_of};
use crate::cpu::op::Op;
use crate::cpu::{Cpu, DAIF_I, DAIF_MASK, RunExit};
use crate::exception::class;
use crate::mem::ESR_IL;
use crate::next_op;
use crate::sysreg::{self, FPCR_MASK, FPSR_MASK, Lookup};
use crate::sysreg_key;
use std::sync::atomic::{Ordering, fence};

/// SCTLR_EL1.nTWI and nTWE: WFI and WFE at EL0 do not trap.
const SCTLR_NTWI: u64 = 1 << 16;
const SCTLR_NTWE: u64 = 1 << 18;
/// SCTLR_EL1.UMA: DAIF at EL0.
const SCTLR_UMA: u64 = 1 << 9;

handler!(
    /// An instruction that is not there.
    undefined, |cpu, op| { (*cpu).raise_undefined(pc_of(cpu, op)) }
);

handler!(
    /// An FP or vector instruction while CPACR_EL1 traps them.
    fp_trap, |cpu, op| {
        // CV = 1, COND = 0b1110, as for all AArch64 traps of this class.
        (*cpu).raise(class::FP_ACCESS, 0x1e0_0000, pc_of(cpu, op))
    }
);

handler!(
    /// A load or store by a misaligned stack pointer.
    stack_misaligned, |cpu, op| { (*cpu).raise(class::SP_ALIGNMENT, 0, pc_of(cpu, op)) }
);

handler!(
    /// Behind an instruction that may have changed whether the stack pointer is
    /// aligned, for which what follows was decoded.
    stack_moved, |cpu, op| {
        if (*cpu).sp_off == (*cpu).is_stack_off() {
            next_op!(cpu, op)
        } else {
            (*cpu).refresh_context();
            (*cpu).pc = pc_after(cpu, op);
        }
    }
);

handler!(
    /// SVC; `imm` is the immediate.
    svc, |cpu, op| { (*cpu).raise(class::SVC, (*op).imm, pc_after(cpu, op)) }
);

handler!(
    /// BRK; `imm` is the immediate.
    brk, |cpu, op| { (*cpu).raise(class::BRK, (*op).imm, pc_of(cpu, op)) }
);

handler!(
    /// HVC: to the monitor, which continues after it.
    hvc, |cpu, op| {
        (*cpu).pc = pc_after(cpu, op);
        (*cpu).leave(class::HVC << 26 | ESR_IL | (*op).imm)
    }
);

handler!(
    /// SMC: to the monitor, which steps over it.
    smc, |cpu, op| {
        (*cpu).pc = pc_of(cpu, op);
        (*cpu).leave(class::SMC << 26 | ESR_IL | (*op).imm)
    }
);

handler!(
    /// ERET.
    eret, |cpu, op| {
        let _ = op;
        (*cpu).exception_return()
    }
);

handler!(
    /// WFI and, with `aux` 1, WFE.
    wait, |cpu, op| {
        let event = (*op).aux;
        let open = if event == 0 { SCTLR_NTWI } else { SCTLR_NTWE };
        if (*cpu).pstate.el == 0 && (*cpu).sys.sctlr & open == 0 {
            // CV = 1, COND = 0b1110, TI.
            return (*cpu).raise(class::WFX, 0x1e0_0000 | u64::from(event), pc_of(cpu, op));
        }
        (*cpu).pc = pc_after(cpu, op);
        if event == 0 {
            (*cpu).waiting = true;
        } else {
            // There may be an event for all we know: give the core away once,
            // since whoever sends it may need the core to get there.
            std::thread::yield_now();
        }
    }
);

/// YIELDs between two that give the host core away.
const YIELDS_PER_SWITCH: u32 = 32;

handler!(
    /// YIELD: another vCPU may hold what this one spins on, and may need the
    /// host core this one spins on.
    give_way, |cpu, op| {
        std::hint::spin_loop();
        (*cpu).yields = (*cpu).yields.wrapping_add(1);
        if (*cpu).yields.is_multiple_of(YIELDS_PER_SWITCH) {
            std::thread::yield_now();
        }
        next_op!(cpu, op)
    }
);

handler!(
    /// CLREX.
    clrex, |cpu, op| {
        (*cpu).monitor.host = 0;
        next_op!(cpu, op)
    }
);

handler!(
    /// DMB. The host orders everything but store-load by itself.
    dmb, |cpu, op| {
        fence(Ordering::SeqCst);
        next_op!(cpu, op)
    }
);

handler!(
    /// DMB ISHLD and ISHST, which any host order gives; the fence is for hosts
    /// that are weaker than x86.
    dmb_weak, |cpu, op| {
        fence(Ordering::AcqRel);
        next_op!(cpu, op)
    }
);

handler!(
    /// DSB: also waits for invalidations sent to other vCPUs.
    dsb, |cpu, op| {
        fence(Ordering::SeqCst);
        if (*cpu).acks.is_empty() {
            next_op!(cpu, op)
        } else {
            (*cpu).pc = pc_after(cpu, op);
            (*cpu).await_acks()
        }
    }
);

handler!(
    /// ISB: what follows is fetched anew.
    isb, |cpu, op| { (*cpu).pc = pc_after(cpu, op) }
);

handler!(
    /// MRS of a register with plain storage, at byte `imm` of the vCPU.
    mrs_plain, |cpu, op| {
        let at = cpu.cast::<u8>().add((*op).imm as usize).cast::<u64>();
        let value = *at;
        (*cpu).regs.set((*op).rd, value);
        next_op!(cpu, op)
    }
);

handler!(
    /// MSR of a register with plain storage, at byte `imm` of the vCPU.
    msr_plain, |cpu, op| {
        let at = cpu.cast::<u8>().add((*op).imm as usize).cast::<u64>();
        *at = (*cpu).regs.get((*op).rd);
        next_op!(cpu, op)
    }
);

handler!(
    /// MRS CNTVCT_EL0, the vDSO's clock.
    mrs_cntvct, |cpu, op| {
        if (*cpu).pstate.el == 0 && (*cpu).sys.cntkctl & 2 == 0 {
            return (*cpu).trap_sysreg(pc_of(cpu, op), (*op).imm as u32);
        }
        let value = (*cpu).timers.cntvct();
        (*cpu).regs.set((*op).rd, value);
        next_op!(cpu, op)
    }
);

macro_rules! flag_register {
    ($read:ident, $write:ident, $field:ident, $mask:expr) => {
        handler!(
            /// MRS of a floating-point control register.
            $read, |cpu, op| {
                let value = (*cpu).regs.$field;
                (*cpu).regs.set((*op).rd, value);
                next_op!(cpu, op)
            }
        );
        handler!(
            /// MSR of a floating-point control register.
            $write, |cpu, op| {
                (*cpu).regs.$field = (*cpu).regs.get((*op).rd) & $mask;
                next_op!(cpu, op)
            }
        );
    };
}
flag_register!(mrs_fpcr, msr_fpcr, fpcr, FPCR_MASK);
flag_register!(mrs_fpsr, msr_fpsr, fpsr, FPSR_MASK);

handler!(
    /// MRS NZCV.
    mrs_nzcv, |cpu, op| {
        let value = (*cpu).regs.nzcv();
        (*cpu).regs.set((*op).rd, value);
        next_op!(cpu, op)
    }
);

handler!(
    /// MSR NZCV.
    msr_nzcv, |cpu, op| {
        let value = (*cpu).regs.get((*op).rd);
        (*cpu).regs.set_nzcv(value);
        next_op!(cpu, op)
    }
);

handler!(
    /// MRS DAIF at EL1.
    mrs_daif, |cpu, op| {
        let value = (*cpu).pstate.daif;
        (*cpu).regs.set((*op).rd, value);
        next_op!(cpu, op)
    }
);

handler!(
    /// MSR DAIF at EL1.
    msr_daif, |cpu, op| {
        (*cpu).pstate.daif = (*cpu).regs.get((*op).rd) & DAIF_MASK;
        if (*cpu).may_interrupt() {
            (*cpu).pc = pc_after(cpu, op);
        } else {
            next_op!(cpu, op)
        }
    }
);

handler!(
    /// MSR DAIFSet; `imm` has the bits in place.
    daif_set, |cpu, op| {
        if (*cpu).pstate.el == 0 && (*cpu).sys.sctlr & SCTLR_UMA == 0 {
            return (*cpu).trap_sysreg(pc_of(cpu, op), u32::from((*op).aux) << 5 | 0xd503_401f);
        }
        (*cpu).pstate.daif |= (*op).imm;
        next_op!(cpu, op)
    }
);

handler!(
    /// MSR DAIFClr; `imm` has the bits in place.
    daif_clear, |cpu, op| {
        if (*cpu).pstate.el == 0 && (*cpu).sys.sctlr & SCTLR_UMA == 0 {
            return (*cpu).trap_sysreg(pc_of(cpu, op), u32::from((*op).aux) << 5 | 0xd503_401f);
        }
        (*cpu).pstate.daif &= !(*op).imm;
        if (*cpu).may_interrupt() {
            (*cpu).pc = pc_after(cpu, op);
        } else {
            next_op!(cpu, op)
        }
    }
);

handler!(
    /// MSR PAN, immediate.
    set_pan, |cpu, op| {
        (*cpu).pstate.pan = (*op).imm != 0;
        (*cpu).refresh_context();
        next_op!(cpu, op)
    }
);

handler!(
    /// MSR SPSel, immediate.
    set_sp_sel, |cpu, op| {
        (*cpu).set_sp_sel((*op).imm != 0);
        next_op!(cpu, op)
    }
);

handler!(
    /// Any other MRS; `imm` is the instruction.
    mrs, |cpu, op| {
        if system_read(cpu, op) {
            next_op!(cpu, op)
        }
    }
);

/// # Safety
/// As for a handler.
#[inline(never)]
unsafe fn system_read(cpu: *mut Cpu, op: *const Op) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let (cpu, word, pc) = (&mut *cpu, (*op).imm as u32, pc_of(cpu, op));
        let key = sysreg_key::key_of(word);
        if !cpu.check_sysreg(pc, word, false) {
            return false;
        }
        match cpu.read_sysreg(key) {
            Some(value) => cpu.regs.set((*op).rd, value),
            None => {
                cpu.trap_to_monitor(pc, word);
                return false;
            }
        }
        true
    }
}

handler!(
    /// Any other MSR (register); `imm` is the instruction. Ends its block, as
    /// the write may change anything.
    msr, |cpu, op| {
        let (word, pc) = ((*op).imm as u32, pc_of(cpu, op));
        if (*cpu).check_sysreg(pc, word, true) {
            let value = (*cpu).regs.get((*op).rd);
            if (*cpu).write_sysreg(sysreg_key::key_of(word), value) {
                (*cpu).pc = pc_after(cpu, op);
            } else {
                (*cpu).trap_to_monitor(pc, word);
            }
        }
    }
);

impl Cpu {
    /// Leaves guest execution with an exit that has only a syndrome.
    fn leave(&mut self, syndrome: u64) {
        self.exit = Some(RunExit::Exception {
            syndrome,
            virtual_address: 0,
            physical_address: 0,
        });
    }

    /// Traps the system instruction `word` to EL1.
    pub fn trap_sysreg(&mut self, pc: u64, word: u32) {
        self.raise(class::SYSREG, sysreg_iss(word), pc);
    }

    /// An encoding this engine has no register for: the monitor's at EL1, as
    /// on hardware with trapping; undefined at EL0.
    fn trap_to_monitor(&mut self, pc: u64, word: u32) {
        if self.pstate.el == 0 {
            self.raise_undefined(pc);
        } else {
            self.pc = pc;
            self.leave(class::SYSREG << 26 | ESR_IL | sysreg_iss(word));
        }
    }

    /// Whether the current level may do this access; if not, the exception is
    /// taken.
    fn check_sysreg(&mut self, pc: u64, word: u32, write: bool) -> bool {
        if self.pstate.el != 0 {
            return true;
        }
        let user = match sysreg::lookup(sysreg_key::key_of(word)) {
            Lookup::Known(register) => register.user,
            _ => sysreg::UserAccess::Never,
        };
        match self.user_may(user, write) {
            Ok(()) => true,
            Err(true) => {
                self.trap_sysreg(pc, word);
                false
            }
            Err(false) => {
                self.raise_undefined(pc);
                false
            }
        }
    }

    /// Whether an unmasked interrupt is signalled.
    #[inline]
    pub fn may_interrupt(&self) -> bool {
        self.pstate.daif & DAIF_I == 0 && self.vm.gic().is_some_and(|g| g.irq_line(self.index))
    }
}

/// The ISS of a trapped system instruction (Arm ARM D24.2.40, EC 0x18).
fn sysreg_iss(word: u32) -> u64 {
    let field = |low: u32, bits: u32| u64::from(word >> low & ((1 << bits) - 1));
    let (op0, op1, crn) = (field(19, 2), field(16, 3), field(12, 4));
    let (crm, op2, rt, read) = (field(8, 4), field(5, 3), field(0, 5), field(21, 1));
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysreg_syndrome_has_the_fields_in_iss_order() {
        // mrs x5, midr_el1 = d5380005
        assert_eq!(sysreg_iss(0xd538_0005), 3 << 20 | 5 << 5 | 1);
    }
}
