//! `supermachine ps`, `exec` and `stop`: machines that run, of any process.

use super::command::{Options, supervise};
use super::output::{plain, print, print_json};
use super::signals::Forwarder;
use crate::Error;
use crate::running::{self, RunningVm};
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

#[derive(clap::Args)]
pub struct PsArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct ExecArguments {
    #[command(flatten)]
    options: Options,
    /// Machine: its name, its id, or the start of its id
    #[arg(value_name = "VM")]
    vm: String,
    /// Command to run
    #[arg(value_name = "CMD", last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(clap::Args)]
pub struct StopArguments {
    /// How long the guest may take to turn itself off, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    time: u32,
    /// Machines: their names, their ids, or the starts of their ids
    #[arg(value_name = "VM", required = true)]
    vms: Vec<String>,
}

/// Lists the running machines.
pub fn ps(arguments: &PsArguments) -> Result<u8, Error> {
    let all = running::list();
    if arguments.json {
        print_json(&serde_json::Value::from_iter(all.iter().map(json)), false)?;
    } else {
        print(&table(&all))?;
    }
    Ok(0)
}

fn json(vm: &RunningVm) -> serde_json::Value {
    let about = &vm.description;
    serde_json::json!({
        "id": vm.id,
        "name": about.name,
        "image": about.reference,
        "digest": about.digest,
        "engine": about.engine,
        "memory_mib": about.memory_mib,
        "vcpus": about.vcpus,
        "worker_pid": about.worker_pid,
        "owner_pid": about.owner_pid,
        "started_unix_ms": about.started_unix_ms,
    })
}

fn table(vms: &[RunningVm]) -> String {
    let mut text = format!(
        "{:<14} {:<16} {:<8} {:>6} {:>5} {:>8}  IMAGE\n",
        "ID", "NAME", "ENGINE", "MIB", "VCPUS", "UP"
    );
    for vm in vms {
        let about = &vm.description;
        let up = running::unix_ms().saturating_sub(about.started_unix_ms) / 1000;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<14} {:<16} {:<8} {:>6} {:>5} {:>7}s  {}",
            vm.id,
            about.name.as_deref().map_or("-".into(), plain),
            plain(&about.engine),
            about.memory_mib,
            about.vcpus,
            up,
            plain(&about.reference)
        );
    }
    text
}

/// Runs a command in a running machine and returns its exit status.
pub fn exec(arguments: &ExecArguments) -> Result<u8, Error> {
    let signals = Forwarder::install()?;
    let vm = running::find(&arguments.vm)?;
    let argv = arguments.command.iter().map(|word| word.as_bytes());
    let command = vm.exec_builder().argv(argv);
    let result = supervise(command, None, &arguments.options, &signals);
    signals.settle();
    Ok(result?.shell_status())
}

/// Ends machines.
pub fn stop(arguments: &StopArguments) -> Result<u8, Error> {
    // Nothing is ended if one of them is not there.
    let vms: Result<Vec<RunningVm>, Error> = arguments
        .vms
        .iter()
        .map(|name| running::find(name))
        .collect();
    for vm in vms? {
        vm.stop(Duration::from_secs(arguments.time.into()))?;
        print(&format!("{}\n", vm.id))?;
    }
    Ok(0)
}
