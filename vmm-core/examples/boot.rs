//! Boots a kernel on the software engine and shows its console:
//! `cargo run --release --example boot -- IMAGE [INITRD [CMDLINE]]`.

use std::process::ExitCode;
use std::time::Duration;

use supermachine_vmm_core::VmResources;
use supermachine_vmm_core::backend::table::TableEngine;
use supermachine_vmm_core::hypervisor::ExitCount;
use supermachine_vmm_core::machine::{ExitReason, Machine, MachineOptions};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(kernel) = args.next() else {
        eprintln!("usage: boot IMAGE [INITRD [CMDLINE]]");
        return ExitCode::from(2);
    };
    let mut resources = VmResources::new().with_kernel_path(kernel);
    if let Some(initrd) = args.next() {
        resources = resources.with_initramfs(initrd);
    }
    if let Some(cmdline) = args.next() {
        resources = resources.with_cmdline(cmdline);
    }
    if let Some(vcpus) = args.next().and_then(|n| n.parse().ok()) {
        resources = resources.with_vcpus(vcpus);
    }
    let options = MachineOptions {
        console: Some(Box::new(std::io::stdout())),
        ..MachineOptions::default()
    };
    let machine = match Machine::start(&TableEngine::software(), &resources, options) {
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
