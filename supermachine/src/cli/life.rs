//! `supermachine pause`, `unpause`, `stats`, `top` and `events`.

use super::list::{List, ListOptions, Row, column};
use super::machine::{self, Machine};
use super::output::{is_terminal, plain, print, print_json};
use crate::limits::cli::STATS_PAUSE;
use crate::running::{self, RunningVm};
use crate::{Error, VmEvent, VmStats};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

#[derive(clap::Args)]
pub struct WhichArguments {
    /// Machines: their names, their ids, or the starts of their ids
    #[arg(value_name = "VM", required = true)]
    vms: Vec<String>,
}

#[derive(clap::Args)]
pub struct StatsArguments {
    /// Print them once instead of every second
    #[arg(long)]
    no_stream: bool,
    #[command(flatten)]
    list: ListOptions,
    /// Machines: their names, their ids, or the starts of their ids; by default all that
    /// run
    #[arg(value_name = "VM")]
    vms: Vec<String>,
}

#[derive(clap::Args)]
pub struct TopArguments {
    /// Machine: its name, its id, or the start of its id
    #[arg(value_name = "VM")]
    vm: String,
    /// Options for the guest's `ps`; by default -ef
    #[arg(
        value_name = "OPTION",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

#[derive(clap::Args)]
pub struct EventsArguments {
    /// Print JSON, an event in each line
    #[arg(long)]
    json: bool,
    /// Machines, until they have ended: their names, their ids, or the starts of their
    /// ids; by default all, also those that are started later
    #[arg(value_name = "VM")]
    vms: Vec<String>,
}

/// Pauses machines.
pub fn pause(arguments: &WhichArguments) -> Result<u8, Error> {
    each(arguments, RunningVm::pause)
}

/// Lets machines go on.
pub fn unpause(arguments: &WhichArguments) -> Result<u8, Error> {
    each(arguments, RunningVm::resume)
}

fn each(
    arguments: &WhichArguments,
    change: impl Fn(&RunningVm) -> Result<(), Error>,
) -> Result<u8, Error> {
    for machine in machine::find_each(&arguments.vms)? {
        change(&machine.running()?)?;
        print(&format!("{}\n", machine.id()))?;
    }
    Ok(0)
}

const STATS: List<'static> = List {
    columns: &[
        column("ID", "id", false),
        column("NAME", "name", false),
        column("CPU %", "cpu_percent", true),
        column("MIB", "memory_mib", true),
        column("HOST MIB", "host_mib", true),
        column("EXITS", "exits", true),
        column("DISK MIB", "disk_mib", true),
        column("VCPUS", "vcpus", true),
    ],
    key: "id",
    fields: &[
        "id",
        "name",
        "cpu_percent",
        "memory_mib",
        "host_mib",
        "exits",
        "disk_mib",
        "vcpus",
        "stats",
    ],
};

/// Shows what machines use.
pub fn stats(arguments: &StatsArguments) -> Result<u8, Error> {
    let mut before: BTreeMap<String, VmStats> = BTreeMap::new();
    // How much of a processor is used now takes two looks.
    let mut is_first = true;
    loop {
        let mut now = BTreeMap::new();
        let mut rows = Vec::new();
        for machine in wanted(&arguments.vms)? {
            // What has ended meanwhile uses nothing.
            let Ok(stats) = machine.running().and_then(|vm| vm.stats()) else {
                continue;
            };
            rows.push(row(&machine, &stats, before.get(machine.id())));
            now.insert(machine.id().to_owned(), stats);
        }
        if !is_first || now.is_empty() {
            if !arguments.no_stream && is_terminal(io::stdout()) {
                // From the top, over what was there.
                super::output::print_bytes(b"\x1b[H\x1b[J")?;
            }
            STATS.print(rows, &arguments.list)?;
            if arguments.no_stream || !arguments.vms.is_empty() && now.is_empty() {
                return Ok(0);
            }
        }
        is_first = false;
        before = now;
        std::thread::sleep(STATS_PAUSE);
    }
}

/// The machines of these names, which must be there; without names all that run.
fn wanted(names: &[String]) -> Result<Vec<Machine>, Error> {
    match names {
        [] => Ok(machine::all()
            .into_iter()
            .filter(Machine::is_alive)
            .collect()),
        names => machine::find_each(names),
    }
}

