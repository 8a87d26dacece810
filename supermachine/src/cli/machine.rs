//! The machines there are, whoever started them, and which of them a name means.

use super::detached::{self, Record, State};
use super::list::Row;
use crate::Error;
use crate::running::{self, RunningVm, unix_ms};
use serde_json::{Value, json};
use std::time::Duration;

/// A machine that runs, or of which something is kept.
#[derive(Debug)]
pub enum Machine {
    /// It has a supervisor of its own, or had one.
    Detached(Box<Record>),
    /// It runs as long as the process that started it wants.
    Attached(Box<RunningVm>),
}

/// All of them, oldest first.
pub fn all() -> Vec<Machine> {
    let running = running::list();
    let records = detached::all();
    let owned: Vec<String> = records
        .iter()
        .filter_map(|record| match record.state() {
            State::Running(started) => Some(started.vm),
            _ => None,
        })
        .collect();
    let mut all: Vec<Machine> = running
        .into_iter()
        .filter(|vm| !owned.contains(&vm.id))
        .map(|vm| Machine::Attached(Box::new(vm)))
        .chain(
            records
                .into_iter()
                .map(|record| Machine::Detached(Box::new(record))),
        )
        .collect();
    all.sort_by_key(Machine::created_unix_ms);
    all
}

/// The machine of this name, this id, or whose id alone starts like this.
pub fn find(name: &str) -> Result<Machine, Error> {
    let mut all = all();
    let exact = |machine: &Machine| machine.id() == name || machine.name() == Some(name);
    let starts = |machine: &Machine| !name.is_empty() && machine.id().starts_with(name);
    let has_exact = all.iter().any(exact);
    all.retain(|machine| {
        if has_exact {
            exact(machine)
        } else {
            starts(machine)
        }
    });
    match all.pop() {
        Some(machine) if all.is_empty() => Ok(machine),
        found => Err(Error::NoSuchVm {
            name: name.to_owned(),
            count: all.len() + usize::from(found.is_some()),
        }),
    }
}

/// All of them, or none if one is not there.
pub fn find_each(names: &[String]) -> Result<Vec<Machine>, Error> {
    names.iter().map(|name| find(name)).collect()
}

/// Whether a machine may be called so: what is kept of an ended one keeps its name.
pub fn check_name(name: &str) -> Result<(), Error> {
    match all().iter().any(|machine| machine.name() == Some(name)) {
        true => Err(Error::NameTaken {
            name: name.to_owned(),
        }),
        false => Ok(()),
    }
}

impl Machine {
    pub fn id(&self) -> &str {
        match self {
            Self::Detached(record) => &record.id,
            Self::Attached(vm) => &vm.id,
        }
    }

    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Detached(record) => record.about.name.as_deref(),
            Self::Attached(vm) => vm.description.name.as_deref(),
        }
    }

    fn created_unix_ms(&self) -> u64 {
        match self {
            Self::Detached(record) => record.about.created_unix_ms,
            Self::Attached(vm) => vm.description.started_unix_ms,
        }
    }

    /// The running machine.
    ///
    /// # Errors
    /// [`Error::Ended`] if it does not run any more.
    pub fn running(&self) -> Result<RunningVm, Error> {
        match self {
            Self::Attached(vm) => Ok((**vm).clone()),
            Self::Detached(record) => record.machine().ok_or_else(|| Error::Ended {
                reason: match record.state() {
                    State::Ended(ended) => ended.reason,
                    State::Lost => LOST.to_owned(),
                    State::Starting | State::Running(_) => "its process is gone".to_owned(),
                },
            }),
        }
    }

    /// What is kept of it.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] if it has no supervisor that would keep something.
    pub fn record(&self, what: &'static str) -> Result<&Record, Error> {
        match self {
            Self::Detached(record) => Ok(record),
            Self::Attached(_) => Err(Error::Unsuitable {
                what,
                needs: "a machine that was started with `run --detach` or `run -it`",
            }),
        }
    }

    /// Ends it, by force after `grace`.
    pub fn stop(&self, grace: Duration) -> Result<(), Error> {
        match self {
            Self::Detached(record) => record.stop(grace),
            Self::Attached(vm) => vm.stop(grace),
        }
    }

    /// Whether it runs, or is about to.
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Detached(record) => record.is_supervised(),
            Self::Attached(vm) => vm.is_running(),
        }
    }

    /// Its fields, for lists.
    pub fn row(&self) -> Row {
        let mut row = match self {
            Self::Detached(record) => detached_row(record),
            Self::Attached(vm) => {
                let mut row = running_row(vm);
                let (state, status) = going(Some(vm), vm.description.started_unix_ms);
                row.insert("state".into(), state.into());
                row.insert("status".into(), status.into());
                row.insert("labels".into(), json!(vm.description.labels));
                row
            }
        };
        row.insert("id".into(), self.id().into());
        row.insert("name".into(), json!(self.name()));
        row.insert("created_unix_ms".into(), self.created_unix_ms().into());
        for field in FIELDS {
            row.entry(*field).or_insert(Value::Null);
        }
        row
    }
}

