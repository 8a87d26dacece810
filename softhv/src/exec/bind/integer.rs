//! Integer data processing.

use super::fuse::{self, Part};
use super::{Bound, undefined};
use crate::cpu::op::{Handler, destination, source};
use crate::exec::fused::Shape;
use crate::exec::int;
use crate::insn::{
    AddSub, Bitfield, Extend, Insn, Logic, OneSource, Reg, RegOrImm, Select, Shift, TwoSource,
    Width,
};
use crate::pure_op;

/// The handlers of both operand widths: `widths!(add_imm)`.
macro_rules! widths {
    ($($f:tt)+) => {
        [pure_op!(int::w32::$($f)+), pure_op!(int::w64::$($f)+)]
    };
}

/// By shift kind and width: `shifts!(add)`.
macro_rules! shifts {
    ($f:ident $(, $not:literal)?) => {
        [
            widths!($f::<0 $(, $not)?>),
            widths!($f::<1 $(, $not)?>),
            widths!($f::<2 $(, $not)?>),
            widths!($f::<3 $(, $not)?>),
        ]
    };
}

/// By extension and width.
macro_rules! extends {
    ($f:ident) => {
        [
            widths!($f::<0>),
            widths!($f::<1>),
            widths!($f::<2>),
            widths!($f::<3>),
            widths!($f::<4>),
            widths!($f::<5>),
            widths!($f::<6>),
            widths!($f::<7>),
        ]
    };
}

/// By size of the value.
macro_rules! crc32 {
    ($castagnoli:literal) => {
        [
            pure_op!(int::crc32::<1, $castagnoli>),
            pure_op!(int::crc32::<2, $castagnoli>),
            pure_op!(int::crc32::<4, $castagnoli>),
            pure_op!(int::crc32::<8, $castagnoli>),
        ]
    };
}

type Widths = [Handler; 2];

/// An op on Rd, Rn and Rm.
#[inline(always)]
fn registers(run: Handler, rd: Reg, rn: Reg, rm: Reg) -> Bound {
    Bound::new(run)
        .rd(destination(rd))
        .rn(source(rn))
        .rm(source(rm))
}

/// The same, by operand width.
#[inline(always)]
fn three(run: &Widths, width: Width, rd: Reg, rn: Reg, rm: Reg) -> Bound {
    registers(run[width as usize], rd, rn, rm)
}

#[inline(always)]
pub fn bind(insn: &Insn) -> Bound {
    match *insn {
        Insn::Adr { rd, offset } => Bound::new(pure_op!(int::adr))
            .rd(destination(rd))
            .imm(i64::from(offset) as u64),
        Insn::Adrp { rd, offset } => Bound::new(pure_op!(int::adrp))
            .rd(destination(rd))
            .imm(offset as u64)
            .part(Part::Shape(Shape::Adrp)),
        Insn::AddSubImm {
            op,
            width,
            rd,
            rn,
            imm,
        } => add_sub_imm(op, width, imm)
            .rd(destination(rd))
            .rn(source(rn)),
        Insn::AddSubShifted {
            op,
            width,
            rd,
            rn,
            rm,
            shift,
            amount,
        } => add_sub_shifted(op, width, shift, amount)
            .rd(destination(rd))
            .rn(source(rn))
            .rm(source(rm)),
        Insn::AddSubExtended {
            op,
            width,
            rd,
            rn,
            rm,
            extend,
            amount,
        } => three(add_sub_extended(op, extend), width, rd, rn, rm).aux(u16::from(amount)),
        Insn::LogicImm {
            op,
            width,
            rd,
            rn,
            imm,
        } => logic_imm(op, width, rd, rn, imm),
        Insn::LogicShifted {
            op,
            invert,
            width,
            rd,
            rn,
            rm,
            shift,
            amount,
        } => logic_shifted(op, invert, width, rn, shift, amount)
            .rd(destination(rd))
            .rn(source(rn))
            .rm(source(rm)),
        Insn::MoveImm { rd, value, .. } => constant(rd, value).part(Part::Shape(Shape::Constant)),
        Insn::MoveKeep {
            width,
            rd,
            imm,
            position,
        } => {
            static RUN: Widths = widths!(movk);
            Bound::new(RUN[width as usize])
                .rd(destination(rd))
                .imm(u64::from(imm))
                .aux(u16::from(position))
        }
        Insn::Bitfield {
            op,
            width,
            rd,
            rn,
            immr,
            imms,
        } => bitfield(op, width, rd, u32::from(immr), u32::from(imms)).rn(source(rn)),
        _ => by_registers(insn),
    }
}

