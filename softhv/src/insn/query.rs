//! Questions that whoever reads instructions has about many of them.

use super::{Address, Insn, Reg};

impl Insn {
    /// The memory operand, of the loads and stores that have addressing modes.
    #[inline]
    #[must_use]
    pub const fn address(&self) -> Option<Address> {
        match *self {
            Self::Load { address, .. }
            | Self::Store { address, .. }
            | Self::LoadVec { address, .. }
            | Self::StoreVec { address, .. }
            | Self::LoadUser { address, .. }
            | Self::StoreUser { address, .. }
            | Self::Prefetch { address, .. }
            | Self::LoadPair { address, .. }
            | Self::StorePair { address, .. }
            | Self::LoadVecPair { address, .. }
            | Self::StoreVecPair { address, .. } => Some(address),
            _ => None,
        }
    }

    /// The register that a load or store takes its address from.
    #[inline]
    #[must_use]
    pub const fn base(&self) -> Option<Reg> {
        match *self {
            Self::LoadExclusive { base, .. }
            | Self::StoreExclusive { base, .. }
            | Self::LoadExclusivePair { base, .. }
            | Self::StoreExclusivePair { base, .. }
            | Self::LoadAcquire { base, .. }
            | Self::StoreRelease { base, .. }
            | Self::CompareSwap { base, .. }
            | Self::CompareSwapPair { base, .. }
            | Self::Update { base, .. } => Some(base),
            Self::Structure(ref access) => Some(access.base),
            _ => match self.address() {
                Some(address) => address.base(),
                None => None,
            },
        }
    }

    /// Whether it is a load, a store, both, or a hint of one.
    #[inline]
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        self.address().is_some() || self.base().is_some()
    }

    /// Whether it uses vector registers, and so traps where CPACR_EL1 says so.
    #[inline]
    #[must_use]
    pub const fn is_vector(&self) -> bool {
        matches!(
            self,
            Self::LoadVec { .. }
                | Self::StoreVec { .. }
                | Self::LoadVecPair { .. }
                | Self::StoreVecPair { .. }
                | Self::Structure(_)
                | Self::FpUnary { .. }
                | Self::FpRound { .. }
                | Self::FpConvert { .. }
                | Self::FpBinary { .. }
                | Self::FpMultiplyAdd { .. }
                | Self::FpCompare { .. }
                | Self::FpCondCompare { .. }
                | Self::FpSelect { .. }
                | Self::FpImm { .. }
                | Self::FpFromInt { .. }
                | Self::FpToInt { .. }
                | Self::FpToIntJs { .. }
                | Self::FpToGeneral { .. }
                | Self::FpFromGeneral { .. }
                | Self::Word(_)
        )
    }
}