fn row(machine: &Machine, stats: &VmStats, before: Option<&VmStats>) -> Row {
    let mib = |bytes: u64| bytes >> 20;
    let (cpu, uptime) = match before {
        Some(before) => (
            stats.cpu.saturating_sub(before.cpu),
            stats.uptime.saturating_sub(before.uptime),
        ),
        None => (stats.cpu, stats.uptime),
    };
    let percent = cpu.as_secs_f64() * 100.0 / uptime.as_secs_f64().max(1e-3);
    let disk: u64 = stats
        .disks
        .iter()
        .map(|disk| disk.read_bytes.saturating_add(disk.written_bytes))
        .fold(0, u64::saturating_add);
    let row = json!({
        "id": machine.id(),
        "name": machine.name(),
        "cpu_percent": (percent * 10.0).round() / 10.0,
        "memory_mib": mib(stats.memory.guest_bytes),
        "host_mib": stats.memory.host_bytes.map(mib),
        "exits": stats.exits.total,
        "disk_mib": mib(disk),
        "vcpus": stats.vcpus,
        "stats": stats,
    });
    match row {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}

/// Shows a guest's processes, as its own `ps` does.
pub fn top(arguments: &TopArguments) -> Result<u8, Error> {
    let vm = machine::find(&arguments.vm)?.running()?;
    let options = match &arguments.options[..] {
        [] => vec!["-ef".to_owned()],
        options => options.to_vec(),
    };
    let argv = ["ps".to_owned()].into_iter().chain(options);
    let out = vm.exec_builder().argv(argv).output()?;
    // The guest's words, which may drive no terminal here.
    print(&String::from_utf8_lossy(&out.stdout))?;
    super::output::complain(&String::from_utf8_lossy(&out.stderr));
    Ok(out.status.shell_status())
}

/// A machine, and what happened to it.
type Told = (String, Option<String>, VmEvent);

/// Says what happens to machines.
pub fn events(arguments: &EventsArguments) -> Result<u8, Error> {
    let mut vms: Vec<RunningVm> = Vec::new();
    for name in &arguments.vms {
        vms.push(machine::find(name)?.running()?);
    }
    let (to, from) = channel();
    let mut followed = HashSet::new();
    for vm in &vms {
        follow(vm, &to)?;
    }
    let follows_all = vms.is_empty();
    // What is left of it is with those who follow: without them there is no more.
    let mut to = Some(to);
    loop {
        match &to {
            Some(to) if follows_all => {
                let all = running::list();
                for vm in all.iter().filter(|vm| !followed.contains(&vm.id)) {
                    // It may have ended already.
                    let _ = follow(vm, to);
                }
                followed = all.into_iter().map(|vm| vm.id).collect();
            }
            _ => to = None,
        }
        let patience = if follows_all {
            STATS_PAUSE
        } else {
            Duration::MAX
        };
        match from.recv_timeout(patience) {
            Ok(told) => tell(arguments, told)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(0),
        }
    }
}

fn follow(vm: &RunningVm, to: &Sender<Told>) -> Result<(), Error> {
    let events = vm.events()?;
    let (id, name, to) = (vm.id.clone(), vm.description.name.clone(), to.clone());
    std::thread::Builder::new()
        .name("events".into())
        .spawn(move || {
            for event in events {
                if to.send((id.clone(), name.clone(), event)).is_err() {
                    return;
                }
            }
        })
        .map(drop)
        .map_err(Error::system("start a thread"))
}

fn tell(arguments: &EventsArguments, (id, name, event): Told) -> Result<(), Error> {
    let failed = |error: serde_json::Error| Error::system("write JSON")(error.into());
    let mut fields = match serde_json::to_value(&event).map_err(failed)? {
        Value::Object(fields) => fields,
        _ => Row::new(),
    };
    if arguments.json {
        fields.insert("id".into(), id.into());
        fields.insert("name".into(), json!(name));
        return print_json(&fields, false);
    }
    fields.remove("unix_ms");
    let what = fields.remove("event").unwrap_or_default();
    let more = fields.iter().filter(|(_, value)| !value.is_null());
    let more: String = more
        .map(|(name, value)| format!(" {name}={value}"))
        .collect();
    let name = name.map_or_else(String::new, |name| format!(" ({name})"));
    let time = humantime::format_rfc3339_millis(event.at);
    let what = what.as_str().unwrap_or_default();
    print(&format!(
        "{time} {id}{} {what}{}\n",
        plain(&name),
        plain(&more)
    ))
}
