//! How encodings of system registers are packed.

/// Packs an encoding as Hypervisor.framework does (and KVM):
/// `op0:op1:CRn:CRm:op2` as 2+3+4+4+3 bits.
pub const fn key(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// The key of the register that MRS or MSR (register) `word` names.
pub fn key_of(word: u32) -> u16 {
    (word >> 5 & 0xffff) as u16
}
