//! Exceptions taken to EL1 and the return from them (Arm ARM D1.3, D1.4).

use crate::cpu::op;
use crate::cpu::{Cpu, DAIF_MASK, Pstate};
use crate::mem::ESR_IL;

/// Exception classes (Arm ARM D24.2.40).
#[allow(missing_docs)]
pub mod class {
    pub const UNKNOWN: u64 = 0x00;
    pub const WFX: u64 = 0x01;
    pub const FP_ACCESS: u64 = 0x07;
    pub const ILLEGAL_STATE: u64 = 0x0e;
    pub const SVC: u64 = 0x15;
    pub const HVC: u64 = 0x16;
    pub const SMC: u64 = 0x17;
    pub const SYSREG: u64 = 0x18;
    pub const INSTRUCTION_ABORT: u64 = 0x20;
    pub const PC_ALIGNMENT: u64 = 0x22;
    pub const DATA_ABORT: u64 = 0x24;
    pub const SP_ALIGNMENT: u64 = 0x26;
    pub const SOFTWARE_STEP: u64 = 0x32;
    pub const BRK: u64 = 0x3c;
}

/// Offsets from the vector base of the kinds of exception.
const VECTOR_SYNC: u64 = 0x000;
const VECTOR_IRQ: u64 = 0x080;
const VECTOR_FIQ: u64 = 0x100;

const SPSR_SS: u64 = 1 << 21;
const SPSR_IL: u64 = 1 << 20;
const SPSR_PAN: u64 = 1 << 22;
/// SCTLR_EL1.SPAN: PAN is left alone on exception entry.
const SCTLR_SPAN: u64 = 1 << 23;

impl Cpu {
    /// The current processor state in SPSR layout.
    pub fn spsr(&self) -> u64 {
        let p = &self.pstate;
        let mode = u64::from(p.el) << 2 | u64::from(p.sp_sel && p.el != 0);
        self.regs.nzcv()
            | if p.pan { SPSR_PAN } else { 0 }
            | if p.ss { SPSR_SS } else { 0 }
            | if p.il { SPSR_IL } else { 0 }
            | p.daif
            | mode
    }

    /// Sets the processor state from SPSR layout, which names EL0 or EL1.
    pub fn set_spsr(&mut self, value: u64) {
        self.regs.set_nzcv(value);
        let pstate = Pstate {
            el: (value >> 2 & 1) as u8,
            sp_sel: value & 1 != 0,
            daif: value & DAIF_MASK,
            pan: value & SPSR_PAN != 0,
            il: value & SPSR_IL != 0,
            ss: value & SPSR_SS != 0,
        };
        self.switch_stack(pstate.el != 0 && pstate.sp_sel);
        self.pstate = pstate;
        self.refresh_context();
    }

    /// Selects SP_EL1 or SP_EL0 as the current stack pointer.
    fn switch_stack(&mut self, el1: bool) {
        let current = usize::from(self.pstate.el != 0 && self.pstate.sp_sel);
        let wanted = usize::from(el1);
        if current != wanted {
            self.sys.sp[current] = self.regs.x[usize::from(op::SP)];
            self.regs.x[usize::from(op::SP)] = self.sys.sp[wanted];
        }
    }

    /// MSR SPSel.
    pub fn set_sp_sel(&mut self, el1: bool) {
        self.switch_stack(self.pstate.el != 0 && el1);
        self.pstate.sp_sel = el1;
    }

    /// SP_EL0 or SP_EL1, whether current or not.
    pub fn stack_pointer(&self, el: usize) -> u64 {
        let current = usize::from(self.pstate.el != 0 && self.pstate.sp_sel);
        if el == current {
            self.regs.x[usize::from(op::SP)]
        } else {
            self.sys.sp[el]
        }
    }

    /// Sets SP_EL0 or SP_EL1, whether current or not.
    pub fn set_stack_pointer(&mut self, el: usize, value: u64) {
        let current = usize::from(self.pstate.el != 0 && self.pstate.sp_sel);
        if el == current {
            self.regs.x[usize::from(op::SP)] = value;
        } else {
            self.sys.sp[el] = value;
        }
    }

    /// Enters EL1 at the vector of `kind`, to return to `return_to`.
    fn enter(&mut self, kind: u64, return_to: u64) {
        let from = if self.pstate.el == 0 {
            0x400
        } else if self.pstate.sp_sel {
            0x200
        } else {
            0
        };
        self.sys.spsr = self.spsr();
        self.sys.elr = return_to;
        self.switch_stack(true);
        let pan = self.pstate.pan || self.sys.sctlr & SCTLR_SPAN == 0;
        self.pstate = Pstate {
            el: 1,
            sp_sel: true,
            daif: DAIF_MASK,
            pan,
            il: false,
            ss: false,
        };
        self.monitor.host = 0;
        // The branch that led here, if any, was not followed.
        self.link_from = std::ptr::null();
        self.pc = self.sys.vbar.wrapping_add(from + kind);
        self.refresh_context();
    }

    /// Takes a synchronous exception with syndrome `class` and `iss`.
    pub fn raise(&mut self, class: u64, iss: u64, return_to: u64) {
        self.sys.esr = class << 26 | ESR_IL | iss;
        self.enter(VECTOR_SYNC, return_to);
    }

    /// Takes an undefined-instruction exception for the one at `pc`.
    pub fn raise_undefined(&mut self, pc: u64) {
        self.raise(class::UNKNOWN, 0, pc);
    }

    /// Takes a data abort of the instruction at `pc`.
    pub fn raise_data_abort(&mut self, pc: u64, va: u64, iss: u64) {
        let same_level = u64::from(self.pstate.el != 0);
        self.sys.far = va;
        self.raise(class::DATA_ABORT | same_level, iss, pc);
    }

    /// Takes an instruction abort for a fetch from `pc`.
    pub fn raise_instruction_abort(&mut self, pc: u64, fault_status: u8) {
        let same_level = u64::from(self.pstate.el != 0);
        self.sys.far = pc;
        self.raise(
            class::INSTRUCTION_ABORT | same_level,
            u64::from(fault_status),
            pc,
        );
    }

    /// Takes a PC alignment fault.
    pub fn raise_pc_alignment(&mut self, pc: u64) {
        self.sys.far = pc;
        self.raise(class::PC_ALIGNMENT, 0, pc);
    }

    /// Takes an IRQ before the instruction at `self.pc`.
    pub fn take_irq(&mut self) {
        let pc = self.pc;
        self.enter(VECTOR_IRQ, pc);
    }

    /// Takes an FIQ before the instruction at `self.pc`.
    pub fn take_fiq(&mut self) {
        let pc = self.pc;
        self.enter(VECTOR_FIQ, pc);
    }

    /// ERET.
    pub fn exception_return(&mut self) {
        let spsr = self.sys.spsr;
        self.monitor.host = 0;
        self.pc = self.sys.elr;
        // Legal targets: EL0t, EL1t and EL1h, all AArch64 (M[4] = 0).
        if matches!(spsr & 0x1f, 0 | 4 | 5) {
            self.stepped = None;
            self.set_spsr(self.returned_step(spsr));
        } else {
            // Illegal return: state stays, and the next instruction faults.
            self.regs.set_nzcv(spsr);
            self.pstate.daif = spsr & DAIF_MASK;
            self.pstate.il = true;
        }
    }
}
