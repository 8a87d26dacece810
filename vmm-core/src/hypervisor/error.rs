use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What an engine or its adapter refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine itself.
    #[error(transparent)]
    Refused(Refusal),
    /// An exit was completed that expects no value, or not completed.
    #[error("a vCPU exit was answered out of turn")]
    OutOfTurn,
    /// A saved vCPU does not fit this engine or host.
    #[error("saved vCPU state does not fit: register {register} is {saved:#x}, here {here:#x}")]
    IncompatibleState {
        /// The register that differs.
        register: &'static str,
        /// Its saved value.
        saved: u64,
        /// Its value on this engine.
        here: u64,
    },
    /// A range is not mapped.
    #[error("no memory is mapped at guest address {ipa:#x}")]
    NotMapped {
        /// Guest physical address.
        ipa: u64,
    },
    /// An interrupt is not one that each vCPU has of its own.
    #[error("interrupt {intid} is not private to a vCPU: those are 0 to 31")]
    NotPrivate {
        /// Its absolute number.
        intid: u32,
    },
}

impl EngineError {
    /// An engine's own error. `is_permanent` says that asking again can give no
    /// other answer in this process: what is missing is a right or a
    /// capability, not something in use.
    pub fn refused(source: impl Error + Send + Sync + 'static, is_permanent: bool) -> Self {
        Self::Refused(Refusal {
            source: Arc::new(source),
            is_permanent,
        })
    }

    /// Whether asking again can give no other answer in this process.
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_permanent)
    }
}

/// An error of an engine, each of which has its own kind.
#[derive(Debug, Clone)]
pub struct Refusal {
    source: Arc<dyn Error + Send + Sync>,
    is_permanent: bool,
}

impl Refusal {
    /// The engine's error, to be looked at by who knows the engine.
    pub fn inner(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.source
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}

/// Two are the same if they say the same.
impl PartialEq for Refusal {
    fn eq(&self, other: &Self) -> bool {
        self.is_permanent == other.is_permanent
            && self.source.to_string() == other.source.to_string()
    }
}

impl Eq for Refusal {}
