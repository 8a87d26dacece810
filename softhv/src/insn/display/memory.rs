//! Text of loads and stores.

use super::{General, Place, Scalar, Shifted, w, x};
use crate::insn::structure::{Lanes, Writeback};
use crate::insn::{Address, Extend, Insn, Load, PairLoad, Reg, Shift, Size, StructAccess, Width};
use std::fmt::{self, Display, Formatter};

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Offset { base, offset: 0 } => write!(f, "[{}]", x(base)),
            Self::Offset { base, offset } => write!(f, "[{}, #{offset}]", x(base)),
            Self::PreIndex { base, offset } => write!(f, "[{}, #{offset}]!", x(base)),
            Self::PostIndex { base, offset } => write!(f, "[{}], #{offset}", x(base)),
            Self::Index {
                base,
                index,
                extend: Extend::Uxtx,
                amount,
            } => {
                let by = Shifted(Shift::Lsl, amount);
                write!(f, "[{}, {}{by}]", x(base), x(index))
            }
            Self::Index {
                base,
                index,
                extend,
                amount,
            } => {
                let width = Width::of(u32::from(extend == Extend::Sxtx));
                write!(f, "[{}, {}, {extend}", x(base), General(index, width))?;
                match amount {
                    0 => f.write_str("]"),
                    _ => write!(f, " #{amount}]"),
                }
            }
            Self::Literal { offset } => write!(f, "{}", Place(offset.into())),
        }
    }
}

/// What follows the name of an access of `size`: nothing for whole registers.
fn suffix(size: Size) -> &'static str {
    ["b", "h", "", ""][size as usize]
}

/// What follows the name of a load, and the register's width.
fn loaded(what: Load) -> (&'static str, Width) {
    let name = match what {
        Load::B => "b",
        Load::H => "h",
        Load::W | Load::X => "",
        Load::SbW | Load::SbX => "sb",
        Load::ShW | Load::ShX => "sh",
        Load::SwX => "sw",
    };
    (name, what.width())
}

fn width(size: Size) -> Width {
    Width::of(u32::from(size == Size::X))
}

pub fn write(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::Load { what, rt, address } => {
            let (name, width) = loaded(what);
            write!(f, "ldr{name} {}, {address}", General(rt, width))
        }
        Insn::LoadUser { what, rt, address } => {
            let (name, width) = loaded(what);
            write!(f, "ldtr{name} {}, {address}", General(rt, width))
        }
        Insn::Store { size, rt, address } => {
            let rt = General(rt, width(size));
            write!(f, "str{} {rt}, {address}", suffix(size))
        }
        Insn::StoreUser { size, rt, address } => {
            let rt = General(rt, width(size));
            write!(f, "sttr{} {rt}, {address}", suffix(size))
        }
        Insn::LoadVec { size, rt, address } => write!(f, "ldr {}, {address}", Scalar(rt, size)),
        Insn::StoreVec { size, rt, address } => write!(f, "str {}, {address}", Scalar(rt, size)),
        Insn::Prefetch { hint, address } => write!(f, "prfm #{hint:#04x}, {address}"),
        Insn::Structure(access) => write!(f, "{access}"),
        Insn::LoadPair { .. }
        | Insn::StorePair { .. }
        | Insn::LoadVecPair { .. }
        | Insn::StoreVecPair { .. } => pair(insn, f),
        _ => exclusive(insn, f),
    }
}

fn pair(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    let streams = |streaming: bool| if streaming { "n" } else { "" };
    match *insn {
        Insn::LoadPair {
            what,
            streaming,
            rt,
            rt2,
            address,
        } => {
            let (name, width) = match what {
                PairLoad::W => ("p", Width::W),
                PairLoad::SwX => ("psw", Width::X),
                PairLoad::X => ("p", Width::X),
            };
            let (rt, rt2) = (General(rt, width), General(rt2, width));
            write!(f, "ld{}{name} {rt}, {rt2}, {address}", streams(streaming))
        }
        Insn::StorePair {
            width,
            streaming,
            rt,
            rt2,
            address,
        } => {
            let (rt, rt2) = (General(rt, width), General(rt2, width));
            write!(f, "st{}p {rt}, {rt2}, {address}", streams(streaming))
        }
        Insn::LoadVecPair {
            size,
            streaming,
            rt,
            rt2,
            address,
        } => {
            let (rt, rt2) = (Scalar(rt, size), Scalar(rt2, size));
            write!(f, "ld{}p {rt}, {rt2}, {address}", streams(streaming))
        }
        Insn::StoreVecPair {
            size,
            streaming,
            rt,
            rt2,
            address,
        } => {
            let (rt, rt2) = (Scalar(rt, size), Scalar(rt2, size));
            write!(f, "st{}p {rt}, {rt2}, {address}", streams(streaming))
        }
        _ => Ok(()),
    }
}

