//! Asks Hypervisor.framework what its documents leave open, and prints a table for an
//! issue. It has to be signed with the entitlement com.apple.security.hypervisor.

use std::process::ExitCode;
use supermachine_hvf::probe::{Patience, ask};
use supermachine_hvf::{HvfError, Vm, host_description, system_api};

fn main() -> ExitCode {
    match probe() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hvf-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn probe() -> Result<(), HvfError> {
    let api = system_api()?;
    // What every question would say if this process may have no machine.
    drop(Vm::new(api, None)?);
    println!(
        "hvf-probe {}, {}\n",
        env!("CARGO_PKG_VERSION"),
        host_description()
    );
    print!("{}", ask(&api, Patience::default()));
    Ok(())
}
