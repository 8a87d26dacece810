//! 64-bit Arm guests.

mod board;
pub mod boot;
pub mod fdt;
mod guest;
pub mod image;
pub mod inject;
pub mod layout;
pub mod psci;
pub mod registers;
pub mod syndrome;

pub use guest::Aarch64;

/// `MPIDR_EL1` of vCPU `index`: 16 vCPUs to a cluster, so that one software
/// interrupt can name all of a cluster (Arm IHI 0069, `ICC_SGI1R_EL1`), and
/// bit 31, which is one by definition.
pub const fn mpidr(index: u32) -> u64 {
    1 << 31 | affinity(index)
}

/// The affinity fields of [`mpidr`], as device trees and PSCI name a vCPU.
pub const fn affinity(index: u32) -> u64 {
    ((index >> 4 & 0xff) << 8 | index & 0xf) as u64
}

/// The vCPU with an affinity, if there can be one.
pub const fn index_of(affinity: u64) -> Option<u32> {
    if affinity & !0xff0f == 0 {
        let [low, high, ..] = affinity.to_le_bytes();
        Some((high as u32) << 4 | low as u32)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn affinities_name_their_vcpu() {
        for index in [0, 1, 15, 16, 17, 255, 4095] {
            assert_eq!(super::index_of(super::affinity(index)), Some(index));
        }
        assert_eq!(super::affinity(17), 0x101);
        assert_eq!(super::mpidr(3), 0x8000_0003);
        assert_eq!(super::index_of(0x10), None);
        assert_eq!(super::index_of(1 << 32), None);
        assert_eq!(super::index_of(1 << 31), None);
    }
}
