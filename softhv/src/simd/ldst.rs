//! The SIMD structure loads and stores, LD1..LD4, ST1..ST4 and LD1R..LD4R, as
//! far as they concern registers. Arm ARM C4.1.94, "Advanced SIMD load/store
//! multiple structures" and "single structure", with their post-indexed twins.
//!
//! Memory is one contiguous run of [`StructAccess::total_bytes`] bytes at Rn.
//! The caller reads all of it before [`load_from`], or takes all of it from
//! [`store_to`] before it writes, so that a fault leaves no partial effect on
//! registers; and adds the writeback after the access.

use crate::cpu::op::SP;
use crate::regs::{Regs, V};

/// Largest number of bytes that one structure access moves: four registers.
pub const MAX_BYTES: usize = 64;

/// What the elements in memory correspond to in the registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lanes {
    /// Every lane.
    All,
    /// One lane, the others staying as they are.
    One(u8),
    /// Every lane receives the same element.
    Replicate,
}

/// What post-indexing adds to the base register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writeback {
    /// No post-index.
    None,
    /// This many bytes, the size of the access.
    Bytes(u8),
    /// General register X0..X30.
    Register(u8),
}

/// A SIMD structure load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StructAccess {
    /// Load rather than store.
    pub load: bool,
    /// 128-bit rather than 64-bit registers.
    pub q: bool,
    /// log2 of the bytes of one element.
    pub size: u8,
    /// Registers that follow each other in memory: 1, except for LD1 and ST1
    /// of several registers.
    pub rpt: u8,
    /// Elements of one structure, each in a register of its own.
    pub selem: u8,
    /// Which lanes take part.
    pub lanes: Lanes,
    /// First vector register; those after V31 start again at V0.
    pub rt: u8,
    /// Slot of the base register in [`Regs::x`]: X0..X30 or [`SP`].
    pub rn: u8,
    /// What the base register is advanced by afterwards.
    pub writeback: Writeback,
}

impl StructAccess {
    /// Bytes moved between memory and registers, 1 to [`MAX_BYTES`].
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        match self.lanes {
            Lanes::All => self.register_bytes() * usize::from(self.rpt * self.selem),
            _ => usize::from(self.selem) << self.size,
        }
    }

    fn register_bytes(&self) -> usize {
        if self.q { 16 } else { 8 }
    }

    fn register(&self, index: usize) -> usize {
        (usize::from(self.rt) + index) & 31
    }
}