fn exclusive(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::LoadExclusive {
            size,
            acquire,
            rt,
            base,
        } => {
            let order = if acquire { "a" } else { "" };
            let rt = General(rt, width(size));
            write!(f, "ld{order}xr{} {rt}, [{}]", suffix(size), x(base))
        }
        Insn::StoreExclusive {
            size,
            release,
            status,
            rt,
            base,
        } => {
            let order = if release { "l" } else { "" };
            let (name, rt) = (suffix(size), General(rt, width(size)));
            write!(f, "st{order}xr{name} {}, {rt}, [{}]", w(status), x(base))
        }
        Insn::LoadExclusivePair {
            width,
            acquire,
            rt,
            rt2,
            base,
        } => {
            let order = if acquire { "a" } else { "" };
            let (rt, rt2) = (General(rt, width), General(rt2, width));
            write!(f, "ld{order}xp {rt}, {rt2}, [{}]", x(base))
        }
        Insn::StoreExclusivePair {
            width,
            release,
            status,
            rt,
            rt2,
            base,
        } => {
            let order = if release { "l" } else { "" };
            let (rt, rt2) = (General(rt, width), General(rt2, width));
            write!(f, "st{order}xp {}, {rt}, {rt2}, [{}]", w(status), x(base))
        }
        _ => ordered(insn, f),
    }
}

/// `a` and `l` where an atomic instruction acquires and releases.
fn orders(acquire: bool, release: bool) -> &'static str {
    match (acquire, release) {
        (false, false) => "",
        (true, false) => "a",
        (false, true) => "l",
        (true, true) => "al",
    }
}

/// The register after `reg` in a pair, the first of which is even.
fn second(reg: Reg) -> Reg {
    Reg::or_zr(reg.field() + 1)
}

fn ordered(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::LoadAcquire {
            size,
            weak,
            rt,
            base,
        } => {
            let name = if weak { "ldapr" } else { "ldar" };
            let rt = General(rt, width(size));
            write!(f, "{name}{} {rt}, [{}]", suffix(size), x(base))
        }
        Insn::StoreRelease { size, rt, base } => {
            let rt = General(rt, width(size));
            write!(f, "stlr{} {rt}, [{}]", suffix(size), x(base))
        }
        Insn::CompareSwap {
            size,
            acquire,
            release,
            rs,
            rt,
            base,
        } => {
            let [rs, rt] = [rs, rt].map(|reg| General(reg, width(size)));
            let (order, size) = (orders(acquire, release), suffix(size));
            write!(f, "cas{order}{size} {rs}, {rt}, [{}]", x(base))
        }
        Insn::CompareSwapPair {
            width,
            acquire,
            release,
            rs,
            rt,
            base,
        } => {
            let regs = [rs, second(rs), rt, second(rt)];
            let [rs, rs2, rt, rt2] = regs.map(|reg| General(reg, width));
            let order = orders(acquire, release);
            write!(f, "casp{order} {rs}, {rs2}, {rt}, {rt2}, [{}]", x(base))
        }
        Insn::Update {
            op,
            size,
            acquire,
            release,
            rs,
            rt,
            base,
        } => {
            const NAMES: [&str; 9] = [
                "ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin", "swp",
            ];
            let name = NAMES[op as usize];
            let [rs, rt] = [rs, rt].map(|reg| General(reg, width(size)));
            let (order, size) = (orders(acquire, release), suffix(size));
            write!(f, "{name}{order}{size} {rs}, {rt}, [{}]", x(base))
        }
        _ => Ok(()),
    }
}

impl Display for StructAccess {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let letter = ["b", "h", "s", "d"][usize::from(self.size & 3)];
        let (lanes, lane) = match self.lanes {
            Lanes::One(index) => (letter.to_owned(), format!("[{index}]")),
            _ => {
                let count = self.register_bytes() >> self.size;
                (format!("{count}{letter}"), String::new())
            }
        };
        let count = usize::from(self.rpt * self.selem);
        let name = |index: usize| format!("v{}.{lanes}", self.register(index));
        // A range unless it goes past the last register.
        let list = if count > 2 && usize::from(self.rt.number()) + count <= 32 {
            format!("{}-{}", name(0), name(count - 1))
        } else {
            (0..count).map(name).collect::<Vec<_>>().join(", ")
        };
        let kind = if self.load { "ld" } else { "st" };
        let all = if self.lanes == Lanes::Replicate {
            "r"
        } else {
            ""
        };
        write!(
            f,
            "{kind}{}{all} {{{list}}}{lane}, [{}]",
            self.selem,
            x(self.base)
        )?;
        match self.writeback {
            Writeback::None => Ok(()),
            Writeback::Bytes(bytes) => write!(f, ", #{bytes}"),
            Writeback::Register(register) => write!(f, ", {}", x(register)),
        }
    }
}
