//! Loads and stores (C4.1.94).

use super::{bit, bits, signed, structure, width};
use crate::insn::{Address, Atomic, Extend, Insn, Load, PairLoad, Reg, Size, VReg, VSize, Width};

pub fn decode(word: u32) -> Insn {
    let vector = bit(word, 26);
    match bits(word, 28, 2) {
        0 if vector => structure::decode(word),
        0 if !bit(word, 24) => exclusive(word),
        1 if !bit(word, 24) => literal(word),
        2 => pair(word),
        3 if bit(word, 24) => transfer(
            word,
            Address::Offset {
                base: base(word),
                offset: (bits(word, 10, 12) << scale(word)) as i32,
            },
        ),
        3 if bit(word, 21) => indexed_or_atomic(word),
        3 => unscaled(word),
        _ => Insn::Undefined,
    }
}

/// The base register.
fn base(word: u32) -> Reg {
    Reg::or_sp(word >> 5)
}

/// log2 of the bytes that `word`, one of the register forms, transfers.
fn scale(word: u32) -> u32 {
    if bit(word, 26) && bit(word, 23) {
        4
    } else {
        bits(word, 30, 2)
    }
}

/// What the size and opc fields say about a general register.
enum General {
    Load(Load),
    Store(Size),
    Prefetch,
}

fn general(word: u32) -> Option<General> {
    let size = bits(word, 30, 2);
    Some(match (bits(word, 22, 2), size) {
        (0, _) => General::Store(Size::of(size)),
        (1, _) => General::Load(Load::of(size)),
        (2, 0) => General::Load(Load::SbX),
        (2, 1) => General::Load(Load::ShX),
        (2, 2) => General::Load(Load::SwX),
        (2, _) => General::Prefetch,
        (_, 0) => General::Load(Load::SbW),
        (_, 1) => General::Load(Load::ShW),
        _ => return None,
    })
}

/// A transfer of one register of any kind, or a prefetch.
fn transfer(word: u32, address: Address) -> Insn {
    if bit(word, 26) {
        let (size, rt) = (scale(word), VReg::new(word));
        if bit(word, 23) && bits(word, 30, 2) != 0 {
            return Insn::Undefined;
        }
        let size = VSize::of(size);
        return if bit(word, 22) {
            Insn::LoadVec { size, rt, address }
        } else {
            Insn::StoreVec { size, rt, address }
        };
    }
    let rt = Reg::or_zr(word);
    match general(word) {
        Some(General::Load(what)) => Insn::Load { what, rt, address },
        Some(General::Store(size)) => Insn::Store { size, rt, address },
        Some(General::Prefetch) => Insn::Prefetch {
            hint: bits(word, 0, 5) as u8,
            address,
        },
        None => Insn::Undefined,
    }
}

fn unscaled(word: u32) -> Insn {
    let (base, offset) = (base(word), signed(word, 12, 9));
    let is_prefetch = !bit(word, 26) && bits(word, 30, 2) == 3 && bits(word, 22, 2) == 2;
    match bits(word, 10, 2) {
        0 => transfer(word, Address::Offset { base, offset }),
        _ if is_prefetch => Insn::Undefined,
        1 => transfer(word, Address::PostIndex { base, offset }),
        2 => unprivileged(word, Address::Offset { base, offset }),
        _ => transfer(word, Address::PreIndex { base, offset }),
    }
}

fn unprivileged(word: u32, address: Address) -> Insn {
    let rt = Reg::or_zr(word);
    match general(word) {
        _ if bit(word, 26) => Insn::Undefined,
        Some(General::Load(what)) => Insn::LoadUser { what, rt, address },
        Some(General::Store(size)) => Insn::StoreUser { size, rt, address },
        Some(General::Prefetch) | None => Insn::Undefined,
    }
}

fn indexed_or_atomic(word: u32) -> Insn {
    match bits(word, 10, 2) {
        // The index is a word or a doubleword.
        2 if bit(word, 14) => transfer(
            word,
            Address::Index {
                base: base(word),
                index: Reg::or_zr(word >> 16),
                extend: Extend::of(bits(word, 13, 3)),
                amount: if bit(word, 12) { scale(word) as u8 } else { 0 },
            },
        ),
        0 if !bit(word, 26) => update(word),
        _ => Insn::Undefined,
    }
}

fn update(word: u32) -> Insn {
    let size = Size::of(bits(word, 30, 2));
    let (rt, base) = (Reg::or_zr(word), base(word));
    let op = match bits(word, 12, 4) {
        op @ 0..=8 => Atomic::of(op),
        // LDAPR: A = 1, R = 0, Rs = 31.
        12 if bits(word, 16, 8) == 0b1011_1111 => {
            return Insn::LoadAcquire {
                size,
                weak: true,
                rt,
                base,
            };
        }
        _ => return Insn::Undefined,
    };
    Insn::Update {
        op,
        size,
        acquire: bit(word, 23),
        release: bit(word, 22),
        rs: Reg::or_zr(word >> 16),
        rt,
        base,
    }
}

