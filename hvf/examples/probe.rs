//! Prints what the engine of this host can do, and makes a machine to see
//! whether it may: `cargo run --example probe`. On a Mac, sign it first.

use std::process::ExitCode;

use supermachine_hvf::sys::{FeatureReg, GicIntid};
use supermachine_hvf::{Capabilities, GicAddresses, GicGeometry, HvfError, Vm, feature_reg};

fn main() -> ExitCode {
    match probe() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn probe() -> Result<(), HvfError> {
    let api = supermachine_hvf::system_api()?;
    println!("{api:?}");
    println!("{:?}", Capabilities::query(&api)?);
    println!("{:#x?}", GicGeometry::query(&api)?);
    for (name, register) in [
        ("ID_AA64PFR0_EL1", FeatureReg::ID_AA64PFR0_EL1),
        ("ID_AA64ISAR0_EL1", FeatureReg::ID_AA64ISAR0_EL1),
        ("ID_AA64MMFR0_EL1", FeatureReg::ID_AA64MMFR0_EL1),
        ("CTR_EL0", FeatureReg::CTR_EL0),
    ] {
        println!("{name} = {:#018x}", feature_reg(&api, register)?);
    }
    let vm = Vm::new(api, None)?;
    let gic = vm.create_gic(GicAddresses {
        distributor: 0x0800_0000,
        redistributors: 0x080a_0000,
    })?;
    let timer = gic.intid(GicIntid::EL1_VIRTUAL_TIMER)?;
    println!("virtual timer interrupt {timer}");
    let mut vcpu = vm.create_vcpu()?;
    vcpu.kicker().kick()?;
    println!("a kicked vCPU leaves with {:?}", vcpu.run()?.reason);
    Ok(())
}
