//! Two instructions in one handler, where that saves a dispatch often.
//!
//! The second op stays behind the first, with its own link and offset, so that
//! nothing else needs to know: the fused handler stands in the first op and
//! reaches over.

use super::branch::{BACK, FAR, NEAR, take};
use super::int::{w32, w64};
use crate::cpu::Cpu;
use crate::op::{Handler, Op};
use crate::regs::Regs;

/// A pure operation as a type, to be a parameter of fused handlers.
trait Pure {
    fn exec(regs: &mut Regs, op: &Op);
}

macro_rules! pure {
    ($($name:ident = $f:expr;)*) => {
        $(
            struct $name;
            impl Pure for $name {
                #[inline(always)]
                fn exec(regs: &mut Regs, op: &Op) {
                    $f(regs, op);
                }
            }
        )*
    };
}

pure! {
    SubsImm32 = w32::subs_imm;
    SubsImm64 = w64::subs_imm;
    Subs32 = w32::subs_plain;
    Subs64 = w64::subs_plain;
    AndsImm32 = w32::ands_imm;
    AndsImm64 = w64::ands_imm;
    Ands32 = w32::ands::<0, false>;
    Ands64 = w64::ands::<0, false>;
    AddsImm32 = w32::adds_imm;
    AddsImm64 = w64::adds_imm;
}

/// A flag setter and the conditional branch behind it.
///
/// # Safety
/// As for a handler; the op behind `op` is a B.cond with `COND` and `KIND`.
unsafe extern "C" fn test_and_branch<P: Pure, const COND: u16, const KIND: u8>(
    cpu: *mut Cpu,
    op: *const Op,
) {
    // SAFETY: by the contract.
    unsafe {
        P::exec(&mut (*cpu).regs, &*op);
        let branch = op.add(1);
        if (*cpu).regs.cond_holds(COND) {
            take::<KIND>(cpu, branch)
        } else {
            crate::next_op!(cpu, branch)
        }
    }
}

fn by_kind<P: Pure, const COND: u16>(kind: u8) -> Handler {
    match kind {
        NEAR => test_and_branch::<P, COND, NEAR>,
        BACK => test_and_branch::<P, COND, BACK>,
        _ => test_and_branch::<P, COND, FAR>,
    }
}

fn by_condition<P: Pure>(condition: u16, kind: u8) -> Option<Handler> {
    Some(match condition {
        0 => by_kind::<P, 0>(kind),
        1 => by_kind::<P, 1>(kind),
        2 => by_kind::<P, 2>(kind),
        3 => by_kind::<P, 3>(kind),
        8 => by_kind::<P, 8>(kind),
        9 => by_kind::<P, 9>(kind),
        10 => by_kind::<P, 10>(kind),
        11 => by_kind::<P, 11>(kind),
        12 => by_kind::<P, 12>(kind),
        13 => by_kind::<P, 13>(kind),
        _ => return None,
    })
}

/// The flag setters that fuse with a conditional branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named after the instructions.
pub enum Test {
    SubsImm { wide: bool },
    Subs { wide: bool },
    AndsImm { wide: bool },
    Ands { wide: bool },
    AddsImm { wide: bool },
}

/// The fused handler for `test` before a branch on `condition` that reaches
/// its target as `kind` says.
pub fn test_branch(test: Test, condition: u16, kind: u8) -> Option<Handler> {
    match test {
        Test::SubsImm { wide: false } => by_condition::<SubsImm32>(condition, kind),
        Test::SubsImm { wide: true } => by_condition::<SubsImm64>(condition, kind),
        Test::Subs { wide: false } => by_condition::<Subs32>(condition, kind),
        Test::Subs { wide: true } => by_condition::<Subs64>(condition, kind),
        Test::AndsImm { wide: false } => by_condition::<AndsImm32>(condition, kind),
        Test::AndsImm { wide: true } => by_condition::<AndsImm64>(condition, kind),
        Test::Ands { wide: false } => by_condition::<Ands32>(condition, kind),
        Test::Ands { wide: true } => by_condition::<Ands64>(condition, kind),
        Test::AddsImm { wide: false } => by_condition::<AddsImm32>(condition, kind),
        Test::AddsImm { wide: true } => by_condition::<AddsImm64>(condition, kind),
    }
}

/// ADRP and the ADD (immediate) behind it that completes the same register.
///
/// # Safety
/// As for a handler; the op behind `op` is such an ADD.
pub unsafe extern "C" fn adrp_add(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        let add = op.add(1);
        let page = (*cpu).regs.page.wrapping_add((*op).imm);
        (*cpu).regs.set((*op).rd, page.wrapping_add((*add).imm));
        crate::next_op!(cpu, add)
    }
}