/// The rest: what has no immediate but a condition or a position.
#[inline(always)]
fn by_registers(insn: &Insn) -> Bound {
    match *insn {
        Insn::AddSubCarry {
            op,
            width,
            rd,
            rn,
            rm,
        } => three(with_carry(op), width, rd, rn, rm),
        Insn::Extract {
            width,
            rd,
            rn,
            rm,
            lsb,
        } => three(extract(rn, rm, lsb), width, rd, rn, rm).aux(u16::from(lsb)),
        Insn::CondCompare {
            op,
            width,
            rn,
            with,
            nzcv,
            cond,
        } => cond_compare(op.is_sub(), width, with)
            .rn(source(rn))
            .aux(cond as u16 | u16::from(nzcv) << 4),
        Insn::CondSelect {
            op,
            width,
            rd,
            rn,
            rm,
            cond,
        } => three(select(op), width, rd, rn, rm).aux(cond as u16),
        Insn::OneSource { op, width, rd, rn } => Bound::new(one_source(op, width))
            .rd(destination(rd))
            .rn(source(rn)),
        Insn::TwoSource {
            op,
            width,
            rd,
            rn,
            rm,
        } => three(two_source(op), width, rd, rn, rm),
        Insn::Crc32 {
            castagnoli,
            size,
            rd,
            rn,
            rm,
        } => {
            static RUN: [[Handler; 4]; 2] = [crc32!(false), crc32!(true)];
            registers(RUN[usize::from(castagnoli)][size as usize], rd, rn, rm)
        }
        Insn::MultiplyAdd {
            subtract,
            width,
            rd,
            rn,
            rm,
            ra,
        } => {
            static RUN: [Widths; 2] = [widths!(madd), widths!(msub)];
            three(&RUN[usize::from(subtract)], width, rd, rn, rm).ra(source(ra))
        }
        Insn::MultiplyAddLong {
            signed,
            subtract,
            rd,
            rn,
            rm,
            ra,
        } => registers(multiply_long(signed, subtract), rd, rn, rm).ra(source(ra)),
        Insn::MultiplyHigh { signed, rd, rn, rm } => {
            static RUN: [Handler; 2] = [pure_op!(int::umulh), pure_op!(int::smulh)];
            registers(RUN[usize::from(signed)], rd, rn, rm)
        }
        _ => undefined(),
    }
}

fn add_sub_imm(op: AddSub, width: Width, imm: u32) -> Bound {
    static RUN: [Widths; 4] = [
        widths!(add_imm),
        widths!(adds_imm),
        widths!(add_imm),
        widths!(subs_imm),
    ];
    let imm = u64::from(imm);
    Bound::new(RUN[op as usize][width as usize])
        .imm(if op == AddSub::Sub {
            imm.wrapping_neg()
        } else {
            imm
        })
        .part(fuse::add_sub_imm(op, width))
}

fn add_sub_shifted(op: AddSub, width: Width, shift: Shift, amount: u8) -> Bound {
    static PLAIN: [Widths; 4] = [
        widths!(add_plain),
        widths!(adds_reg::<0>),
        widths!(sub_plain),
        widths!(subs_plain),
    ];
    static SHIFTED: [[Widths; 4]; 4] = [
        shifts!(add),
        shifts!(adds_reg),
        shifts!(sub),
        shifts!(subs_reg),
    ];
    if amount == 0 {
        Bound::new(PLAIN[op as usize][width as usize]).part(fuse::add_sub(op, width))
    } else {
        Bound::new(SHIFTED[op as usize][shift as usize][width as usize]).aux(u16::from(amount))
    }
}

fn add_sub_extended(op: AddSub, extend: Extend) -> &'static Widths {
    static RUN: [[Widths; 8]; 4] = [
        extends!(add_ext),
        extends!(adds_ext),
        extends!(sub_ext),
        extends!(subs_ext),
    ];
    &RUN[op as usize][extend as usize]
}

fn with_carry(op: AddSub) -> &'static Widths {
    static RUN: [Widths; 4] = [widths!(adc), widths!(adcs), widths!(sbc), widths!(sbcs)];
    &RUN[op as usize]
}

/// `value` to `rd`, at either width.
fn constant(rd: Reg, value: u64) -> Bound {
    Bound::new(pure_op!(int::constant))
        .rd(destination(rd))
        .imm(value)
}

fn logic_imm(op: Logic, width: Width, rd: Reg, rn: Reg, imm: u64) -> Bound {
    static RUN: [Widths; 4] = [
        widths!(and_imm),
        widths!(orr_imm),
        widths!(eor_imm),
        widths!(ands_imm),
    ];
    if op == Logic::Orr && rn.is_zr() {
        return constant(rd, imm).part(Part::Shape(Shape::Constant));
    }
    Bound::new(RUN[op as usize][width as usize])
        .rd(destination(rd))
        .rn(source(rn))
        .imm(imm)
        .part(fuse::logic_imm(op, width))
}

