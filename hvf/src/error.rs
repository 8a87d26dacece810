use crate::sys::Return;

/// What an engine refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HvfError {
    /// An entry point failed.
    #[error("{call} failed with {code}{}", Hint(hint(call, *code)))]
    Call {
        /// The entry point, as [`crate::sys::Api`] names it.
        call: &'static str,
        /// What it returned.
        code: Return,
    },
    /// The engine has no interrupt controller: macOS before 15.
    #[error("the engine has no interrupt controller; macOS 15 or later is required")]
    NoGic,
    /// This is not a Mac with Apple silicon, or its kernel cannot virtualise.
    #[error("Hypervisor.framework is not available: {reason}")]
    Unavailable {
        /// Why.
        reason: &'static str,
    },
    /// A host address, guest address or size is not a multiple of
    /// [`crate::sys::PAGE_BYTES`].
    #[error("mapping of {size:#x} bytes at guest {ipa:#x} is not in whole 16 KiB pages")]
    Misaligned {
        /// Guest physical address.
        ipa: u64,
        /// Length in bytes.
        size: usize,
    },
}

impl HvfError {
    /// The engine's return code, if it was an entry point that failed.
    pub const fn code(self) -> Option<Return> {
        match self {
            Self::Call { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether asking again can give no other answer in this process: what is
    /// missing is a right or a capability, not something in use.
    pub const fn is_permanent(self) -> bool {
        match self {
            Self::Call { code, .. } => matches!(code, Return::DENIED | Return::UNSUPPORTED),
            Self::NoGic | Self::Unavailable { .. } => true,
            Self::Misaligned { .. } => false,
        }
    }
}

/// Turns a return code into a result that names the call.
pub(crate) const fn check(call: &'static str, code: Return) -> Result<(), HvfError> {
    if code.is_success() {
        Ok(())
    } else {
        Err(HvfError::Call { call, code })
    }
}

struct Hint(Option<&'static str>);

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

fn hint(call: &str, code: Return) -> Option<&'static str> {
    Some(match (call, code) {
        ("vm_create", Return::DENIED) => {
            "the executable is not signed with the com.apple.security.hypervisor entitlement"
        }
        ("vm_create", Return::UNSUPPORTED) => {
            "this host cannot virtualise, or the executable lacks the \
             com.apple.security.hypervisor entitlement"
        }
        ("vm_create", Return::BUSY) => "this process already has a virtual machine",
        ("vm_create" | "gic.create", Return::NO_RESOURCES) => {
            "the system's limit of virtual machines is reached"
        }
        ("vm_destroy", Return::BUSY) => "a vCPU is still alive",
        ("vcpu_create", Return::BUSY) => "this thread already has a vCPU",
        ("vcpu_create", Return::NO_RESOURCES) => {
            "the virtual machine has all the vCPUs it may have"
        }
        ("vcpu_create", Return::NO_DEVICE) => "there is no virtual machine",
        ("vm_config_set_ipa_size", Return::UNSUPPORTED) => {
            "the host has no guest physical addresses this wide"
        }
        ("vcpu_set_pending_interrupt" | "vcpu_get_pending_interrupt", Return::UNSUPPORTED) => {
            "the engine's interrupt controller drives the lines"
        }
        ("gic.set_state", Return::BAD_ARGUMENT) => "the state comes from another engine or version",
        _ => return None,
    })
}
