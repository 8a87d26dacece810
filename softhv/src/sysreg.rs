//! System registers: which exist, who may touch them, what a write does.

use crate::cpu::Cpu;
use crate::idregs;
use crate::sys_regs::SysRegs;
use crate::sysreg_key::key;
use std::mem::offset_of;

/// What EL0 may do with a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserAccess {
    /// Undefined at EL0.
    Never,
    /// Reads only.
    Read,
    /// Reads and writes.
    ReadWrite,
    /// Reads and writes if this bit of SCTLR_EL1 is set, else a trap to EL1.
    Sctlr(u8),
    /// As [`UserAccess::Sctlr`], for CNTKCTL_EL1 (any bit of the mask).
    Cntkctl(u16),
}

/// One system register.
pub struct Register {
    /// Its packed encoding.
    pub key: u16,
    /// Access from EL0.
    pub user: UserAccess,
    /// Reads it.
    pub read: fn(&mut Cpu) -> u64,
    /// Writes it; `None` if writes are undefined.
    pub write: Option<fn(&mut Cpu, u64)>,
    /// Byte offset in [`Cpu`] if it is plain storage without side effects.
    pub plain: Option<usize>,
}

macro_rules! plain {
    ($op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal, $field:ident) => {
        plain!($op0, $op1, $crn, $crm, $op2, $field, Never)
    };
    ($op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal, $field:ident, $user:ident) => {
        Register {
            key: key($op0, $op1, $crn, $crm, $op2),
            user: UserAccess::$user,
            read: |cpu| cpu.sys.$field,
            write: Some(|cpu, value| cpu.sys.$field = value),
            plain: Some(offset_of!(Cpu, sys) + offset_of!(SysRegs, $field)),
        }
    };
}

macro_rules! effect {
    ($op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal, $read:expr, $write:expr) => {
        effect!(
            $op0,
            $op1,
            $crn,
            $crm,
            $op2,
            UserAccess::Never,
            $read,
            $write
        )
    };
    ($op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal, $user:expr, $read:expr, $write:expr) => {
        Register {
            key: key($op0, $op1, $crn, $crm, $op2),
            user: $user,
            read: $read,
            write: Some($write),
            plain: None,
        }
    };
}

macro_rules! read_only {
    ($op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal, $user:expr, $read:expr) => {
        Register {
            key: key($op0, $op1, $crn, $crm, $op2),
            user: $user,
            read: $read,
            write: None,
            plain: None,
        }
    };
}

macro_rules! timer {
    ($crm:literal, $op2:literal, $bit:literal) => {
        effect!(
            3,
            3,
            14,
            $crm,
            $op2,
            UserAccess::Cntkctl($bit),
            |cpu| cpu.read_timer(key(3, 3, 14, $crm, $op2)),
            |cpu, value| cpu.write_timer(key(3, 3, 14, $crm, $op2), value)
        )
    };
}

/// Bits of FPCR that exist here: AHP, DN, FZ, RMode.
pub const FPCR_MASK: u64 = 0x07c0_0000;
/// Bits of FPSR that exist here: QC and the cumulative exception flags.
pub const FPSR_MASK: u64 = 0x0800_009f;
/// CPACR_EL1.FPEN.
pub const CPACR_FPEN: u64 = 3 << 20;

fn set_translation(cpu: &mut Cpu, set: impl FnOnce(&mut SysRegs)) {
    set(&mut cpu.sys);
    cpu.translation_changed();
}

fn write_ttbr1(cpu: &mut Cpu, value: u64) {
    // Linux switches the ASID here on every context switch; the table itself
    // stays, and with it the kernel's translations.
    let table_changed = (cpu.sys.ttbr1 ^ value) & 0x0000_ffff_ffff_fffe != 0;
    cpu.sys.ttbr1 = value;
    if table_changed {
        cpu.translation_changed();
    } else {
        cpu.space_changed();
    }
}