fn logic_shifted(
    op: Logic,
    invert: bool,
    width: Width,
    rn: Reg,
    shift: Shift,
    amount: u8,
) -> Bound {
    static MOV: Widths = widths!(mov);
    static RUN: [[[Widths; 4]; 2]; 4] = [
        [shifts!(and, false), shifts!(and, true)],
        [shifts!(orr, false), shifts!(orr, true)],
        [shifts!(eor, false), shifts!(eor, true)],
        [shifts!(ands, false), shifts!(ands, true)],
    ];
    let plain = amount == 0 && !invert;
    if plain && op == Logic::Orr && rn.is_zr() {
        return Bound::new(MOV[width as usize]).part(fuse::mov(width));
    }
    let run = RUN[op as usize][usize::from(invert)][shift as usize][width as usize];
    let bound = Bound::new(run).aux(u16::from(amount));
    if plain {
        bound.part(fuse::logic(op, width))
    } else {
        bound
    }
}

/// The special cases of SBFM, BFM and UBFM that have names, and what is left.
fn bitfield(op: Bitfield, width: Width, rd: Reg, r: u32, s: u32) -> Bound {
    static ASR: Widths = widths!(asr_imm);
    static SBFM: Widths = widths!(sbfm);
    static BFM: Widths = widths!(bfm);
    static LSR: Widths = widths!(lsr_imm);
    static LSL: Widths = widths!(lsl_imm);
    static UBFX: Widths = widths!(ubfx);
    static UBFIZ: Widths = widths!(ubfiz);
    let size = width.bits();
    let ones = |count: u32| u64::MAX >> (64 - count);
    let (run, imm, aux) = match op {
        Bitfield::Signed if s >= r => {
            let up = size - 1 - s;
            if up == 0 {
                (&ASR, 0, r)
            } else {
                (&SBFM, 0, up | (up + r) << 8)
            }
        }
        Bitfield::Signed => (&SBFM, 0, (size - 1 - s) | (r - s - 1) << 8),
        // It keeps bits of its destination, so XZR reads as what it is.
        Bitfield::Insert if rd.is_zr() => return Bound::new(pure_op!(int::nop)),
        Bitfield::Insert if s >= r => (&BFM, ones(s - r + 1), r),
        Bitfield::Insert => (&BFM, ones(s + 1) << (size - r), r),
        Bitfield::Unsigned if s == size - 1 => (&LSR, 0, r),
        Bitfield::Unsigned if s + 1 == r => (&LSL, 0, size - r),
        Bitfield::Unsigned if s >= r => (&UBFX, ones(s - r + 1), r),
        Bitfield::Unsigned => (&UBFIZ, ones(s + 1), size - r),
    };
    Bound::new(run[width as usize])
        .rd(destination(rd))
        .imm(imm)
        .aux(aux as u16)
}

fn extract(rn: Reg, rm: Reg, lsb: u8) -> &'static Widths {
    static MOV: Widths = widths!(mov);
    static ROR: Widths = widths!(ror_imm);
    static EXTR: Widths = widths!(extr);
    if lsb == 0 {
        &MOV
    } else if rn == rm {
        &ROR
    } else {
        &EXTR
    }
}

fn cond_compare(subtract: bool, width: Width, with: RegOrImm) -> Bound {
    static REGISTER: [Widths; 2] = [widths!(ccmp::<true, false>), widths!(ccmp::<false, false>)];
    static IMMEDIATE: [Widths; 2] = [widths!(ccmp::<true, true>), widths!(ccmp::<false, true>)];
    let (op, width) = (usize::from(subtract), width as usize);
    match with {
        RegOrImm::Reg(rm) => Bound::new(REGISTER[op][width]).rm(source(rm)),
        RegOrImm::Imm(imm) => Bound::new(IMMEDIATE[op][width]).imm(u64::from(imm)),
    }
}

fn select(op: Select) -> &'static Widths {
    static RUN: [Widths; 4] = [
        widths!(csel),
        widths!(csinc),
        widths!(csinv),
        widths!(csneg),
    ];
    &RUN[op as usize]
}

fn one_source(op: OneSource, width: Width) -> Handler {
    static RUN: [Widths; 6] = [
        widths!(rbit),
        widths!(rev16),
        // Of 64 bits only.
        [pure_op!(int::rev32), pure_op!(int::rev32)],
        widths!(rev),
        widths!(clz),
        widths!(cls),
    ];
    RUN[op as usize][width as usize]
}

fn two_source(op: TwoSource) -> &'static Widths {
    static RUN: [Widths; 6] = [
        widths!(udiv),
        widths!(sdiv),
        widths!(lslv),
        widths!(lsrv),
        widths!(asrv),
        widths!(rorv),
    ];
    &RUN[op as usize]
}

fn multiply_long(signed: bool, subtract: bool) -> Handler {
    match (signed, subtract) {
        (true, false) => pure_op!(int::maddl::<true, false>),
        (true, true) => pure_op!(int::maddl::<true, true>),
        (false, false) => pure_op!(int::maddl::<false, false>),
        (false, true) => pure_op!(int::maddl::<false, true>),
    }
}
