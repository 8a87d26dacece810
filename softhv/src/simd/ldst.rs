//! The registers' side of the SIMD structure loads and stores.
//!
//! The caller reads all of memory before [`load_from`], or takes all of it from
//! [`store_to`] before it writes, so that a fault leaves no partial effect on
//! registers; and adds the writeback after the access.

use crate::insn::structure::{Lanes, MAX_BYTES, StructAccess};
use crate::regs::{Regs, V};

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