fn ccsidr(cpu: &mut Cpu) -> u64 {
    // 64-byte lines, 4 ways; 64 KiB level 1 caches, 1 MiB level 2 (D24.2.25).
    let sets: u64 = match cpu.sys.csselr & 0xf {
        0 | 1 => 256,
        2 => 4096,
        _ => return 0,
    };
    (sets - 1) << 13 | 3 << 3 | 2
}

fn read_sp_el0(cpu: &mut Cpu) -> u64 {
    cpu.sys.sp[0]
}

#[rustfmt::skip]
static REGISTERS: &[Register] = &[
    Register {
        key: key(3, 0, 4, 1, 0),
        user: UserAccess::Never,
        read: read_sp_el0,
        write: Some(|cpu, value| cpu.sys.sp[0] = value),
        plain: Some(offset_of!(Cpu, sys) + offset_of!(SysRegs, sp)),
    },
    plain!(3, 0, 13, 0, 4, tpidr_el1),
    plain!(3, 3, 13, 0, 2, tpidr_el0, ReadWrite),
    plain!(3, 3, 13, 0, 3, tpidrro_el0, Read),
    plain!(3, 3, 13, 0, 7, scxtnum_el0),
    plain!(3, 0, 13, 0, 7, scxtnum_el1),
    plain!(3, 0, 13, 0, 1, contextidr),
    plain!(3, 0, 4, 0, 0, spsr),
    plain!(3, 0, 4, 0, 1, elr),
    plain!(3, 0, 5, 1, 0, afsr0),
    plain!(3, 0, 5, 1, 1, afsr1),
    plain!(3, 0, 5, 2, 0, esr),
    plain!(3, 0, 6, 0, 0, far),
    plain!(3, 0, 7, 4, 0, par),
    plain!(3, 0, 10, 3, 0, amair),
    effect!(3, 0, 12, 0, 0, |cpu| cpu.sys.vbar, |cpu, v| cpu.sys.vbar = v & !0x7ff),
    plain!(3, 0, 1, 0, 1, actlr),
    plain!(3, 2, 0, 0, 0, csselr),
    plain!(3, 0, 14, 1, 0, cntkctl),
    effect!(3, 0, 1, 0, 0, |cpu| cpu.sys.sctlr, |cpu, v| set_translation(cpu, |s| s.sctlr = v)),
    effect!(3, 0, 1, 0, 2, |cpu| cpu.sys.cpacr, |cpu, v| {
        // Blocks are decoded for one setting of FPEN.
        let changed = (cpu.sys.cpacr ^ v) & CPACR_FPEN != 0;
        cpu.sys.cpacr = v & CPACR_FPEN;
        if changed {
            cpu.translation_changed();
        }
    }),
    effect!(3, 0, 2, 0, 0, |cpu| cpu.sys.ttbr0, |cpu, v| {
        cpu.sys.ttbr0 = v;
        cpu.space_changed();
    }),
    effect!(3, 0, 2, 0, 1, |cpu| cpu.sys.ttbr1, write_ttbr1),
    effect!(3, 0, 2, 0, 2, |cpu| cpu.sys.tcr, |cpu, v| set_translation(cpu, |s| s.tcr = v)),
    effect!(3, 0, 10, 2, 0, |cpu| cpu.sys.mair, |cpu, v| set_translation(cpu, |s| s.mair = v)),
    // Stack pointers and the state that MRS and MSR see as registers.
    read_only!(3, 0, 4, 2, 2, UserAccess::Never, |cpu| u64::from(cpu.pstate.el) << 2),
    effect!(3, 0, 4, 2, 0, |cpu| u64::from(cpu.pstate.sp_sel),
        |cpu, v| {
            cpu.set_sp_sel(v & 1 != 0);
            cpu.refresh_context();
        }),
    effect!(3, 0, 4, 2, 3, |cpu| u64::from(cpu.pstate.pan) << 22, |cpu, v| {
        cpu.pstate.pan = v >> 22 & 1 != 0;
        cpu.refresh_context();
    }),
    // SCTLR_EL1.UMA, bit 9, gives EL0 its DAIF.
    effect!(3, 3, 4, 2, 1, UserAccess::Sctlr(9), |cpu| cpu.pstate.daif,
        |cpu, v| cpu.pstate.daif = v & crate::cpu::DAIF_MASK),
    effect!(3, 3, 4, 2, 0, UserAccess::ReadWrite, |cpu| cpu.regs.nzcv(),
        |cpu, v| cpu.regs.set_nzcv(v)),
    effect!(3, 3, 4, 4, 0, UserAccess::ReadWrite, |cpu| cpu.regs.fpcr,
        |cpu, v| cpu.regs.fpcr = v & FPCR_MASK),
    effect!(3, 3, 4, 4, 1, UserAccess::ReadWrite, |cpu| cpu.regs.fpsr,
        |cpu, v| cpu.regs.fpsr = v & FPSR_MASK),
    read_only!(3, 0, 12, 1, 0, UserAccess::Never, |cpu| cpu.interrupt_status()),
    // Caches. SCTLR_EL1.UCT, bit 15, gives EL0 its CTR.
    read_only!(3, 3, 0, 0, 1, UserAccess::Sctlr(15), |_| idregs::CTR_EL0),
    read_only!(3, 3, 0, 0, 7, UserAccess::Read, |_| idregs::DCZID_EL0),
    read_only!(3, 1, 0, 0, 1, UserAccess::Never, |_| idregs::CLIDR_EL1),
    read_only!(3, 1, 0, 0, 0, UserAccess::Never, ccsidr),
    read_only!(3, 1, 0, 0, 7, UserAccess::Never, |_| 0),
    // Identification.
    read_only!(3, 0, 0, 0, 0, UserAccess::Never, |_| idregs::MIDR_EL1),
    read_only!(3, 0, 0, 0, 5, UserAccess::Never, |cpu| cpu.sys.mpidr),
    read_only!(3, 0, 0, 0, 6, UserAccess::Never, |_| 0),
    // Debug.
    plain!(2, 0, 0, 2, 2, mdscr),
    plain!(2, 0, 0, 2, 0, mdccint),
    effect!(2, 0, 1, 0, 4, |_| 0, |cpu, v| cpu.sys.os_lock = v & 1),
    // OSLSR_EL1: OSLM = 0b10 (bit 3), OSLK bit 1.
    read_only!(2, 0, 1, 1, 4, UserAccess::Never, |cpu| 8 | cpu.sys.os_lock << 1),
    plain!(2, 0, 1, 3, 4, os_double_lock),
    // RAS: DISR_EL1 reads zero, ESB is a no-operation.
    effect!(3, 0, 12, 1, 1, |_| 0, |_, _| ()),
    // Generic timers. CNTKCTL_EL1: EL0PCTEN 0, EL0VCTEN 1, EL0VTEN 8, EL0PTEN 9.
    read_only!(3, 3, 14, 0, 0, UserAccess::Cntkctl(3), |_| idregs::CNTFRQ_HZ),
    read_only!(3, 3, 14, 0, 1, UserAccess::Cntkctl(1), |cpu| cpu.read_timer(key(3, 3, 14, 0, 1))),
    read_only!(3, 3, 14, 0, 2, UserAccess::Cntkctl(2), |cpu| cpu.read_timer(key(3, 3, 14, 0, 2))),
    timer!(2, 0, 0x200), timer!(2, 1, 0x200), timer!(2, 2, 0x200),
    timer!(3, 0, 0x100), timer!(3, 1, 0x100), timer!(3, 2, 0x100),
];