fn exclusive(word: u32) -> Insn {
    let size = Size::of(bits(word, 30, 2));
    let (rt, base) = (Reg::or_zr(word), base(word));
    let status = Reg::or_zr(word >> 16);
    // Bit 15 orders what follows a load, or a store after what came before.
    let ordered = bit(word, 15);
    match (bit(word, 23), bit(word, 21), bit(word, 22)) {
        (false, false, true) => Insn::LoadExclusive {
            size,
            acquire: ordered,
            rt,
            base,
        },
        (false, false, false) => Insn::StoreExclusive {
            size,
            release: ordered,
            status,
            rt,
            base,
        },
        (false, true, load) => exclusive_pair(word, load),
        (true, false, true) if ordered => Insn::LoadAcquire {
            size,
            weak: false,
            rt,
            base,
        },
        (true, false, false) if ordered => Insn::StoreRelease { size, rt, base },
        (true, true, acquire) if bits(word, 10, 5) == 31 => Insn::CompareSwap {
            size,
            acquire,
            release: ordered,
            rs: status,
            rt,
            base,
        },
        _ => Insn::Undefined,
    }
}

/// LDXP and STXP, or CASP in their place for sizes that they do not have.
fn exclusive_pair(word: u32, load: bool) -> Insn {
    let width = Width::of(bits(word, 30, 1));
    let (rt, base) = (Reg::or_zr(word), base(word));
    let (rt2, rs) = (Reg::or_zr(word >> 10), Reg::or_zr(word >> 16));
    let ordered = bit(word, 15);
    match (bit(word, 31), load) {
        (true, true) => Insn::LoadExclusivePair {
            width,
            acquire: ordered,
            rt,
            rt2,
            base,
        },
        (true, false) => Insn::StoreExclusivePair {
            width,
            release: ordered,
            status: rs,
            rt,
            rt2,
            base,
        },
        // Both registers are even.
        (false, acquire) if rt2.is_zr() && !bit(word, 0) && !bit(word, 16) => {
            Insn::CompareSwapPair {
                width,
                acquire,
                release: ordered,
                rs,
                rt,
                base,
            }
        }
        _ => Insn::Undefined,
    }
}

fn literal(word: u32) -> Insn {
    let address = Address::Literal {
        offset: signed(word, 5, 19) << 2,
    };
    let size = bits(word, 30, 2);
    if bit(word, 26) {
        return if size == 3 {
            Insn::Undefined
        } else {
            Insn::LoadVec {
                size: VSize::of(2 + size),
                rt: VReg::new(word),
                address,
            }
        };
    }
    let what = match size {
        0 => Load::W,
        1 => Load::X,
        2 => Load::SwX,
        _ => {
            return Insn::Prefetch {
                hint: bits(word, 0, 5) as u8,
                address,
            };
        }
    };
    Insn::Load {
        what,
        rt: Reg::or_zr(word),
        address,
    }
}

fn pair(word: u32) -> Insn {
    let (vector, load) = (bit(word, 26), bit(word, 22));
    let size = bits(word, 30, 2);
    let mode = bits(word, 23, 2);
    let shift = if vector { 2 + size } else { 2 + size / 2 };
    let (base, offset) = (base(word), signed(word, 15, 7) << shift);
    let address = match mode {
        1 => Address::PostIndex { base, offset },
        3 => Address::PreIndex { base, offset },
        _ => Address::Offset { base, offset },
    };
    let streaming = mode == 0;
    if vector {
        let size = VSize::of(shift);
        let (rt, rt2) = (VReg::new(word), VReg::new(word >> 10));
        return match load {
            _ if shift > 4 => Insn::Undefined,
            true => Insn::LoadVecPair {
                size,
                streaming,
                rt,
                rt2,
                address,
            },
            false => Insn::StoreVecPair {
                size,
                streaming,
                rt,
                rt2,
                address,
            },
        };
    }
    let (rt, rt2) = (Reg::or_zr(word), Reg::or_zr(word >> 10));
    match (load, size) {
        // LDPSW has no non-temporal form, and no store.
        (_, 3) => Insn::Undefined,
        (false, 1) => Insn::Undefined,
        (true, 1) if streaming => Insn::Undefined,
        (true, _) => Insn::LoadPair {
            what: PairLoad::of(size),
            streaming,
            rt,
            rt2,
            address,
        },
        (false, _) => Insn::StorePair {
            width: width(word),
            streaming,
            rt,
            rt2,
            address,
        },
    }
}
