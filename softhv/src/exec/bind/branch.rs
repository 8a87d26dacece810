//! Branches and exception generation.

use super::fuse::Part;
use super::{Bound, Context, undefined};
use crate::cpu::op::{Handler, source};
use crate::exec::branch::{self, BACK, FAR, NEAR};
use crate::exec::system as exec;
use crate::insn::{BranchReg, Call, Cond, Insn, Width};

#[inline(always)]
pub fn bind(insn: &Insn, context: Context) -> Bound {
    match *insn {
        Insn::Branch { link, offset } => immediate(link, offset, context),
        Insn::BranchCond { cond, offset } => conditional(cond, offset, context),
        Insn::CompareBranch {
            nonzero,
            width,
            rt,
            offset,
        } => {
            let kind = kind(context, offset);
            Bound::new(compare(nonzero, width, kind))
                .rn(source(rt))
                .imm(distance(offset))
                .part(Part::Zero {
                    width,
                    nonzero,
                    kind,
                })
        }
        Insn::TestBranch {
            set,
            rt,
            bit,
            offset,
        } => Bound::new(test(set, kind(context, offset)))
            .rn(source(rt))
            .imm(distance(offset))
            .aux(u16::from(bit)),
        Insn::BranchReg { how, rn } => {
            let run = match how {
                BranchReg::Jump | BranchReg::Return => branch::br as Handler,
                BranchReg::Call => branch::blr,
            };
            Bound::end(run).rn(source(rn))
        }
        Insn::ExceptionReturn if !context.mode.user => Bound::end(exec::eret),
        Insn::Call { to, imm } => call(to, imm, context),
        _ => undefined(),
    }
}

/// An offset as handlers add it.
fn distance(offset: i32) -> u64 {
    i64::from(offset) as u64
}

/// How a direct branch by `offset` bytes reaches its target.
fn kind(context: Context, offset: i32) -> u8 {
    let target = i64::from(context.offset) + i64::from(offset);
    if !(0..4096).contains(&target) {
        FAR
    } else if offset > 0 {
        NEAR
    } else {
        BACK
    }
}

macro_rules! by_kind {
    ($kind:expr, $f:ident $(, $arg:expr)*) => {
        match $kind {
            NEAR => branch::$f::<$($arg,)* NEAR> as Handler,
            BACK => branch::$f::<$($arg,)* BACK>,
            _ => branch::$f::<$($arg,)* FAR>,
        }
    };
}

fn immediate(link: bool, offset: i32, context: Context) -> Bound {
    let kind = kind(context, offset);
    let run = if link {
        by_kind!(kind, bl)
    } else {
        by_kind!(kind, b)
    };
    Bound::end(run).imm(distance(offset))
}

fn compare(nonzero: bool, width: Width, kind: u8) -> Handler {
    match (width, nonzero) {
        (Width::W, false) => by_kind!(kind, cbz, false, false),
        (Width::W, true) => by_kind!(kind, cbz, false, true),
        (Width::X, false) => by_kind!(kind, cbz, true, false),
        (Width::X, true) => by_kind!(kind, cbz, true, true),
    }
}

fn test(set: bool, kind: u8) -> Handler {
    if set {
        by_kind!(kind, tbz, true)
    } else {
        by_kind!(kind, tbz, false)
    }
}

fn conditional(cond: Cond, offset: i32, context: Context) -> Bound {
    let kind = kind(context, offset);
    let run = match cond {
        Cond::Eq => by_kind!(kind, b_cond, 0),
        Cond::Ne => by_kind!(kind, b_cond, 1),
        Cond::Cs => by_kind!(kind, b_cond, 2),
        Cond::Cc => by_kind!(kind, b_cond, 3),
        Cond::Mi => by_kind!(kind, b_cond, 4),
        Cond::Pl => by_kind!(kind, b_cond, 5),
        Cond::Vs => by_kind!(kind, b_cond, 6),
        Cond::Vc => by_kind!(kind, b_cond, 7),
        Cond::Hi => by_kind!(kind, b_cond, 8),
        Cond::Ls => by_kind!(kind, b_cond, 9),
        Cond::Ge => by_kind!(kind, b_cond, 10),
        Cond::Lt => by_kind!(kind, b_cond, 11),
        Cond::Gt => by_kind!(kind, b_cond, 12),
        Cond::Le => by_kind!(kind, b_cond, 13),
        Cond::Al | Cond::Nv => return immediate(false, offset, context),
    };
    Bound::new(run)
        .imm(distance(offset))
        .part(Part::Cond { cond, kind })
}

fn call(to: Call, imm: u16, context: Context) -> Bound {
    let run = match to {
        Call::Svc => exec::svc as Handler,
        Call::Hvc if !context.mode.user => exec::hvc,
        Call::Smc if !context.mode.user => exec::smc,
        Call::Brk => exec::brk,
        Call::Hvc | Call::Smc => return undefined(),
    };
    Bound::end(run).imm(u64::from(imm))
}