const LOST: &str = "its supervisor was killed";

/// All fields of a row.
pub const FIELDS: &[&str] = &[
    "id",
    "name",
    "image",
    "command",
    "state",
    "status",
    "exit_status",
    "reason",
    "engine",
    "memory_mib",
    "vcpus",
    "ports",
    "labels",
    "digest",
    "created_unix_ms",
    "started_unix_ms",
    "ended_unix_ms",
    "worker_pid",
    "owner_pid",
    "forked_from",
];

fn running_row(vm: &RunningVm) -> Row {
    let about = &vm.description;
    let row = json!({
        "image": about.reference,
        "digest": about.digest,
        "engine": about.engine,
        "memory_mib": about.memory_mib,
        "vcpus": about.vcpus,
        "ports": about.ports,
        "worker_pid": about.worker_pid,
        "owner_pid": about.owner_pid,
        "started_unix_ms": about.started_unix_ms,
    });
    match row {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}

fn detached_row(record: &Record) -> Row {
    let state = record.state();
    let vm = match &state {
        State::Running(started) => running::of(&started.vm),
        _ => None,
    };
    let mut row = vm.as_ref().map(running_row).unwrap_or_default();
    row.insert("image".into(), record.about.reference.as_str().into());
    row.insert("command".into(), json!(record.about.command));
    row.insert("labels".into(), json!(record.about.labels));
    row.insert("forked_from".into(), json!(record.about.forked_from));
    let (state, status) = match state {
        State::Starting => ("starting", "Starting".to_owned()),
        State::Running(started) => going(vm.as_ref(), started.unix_ms),
        State::Lost => {
            row.insert("reason".into(), LOST.into());
            ("lost", format!("Lost: {LOST}"))
        }
        State::Ended(ended) => {
            row.insert("exit_status".into(), ended.status.into());
            row.insert("ended_unix_ms".into(), ended.unix_ms.into());
            let since = age(ended.unix_ms);
            let status = format!("Exited ({}) {since} ago: {}", ended.status, ended.reason);
            row.insert("reason".into(), ended.reason.into());
            ("exited", status)
        }
    };
    row.insert("state".into(), state.into());
    row.insert("status".into(), status.into());
    row
}

/// The state and status of a machine that has not ended.
fn going(vm: Option<&RunningVm>, since_unix_ms: u64) -> (&'static str, String) {
    let up = format!("Up {}", age(since_unix_ms));
    match vm.is_some_and(RunningVm::is_paused) {
        true => ("paused", format!("{up} (Paused)")),
        false => ("running", up),
    }
}

/// How long ago something was, in the largest unit that has two of them.
pub fn age(unix_ms_then: u64) -> String {
    let seconds = unix_ms().saturating_sub(unix_ms_then) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