macro_rules! banked_debug {
    ($cpu:ident, $key:ident, $value:expr) => {{
        let n = usize::from($key >> 3 & 15);
        let sys = &mut $cpu.sys;
        let slot = match $key & 7 {
            4 => &mut sys.dbgbvr[n],
            5 => &mut sys.dbgbcr[n],
            6 => &mut sys.dbgwvr[n],
            _ => &mut sys.dbgwcr[n],
        };
        $value(slot)
    }};
}

/// What a register encoding means.
#[derive(Clone, Copy)]
pub enum Lookup {
    /// In the table.
    Known(&'static Register),
    /// DBGBVR, DBGBCR, DBGWVR or DBGWCR `n`.
    Debug(u16),
    /// An ICC register of the interrupt controller.
    Icc(u16),
    /// An identification register: fixed, or reads as zero.
    Id(u16),
    /// Performance monitors: absent, but poked by firmware-like code.
    Ignored,
    /// Undefined.
    Undefined,
}

/// Finds the register `key`.
pub fn lookup(key: u16) -> Lookup {
    if let Some(register) = REGISTERS.iter().find(|register| register.key == key) {
        return Lookup::Known(register);
    }
    let (op0, op1) = (key >> 14, key >> 11 & 7);
    let (crn, crm, op2) = (key >> 7 & 15, key >> 3 & 15, key & 7);
    match (op0, op1, crn) {
        (2, 0, 0) if op2 >= 4 => Lookup::Debug(key),
        (3, 0, 0) if (1..=7).contains(&crm) => Lookup::Id(key),
        (3, 0, 4) if crm == 6 => Lookup::Icc(key),
        (3, 0, 12) if crm >= 8 => Lookup::Icc(key),
        (3, 0 | 3, 9) if (12..=14).contains(&crm) => Lookup::Ignored,
        (3, 3, 14) if crm >= 8 => Lookup::Ignored,
        // LORegion registers: not advertised, written by old boot code.
        (3, 0, 10) if crm == 4 => Lookup::Ignored,
        _ => Lookup::Undefined,
    }
}

impl Cpu {
    /// Reads register `key` with EL1 rights; `None` if there is no such one.
    pub fn read_sysreg(&mut self, key: u16) -> Option<u64> {
        Some(match lookup(key) {
            Lookup::Known(register) => (register.read)(self),
            Lookup::Debug(key) => banked_debug!(self, key, |slot: &mut u64| *slot),
            Lookup::Icc(key) => self.read_icc(key)?,
            Lookup::Id(key) => self.sys.id.read(key),
            Lookup::Ignored => 0,
            Lookup::Undefined => return None,
        })
    }

