//! SIMD structure loads and stores (C4.1.94, "Advanced SIMD load/store multiple
//! structures" and "single structure", with their post-indexed twins).

use super::{bit, bits};
use crate::insn::structure::{Lanes, StructAccess, Writeback};
use crate::insn::{Insn, Reg, VReg};

/// Words with bits 29:25 as structure loads and stores have them.
pub fn decode(word: u32) -> Insn {
    access(word).map_or(Insn::Undefined, Insn::Structure)
}

fn access(word: u32) -> Option<StructAccess> {
    let post_index = bit(word, 23);
    // bits that must be zero: Rm without post-index, R of multiple structures
    let single = bit(word, 24);
    let reserved = if post_index { 0 } else { bits(word, 16, 5) };
    if bit(word, 31) || reserved != 0 || !single && bit(word, 21) {
        return None;
    }
    let mut access = StructAccess {
        load: bit(word, 22),
        q: bit(word, 30),
        size: bits(word, 10, 2) as u8,
        rpt: 1,
        selem: 1,
        lanes: Lanes::All,
        rt: VReg::new(word),
        base: Reg::or_sp(word >> 5),
        writeback: Writeback::None,
    };
    if single {
        decode_single(&mut access, bits(word, 12, 4), bits(word, 21, 1))?;
    } else {
        decode_multiple(&mut access, bits(word, 12, 4))?;
    }
    if post_index {
        access.writeback = match bits(word, 16, 5) {
            31 => Writeback::Bytes(access.total_bytes() as u8),
            rm => Writeback::Register(Reg::or_zr(rm)),
        };
    }
    Some(access)
}

fn decode_multiple(access: &mut StructAccess, opcode: u32) -> Option<()> {
    (access.rpt, access.selem) = match opcode {
        0b0000 => (1, 4),
        0b0010 => (4, 1),
        0b0100 => (1, 3),
        0b0110 => (3, 1),
        0b0111 => (1, 1),
        0b1000 => (1, 2),
        0b1010 => (2, 1),
        _ => return None,
    };
    // structures of one-lane registers are not allocated
    (access.size < 3 || access.q || access.selem == 1).then_some(())
}

/// `opcode_s` is bits 15:12: the element size, the low bit of the structure
/// size, and S, which with Q and the size field makes up the lane index.
fn decode_single(access: &mut StructAccess, opcode_s: u32, r: u32) -> Option<()> {
    let opcode = opcode_s >> 1;
    let s = (opcode_s & 1) as u8;
    let size = access.size;
    access.selem = ((opcode & 1) << 1 | r) as u8 + 1;
    let q_s = u8::from(access.q) << 1 | s;
    let index = match (opcode >> 1, size) {
        (0, _) => {
            access.size = 0;
            q_s << 2 | size
        }
        (1, 0 | 2) => {
            access.size = 1;
            q_s << 1 | size >> 1
        }
        (2, 0) => {
            access.size = 2;
            q_s
        }
        (2, 1) if s == 0 => {
            access.size = 3;
            q_s >> 1
        }
        (3, _) if access.load && s == 0 => {
            access.lanes = Lanes::Replicate;
            return Some(());
        }
        _ => return None,
    };
    access.lanes = Lanes::One(index);
    Some(())
}
