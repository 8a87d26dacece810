//! Fuzz targets as plain functions: hostile bytes in, a panic if an invariant
//! breaks. `cargo test` replays them on a fixed seed; a fuzzer can call them too.

mod code;
mod notes;

use crate::gic::{Gic, GicConfig, IccReg, MSI_SET_SPI, MsiConfig};
use crate::link::VcpuShared;
use std::sync::Arc;

pub use code::fuzz_code;
pub use notes::fuzz_code_notes;

const VCPUS: usize = 3;
const CONFIG: GicConfig = GicConfig {
    distributor: 0x0800_0000,
    redistributor: 0x080a_0000,
    msi: Some(MsiConfig {
        base: 0x0802_0000,
        first: 96,
        count: 16,
    }),
};

fn controller() -> Gic {
    let gic = Gic::new(CONFIG);
    for index in 0..VCPUS {
        gic.attach(&Arc::new(VcpuShared::new(index)));
    }
    gic
}

/// Makes the checksum of a saved interrupt controller right, whatever else is
/// wrong with it.
pub fn fix_gic_checksum(state: &mut [u8]) {
    crate::gic::fix_checksum(state);
}

/// Restores `data` as a saved interrupt controller, both as it is and with its
/// checksum made right. What is accepted must save to the same bytes again.
pub fn fuzz_gic_state(data: &[u8]) {
    let gic = controller();
    let before = gic.save();
    if gic.restore(data).is_err() {
        assert_eq!(gic.save(), before, "a refused state changed something");
    }
    // Past the checksum: the same bytes over a good state.
    let mut forged = before;
    let body = forged.len() - 4;
    for (to, from) in forged[12..body].iter_mut().zip(data) {
        *to ^= from;
    }
    crate::gic::fix_checksum(&mut forged);
    if gic.restore(&forged).is_ok() {
        let first = gic.save();
        let copy = controller();
        assert!(copy.restore(&first).is_ok());
        assert_eq!(copy.save(), first);
    }
    gic.check_lines();
}

/// Runs `data` as register accesses and device interrupts, 16 bytes each, and
/// checks after each that the cached interrupt lines are what the state says.
pub fn fuzz_gic_registers(data: &[u8]) {
    let gic = controller();
    for step in data.chunks_exact(16) {
        let vcpu = usize::from(step[1]) % VCPUS;
        let number = u32::from_le_bytes([step[4], step[5], step[6], step[7]]);
        let value = step[8..]
            .iter()
            .rev()
            .fold(0, |v, b| v << 8 | u64::from(*b));
        let size = 1 << (step[2] & 3);
        match step[0] % 12 {
            0 => gic.mmio_write(
                CONFIG.distributor + u64::from(number & 0xfff),
                size,
                value,
                vcpu,
            ),
            1 => {
                let spi = u64::from(32 + number % 96);
                gic.mmio_write(CONFIG.distributor + 0x6000 + 8 * spi, 8, value & 3, vcpu);
            }
            2 => gic.mmio_write(
                gic.redistributor_base(vcpu) + 0x1_0000 + u64::from(number & 0xfff),
                size,
                value,
                vcpu,
            ),
            3 => {
                gic.mmio_read(CONFIG.distributor + u64::from(number & 0xffff), size, vcpu);
                gic.mmio_read(
                    gic.redistributor_base(vcpu) + u64::from(number & 0x1_ffff),
                    size,
                    vcpu,
                );
            }
            // SPIs that do not exist are refused, which is fine here.
            4 => drop(gic.set_spi(number % 140, value & 1 != 0)),
            5 => drop(gic.send_msi(0x0802_0000 + MSI_SET_SPI, number % 140)),
            6 => gic.set_ppi(vcpu, number % 40, value & 1 != 0),
            7 => gic.icc_write(vcpu, IccReg::Sgi1r, value),
            8 => {
                let intid = gic.icc_read(vcpu, IccReg::Iar1);
                if value & 1 != 0 {
                    gic.icc_write(vcpu, IccReg::Eoir1, intid);
                }
            }
            9 => gic.icc_write(vcpu, IccReg::Eoir1, u64::from(number % 1100)),
            10 => gic.icc_write(vcpu, IccReg::Pmr, 0xf0 | value),
            _ => {
                let key = 0xc640 + (number & 0x3f) as u16;
                if let Some(reg) = IccReg::from_key(key) {
                    gic.icc_write(vcpu, reg, value);
                    gic.icc_read(vcpu, reg);
                }
            }
        }
        gic.check_lines();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ahead::plan::Plan;

    /// A fixed pseudo-random sequence (SplitMix64).
    fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        };
        (0..len.div_ceil(8))
            .flat_map(|_| next().to_le_bytes())
            .take(len)
            .collect()
    }

    /// The steps that make interrupts flow: everything enabled on all vCPUs.
    fn enable_all() -> Vec<u8> {
        let mut steps = Vec::new();
        let mut step = |kind: u8, vcpu: u8, number: u32, value: u64| {
            steps.extend_from_slice(&[kind, vcpu, 2, 0]);
            steps.extend_from_slice(&number.to_le_bytes());
            steps.extend_from_slice(&value.to_le_bytes());
        };
        step(0, 0, 0, 2);
        for bank in 1..4 {
            step(0, 0, 0x100 + 4 * bank, u64::MAX);
        }
        for vcpu in 0..VCPUS as u8 {
            step(2, vcpu, 0x100, u64::MAX);
            step(10, vcpu, 0, 0xf0);
            step(11, vcpu, 0x27, 1);
        }
        steps
    }

    #[test]
    fn cached_lines_match_the_state_after_every_random_access() {
        for seed in 0..300 {
            let mut steps = enable_all();
            steps.extend(bytes(seed, 16 * 200));
            fuzz_gic_registers(&steps);
        }
    }

    #[test]
    fn arbitrary_words_are_executed_without_harm() {
        for seed in 0..60 {
            fuzz_code(&bytes(seed, 4 * 64));
            // Of the encodings of data processing, loads and stores.
            let defined: Vec<u8> = bytes(seed + 1000, 4 * 64)
                .chunks(4)
                .flat_map(|c| {
                    [
                        c[0],
                        c[1],
                        c[2],
                        c[3] & !0x18 | [0x10, 0x08, 0x18][c[0] as usize % 3],
                    ]
                })
                .collect();
            fuzz_code(&defined);
        }
    }

    #[test]
    fn arbitrary_notes_of_code_change_no_result() {
        let good = Plan::of((0..64).map(|n| 0x4000_0000 + 4 * n), [0x4_0000]).encode();
        fuzz_code_notes(&good);
        for seed in 0..100 {
            fuzz_code_notes(&bytes(seed, seed as usize * 40));
            // Past the header, and with one byte of it changed.
            let noise = bytes(seed, 64);
            let mut forged = good.clone();
            let at = usize::from(noise[0]) % forged.len();
            forged[at] ^= noise[1];
            fuzz_code_notes(&forged);
            forged.splice(16.., noise.into_iter().map(|byte| byte & 0x9f));
            fuzz_code_notes(&forged);
        }
    }

    #[test]
    fn random_states_are_refused_or_restored_whole() {
        for seed in 0..300 {
            fuzz_gic_state(&bytes(seed, seed as usize * 5));
            // Mostly zero, so that most of the forged state stays as it was.
            let sparse: Vec<u8> = bytes(seed, 1500)
                .chunks(3)
                .flat_map(|c| [if c[0] < 4 { c[1] } else { 0 }, 0, 0])
                .collect();
            fuzz_gic_state(&sparse);
        }
    }
}
