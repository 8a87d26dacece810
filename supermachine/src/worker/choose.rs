//! Which engine runs a machine.

use crate::{Engine, Tier};
use vmm_core::arch::aarch64::layout;
use vmm_core::backend::table::TableEngine;
use vmm_core::hypervisor::{EngineError, Hypervisor, VmSpec};

/// The engine `wanted` names here. [`Engine::Auto`] is the system's if it makes
/// machines for this process, and else ours, which executes code by `tier`.
pub(crate) fn engine(wanted: Engine, tier: Tier) -> Result<TableEngine, EngineError> {
    match wanted {
        Engine::Soft => soft(tier),
        Engine::Hvf => TableEngine::system(),
        Engine::Auto => match TableEngine::system().ok().filter(makes_machines) {
            Some(system) => Ok(system),
            None => soft(tier),
        },
    }
}

fn soft(tier: Tier) -> Result<TableEngine, EngineError> {
    let tier = match tier {
        Tier::Auto => softhv::Tier::Auto,
        Tier::Interpret => softhv::Tier::Interpret,
        Tier::Count => softhv::Tier::Count,
        Tier::Compile => softhv::Tier::Compile,
        Tier::Census => softhv::Tier::Census,
    };
    if tier.must_compile() {
        softhv::jit::probe().map_err(|reason| EngineError::refused(reason, true))?;
    }
    Ok(TableEngine::new(softhv::api_with(tier)))
}

/// Whether an engine makes machines for this process, found out by making one:
/// a framework that is there refuses where the executable has no entitlement,
/// and inside another virtual machine. What may be over in a moment (another
/// machine in this process, the system's limit) does not count: the caller
/// should hear of it, not get a slower engine.
fn makes_machines(engine: &TableEngine) -> bool {
    let spec = VmSpec {
        ipa_bits: None,
        vcpus: 1,
        distributor: layout::GIC_DISTRIBUTOR,
        redistributors: layout::GIC_REDISTRIBUTORS,
    };
    match engine.create_vm(&spec) {
        Err(error) => !error.is_permanent(),
        Ok(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hvf::sys::{Return, VmConfig};

    fn refusing(vm_create: extern "C" fn(VmConfig) -> Return) -> TableEngine {
        let mut api = softhv::api();
        api.vm_create = vm_create;
        TableEngine::new(api)
    }

    #[test]
    fn an_engine_that_refuses_for_good_is_passed_over() {
        extern "C" fn denied(_: VmConfig) -> Return {
            Return::DENIED
        }
        extern "C" fn unsupported(_: VmConfig) -> Return {
            Return::UNSUPPORTED
        }
        assert!(!makes_machines(&refusing(denied)));
        assert!(!makes_machines(&refusing(unsupported)));
    }

    #[test]
    fn an_engine_that_is_busy_is_still_chosen() {
        extern "C" fn busy(_: VmConfig) -> Return {
            Return::BUSY
        }
        extern "C" fn no_resources(_: VmConfig) -> Return {
            Return::NO_RESOURCES
        }
        assert!(makes_machines(&refusing(busy)));
        assert!(makes_machines(&refusing(no_resources)));
    }

    #[test]
    fn an_engine_that_makes_machines_can_make_another_after_the_trial() {
        let soft = TableEngine::new(softhv::api());
        assert!(makes_machines(&soft));
        assert!(makes_machines(&soft));
    }
}
