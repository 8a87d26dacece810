//! Boots a kernel on the software engine and shows its console:
//! `cargo run --release --example boot -- IMAGE [INITRD [CMDLINE]]`.

use std::process::ExitCode;
use std::time::Duration;

use supermachine_vmm_core::MachineSpec;
use supermachine_vmm_core::backend::table::TableEngine;
use supermachine_vmm_core::hypervisor::ExitCount;
use supermachine_vmm_core::machine::{ExitReason, Machine};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(kernel) = args.next() else {
        eprintln!("usage: boot IMAGE [INITRD [CMDLINE]]");
        return ExitCode::from(2);
    };
    let mut spec = MachineSpec::new(&*kernel);
    spec.initrd = args.next().map(|initrd| (&*initrd).into());
    if let Some(cmdline) = args.next() {
        spec.cmdline = cmdline;
    }
    if let Some(vcpus) = args.next().and_then(|n| n.parse().ok()) {
        spec.vcpus = vcpus;
    }
    let console = Box::new(std::io::stdout());
    let machine = match Machine::start(&TableEngine::software(), &spec, Some(console)) {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("boot: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = machine.wait_timeout(Duration::from_secs(120));
    eprintln!("ended: {ended:?} after {:?}", machine.uptime());
    for kind in ExitCount::ALL {
        eprintln!("{kind:?}: {}", machine.exit_count(kind));
    }
    match ended {
        Some(ExitReason::PowerOff) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
