//! Engines as the command line names them.

use crate::{Engine, Tier};

/// Which one runs the guest.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum EngineName {
    Auto,
    Hvf,
    Soft,
}

/// How the software engine executes code.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum TierName {
    Auto,
    Interpret,
    Compile,
    Count,
    Census,
}

impl From<TierName> for Tier {
    fn from(name: TierName) -> Self {
        match name {
            TierName::Auto => Self::Auto,
            TierName::Interpret => Self::Interpret,
            TierName::Compile => Self::Compile,
            TierName::Count => Self::Count,
            TierName::Census => Self::Census,
        }
    }
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Auto => Self::Auto,
            EngineName::Hvf => Self::Hvf,
            EngineName::Soft => Self::Soft,
        }
    }
}