    /// Writes register `key` with EL1 rights; false if that is undefined.
    pub fn write_sysreg(&mut self, key: u16, value: u64) -> bool {
        match lookup(key) {
            Lookup::Known(register) => match register.write {
                Some(write) => write(self, value),
                None => return false,
            },
            Lookup::Debug(key) => banked_debug!(self, key, |slot: &mut u64| *slot = value),
            Lookup::Icc(key) => return self.write_icc(key, value),
            Lookup::Ignored => (),
            Lookup::Id(_) | Lookup::Undefined => return false,
        }
        true
    }

    /// Whether the current level may access `user`-gated registers, and if
    /// not, whether that traps (true) or is undefined (false).
    pub fn user_may(&self, user: UserAccess, write: bool) -> Result<(), bool> {
        let gate = |open: bool| if open { Ok(()) } else { Err(true) };
        if self.pstate.el != 0 {
            return Ok(());
        }
        match user {
            UserAccess::Never => Err(false),
            UserAccess::Read if write => Err(false),
            UserAccess::Read | UserAccess::ReadWrite => Ok(()),
            UserAccess::Sctlr(bit) => gate(self.sys.sctlr >> bit & 1 != 0),
            UserAccess::Cntkctl(mask) => gate(self.sys.cntkctl & u64::from(mask) != 0),
        }
    }
}
