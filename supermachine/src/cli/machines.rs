//! `supermachine ps`, `exec`, `stop` and the other commands about machines,
//! whichever process they belong to.

use super::command::{Options, supervise};
use super::detached::log::Reader;
use super::list::{List, ListOptions, column};
use super::logs;
use super::machine::{self, FIELDS, Machine};
use super::output::{print, print_json};
use super::signals::Forwarder;
use super::values;
use crate::Error;
use crate::exec::Finished;
use rustix::process::Signal;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

#[derive(clap::Args)]
pub struct PsArguments {
    /// Machines that have ended too, until `rm` removes them
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(clap::Args)]
pub struct ExecArguments {
    #[command(flatten)]
    options: Options,
    /// Machine: its name, its id, or the start of its id
    #[arg(value_name = "VM")]
    vm: String,
    /// Command to run
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

#[derive(clap::Args)]
pub struct StopArguments {
    /// How long the machine may take to end by itself, in seconds or with a unit;
    /// 0 ends it at once
    #[arg(short, long, value_name = "TIME", default_value = "10", value_parser = values::duration)]
    time: Duration,
    /// Machines: their names, their ids, or the starts of their ids
    #[arg(value_name = "VM", required = true)]
    vms: Vec<String>,
}

#[derive(clap::Args)]
pub struct KillArguments {
    /// Signal for the machine's command: INT, TERM, HUP, QUIT, USR1, USR2; KILL
    /// ends the machine
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    signal: Signal,
    /// Machines: their names, their ids, or the starts of their ids
    #[arg(value_name = "VM", required = true)]
    vms: Vec<String>,
}

#[derive(clap::Args)]
pub struct RemoveArguments {
    /// End those that run
    #[arg(short, long)]
    force: bool,
    /// Machines: their names, their ids, or the starts of their ids
    #[arg(value_name = "VM", required = true)]
    vms: Vec<String>,
}

#[derive(clap::Args)]
pub struct WaitArguments {
    /// Machines: their names, their ids, or the starts of their ids
    #[arg(value_name = "VM", required = true)]
    vms: Vec<String>,
}

#[derive(clap::Args)]
pub struct InspectArguments {
    /// Machines: their names, their ids, or the starts of their ids
    #[arg(value_name = "VM", required = true)]
    vms: Vec<String>,
}

#[derive(clap::Args)]
pub struct LogsArguments {
    #[command(flatten)]
    options: logs::Options,
    /// Machine: its name, its id, or the start of its id
    #[arg(value_name = "VM")]
    vm: String,
}

/// A signal that a supervisor passes on, by its name or number.
fn signal(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let known = [
        ("INT", Signal::INT),
        ("TERM", Signal::TERM),
        ("HUP", Signal::HUP),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("KILL", Signal::KILL),
    ];
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = name.parse::<i32>().ok();
    let is_meant =
        |(known, signal): &&(&str, Signal)| *known == name || number == Some(signal.as_raw());
    let found = known.iter().find(is_meant).map(|(_, signal)| *signal);
    found.ok_or_else(|| "expected INT, TERM, HUP, QUIT, USR1, USR2 or KILL".to_owned())
}

const MACHINES: List<'static> = List {
    columns: &[
        column("ID", "id", false),
        column("NAME", "name", false),
        column("IMAGE", "image", false),
        column("COMMAND", "command", false),
        column("ENGINE", "engine", false),
        column("MIB", "memory_mib", true),
        column("VCPUS", "vcpus", true),
        column("STATUS", "status", false),
        column("PORTS", "ports", false),
    ],
    key: "id",
    fields: FIELDS,
};

/// Lists machines.
pub fn ps(arguments: &PsArguments) -> Result<u8, Error> {
    let is_listed = |machine: &Machine| arguments.all || machine.is_alive();
    let rows = machine::all().into_iter().filter(is_listed);
    MACHINES.print(rows.map(|machine| machine.row()).collect(), &arguments.list)?;
    Ok(0)
}