/// The access of `word`, if it is an allocated structure load or store.
#[must_use]
pub fn decode_struct(word: u32) -> Option<StructAccess> {
    let bits = |low: u32, len: u32| word >> low & ((1 << len) - 1);
    if word & 0xbe00_0000 != 0x0c00_0000 {
        return None;
    }
    let post_index = bits(23, 1) == 1;
    // bits that must be zero: Rm without post-index, R of multiple structures
    let single = bits(24, 1) == 1;
    let reserved = if post_index { 0 } else { bits(16, 5) } | if single { 0 } else { bits(21, 1) };
    if reserved != 0 {
        return None;
    }
    let mut access = StructAccess {
        load: bits(22, 1) == 1,
        q: bits(30, 1) == 1,
        size: bits(10, 2) as u8,
        rpt: 1,
        selem: 1,
        lanes: Lanes::All,
        rt: bits(0, 5) as u8,
        rn: bits(5, 5) as u8,
        writeback: Writeback::None,
    };
    const { assert!(SP == 31) };
    if single {
        decode_single(&mut access, bits(12, 4), bits(21, 1))?;
    } else {
        decode_multiple(&mut access, bits(12, 4))?;
    }
    if post_index {
        access.writeback = match bits(16, 5) as u8 {
            31 => Writeback::Bytes(access.total_bytes() as u8),
            rm => Writeback::Register(rm),
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

/// Byte position, register (from Rt) and lane of each element of an access to
/// all lanes of interleaved registers.
fn elements(access: &StructAccess) -> impl Iterator<Item = (usize, usize, usize)> {
    let (size, selem) = (access.size, usize::from(access.selem));
    (0..(access.register_bytes() * selem) >> size).map(move |i| (i << size, i % selem, i / selem))
}

/// The element of `1 << size` bytes at `position`; zero beyond the buffer.
#[inline(always)]
fn element(bytes: &[u8], position: usize, size: u8) -> u64 {
    let mut value = [0; 8];
    if let Some(from) = bytes.get(position..position + (1 << size)) {
        value[..from.len()].copy_from_slice(from);
    }
    u64::from_le_bytes(value)
}

#[inline(always)]
fn lane(v: V, lane: usize, size: u8) -> u64 {
    match size {
        0 => v.lane::<u8>(lane).into(),
        1 => v.lane::<u16>(lane).into(),
        2 => v.lane::<u32>(lane).into(),
        _ => v.lane(lane),
    }
}

#[inline(always)]
fn with_lane(v: V, lane: usize, size: u8, value: u64) -> V {
    match size {
        0 => v.with_lane(lane, value as u8),
        1 => v.with_lane(lane, value as u16),
        2 => v.with_lane(lane, value as u32),
        _ => v.with_lane(lane, value),
    }
}

fn splat(size: u8, value: u64) -> V {
    match size {
        0 => V::splat(value as u8),
        1 => V::splat(value as u16),
        2 => V::splat(value as u32),
        _ => V::splat(value),
    }
}

/// Distributes the bytes at the base address, of which there must be
/// [`StructAccess::total_bytes`], into the registers of a load.
pub fn load_from(regs: &mut Regs, access: &StructAccess, bytes: &[u8]) {
    match access.lanes {
        Lanes::All if access.selem == 1 => {
            let width = access.register_bytes();
            for (i, part) in bytes
                .chunks_exact(width)
                .take(access.rpt.into())
                .enumerate()
            {
                let low = element(part, 0, 3);
                let high = if access.q { element(part, 8, 3) } else { 0 };
                regs.v[access.register(i)] = V([low, high]);
            }
        }
        Lanes::All => {
            let mut loaded = [V::default(); 4];
            for (position, slot, index) in elements(access) {
                let value = element(bytes, position, access.size);
                loaded[slot] = with_lane(loaded[slot], index, access.size, value);
            }
            for (i, v) in loaded.into_iter().take(access.selem.into()).enumerate() {
                regs.v[access.register(i)] = v;
            }
        }
        Lanes::One(index) => {
            for i in 0..usize::from(access.selem) {
                let value = element(bytes, i << access.size, access.size);
                let v = &mut regs.v[access.register(i)];
                *v = with_lane(*v, index.into(), access.size, value);
            }
        }
        Lanes::Replicate => {
            for i in 0..usize::from(access.selem) {
                let v = splat(access.size, element(bytes, i << access.size, access.size));
                regs.v[access.register(i)] = if access.q { v } else { v.low() };
            }
        }
    }
}

/// Collects what a store writes at the base address into the first
/// [`StructAccess::total_bytes`] bytes of `out`.
pub fn store_to(regs: &Regs, access: &StructAccess, out: &mut [u8; MAX_BYTES]) {
    let mut put = |position: usize, size: u8, value: u64| {
        let bytes = value.to_le_bytes();
        if let Some(to) = out.get_mut(position..position + (1 << size)) {
            to.copy_from_slice(&bytes[..1 << size]);
        }
    };
    match access.lanes {
        Lanes::All if access.selem == 1 => {
            let width = access.register_bytes();
            for i in 0..usize::from(access.rpt) {
                let v = regs.v[access.register(i)];
                put(i * width, 3, v.0[0]);
                if access.q {
                    put(i * width + 8, 3, v.0[1]);
                }
            }
        }
        Lanes::All => {
            for (position, slot, index) in elements(access) {
                let v = regs.v[access.register(slot)];
                put(position, access.size, lane(v, index, access.size));
            }
        }
        Lanes::One(index) => {
            for i in 0..usize::from(access.selem) {
                let v = regs.v[access.register(i)];
                put(
                    i << access.size,
                    access.size,
                    lane(v, index.into(), access.size),
                );
            }
        }
        // no store replicates
        Lanes::Replicate => {}
    }
}