/// Runs a command in a running machine and returns its exit status.
pub fn exec(arguments: &ExecArguments) -> Result<u8, Error> {
    let signals = Forwarder::install()?;
    let vm = machine::find(&arguments.vm)?.running()?;
    let argv = arguments.command.iter().map(|word| word.as_bytes());
    let command = vm.exec_builder().argv(argv);
    let result = supervise(command, None, &arguments.options, &signals);
    signals.settle();
    match result? {
        Finished::Ended(status) => Ok(status.shell_status()),
        // We have left.
        Finished::LetGo(_) => Ok(0),
    }
}

/// Ends machines.
pub fn stop(arguments: &StopArguments) -> Result<u8, Error> {
    for machine in machine::find_each(&arguments.vms)? {
        machine.stop(arguments.time)?;
        print(&format!("{}\n", machine.id()))?;
    }
    Ok(0)
}

/// Sends the commands of machines a signal, or ends the machines.
pub fn kill(arguments: &KillArguments) -> Result<u8, Error> {
    for machine in machine::find_each(&arguments.vms)? {
        if !machine.is_alive() {
            machine.running()?;
        }
        match arguments.signal {
            Signal::KILL => machine.stop(Duration::ZERO)?,
            signal => machine
                .record("sending its command a signal")?
                .signal(signal)?,
        }
        print(&format!("{}\n", machine.id()))?;
    }
    Ok(0)
}

/// Removes what is kept of machines.
pub fn remove(arguments: &RemoveArguments) -> Result<u8, Error> {
    for machine in machine::find_each(&arguments.vms)? {
        if machine.is_alive() {
            if !arguments.force {
                return Err(Error::Unsuitable {
                    what: "removing a machine",
                    needs: "one that has ended: stop it first, or use --force",
                });
            }
            machine.stop(Duration::ZERO)?;
        }
        if let Machine::Detached(record) = &machine {
            record.remove()?;
        }
        print(&format!("{}\n", machine.id()))?;
    }
    Ok(0)
}

/// Removes what is kept of all machines that have ended.
pub fn prune() -> Result<u8, Error> {
    for machine in machine::all() {
        if let Machine::Detached(record) = &machine
            && !record.is_supervised()
        {
            record.remove()?;
            print(&format!("{}\n", machine.id()))?;
        }
    }
    Ok(0)
}

/// Waits for machines to end and prints the statuses of their commands.
pub fn wait(arguments: &WaitArguments) -> Result<u8, Error> {
    let machines = machine::find_each(&arguments.vms)?;
    for machine in &machines {
        machine.record("waiting for its status")?;
    }
    for machine in &machines {
        let record = machine.record("waiting for its status")?;
        record.ends_within(Duration::MAX);
        // With --rm nothing is kept of one that has ended well or not.
        let row = machine.row();
        let status = row.get("exit_status").and_then(serde_json::Value::as_u64);
        print(&status.map_or("-\n".to_owned(), |status| format!("{status}\n")))?;
    }
    Ok(0)
}

/// Prints all that is known of machines.
pub fn inspect(arguments: &InspectArguments) -> Result<u8, Error> {
    let machines = machine::find_each(&arguments.vms)?;
    let all: Vec<serde_json::Value> = machines
        .iter()
        .map(|machine| {
            let mut row = machine.row();
            if let Ok(vm) = machine.running() {
                let config = serde_json::to_value(&vm.description.config);
                row.insert("config".into(), config.unwrap_or_default());
            }
            row.into()
        })
        .collect();
    print_json(&all, true)?;
    Ok(0)
}

/// Shows what a detached machine's command wrote.
pub fn logs(arguments: &LogsArguments) -> Result<u8, Error> {
    let machine = machine::find(&arguments.vm)?;
    let record = machine.record("a log")?;
    logs::show(Reader::open(record.dir()), &arguments.options, || {
        record.is_supervised()
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "term", "SIGTERM", "15"] {
            assert_eq!(signal(text), Ok(Signal::TERM), "{text}");
        }
        for text in ["", "SIG", "0", "19", "STOP", "WINCH", "-15"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
