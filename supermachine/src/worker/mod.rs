//! The worker's side: prepares one machine, makes it what it is told, and runs
//! it to its end.

mod choose;
mod files;
mod flows;
mod hangup;
pub(crate) mod identity;
mod monitor;
mod network;
mod oom;
mod questions;
mod served;

use crate::error::with_causes;
use crate::link::protocol::{FromWorker, ToWorker, VERSION, check_version, receive, send};
use crate::link::sockets::Sockets;
use crate::link::{passing, runtime_dir};
use crate::{Engine, VmEventKind, log, spans};
use monitor::News;
use served::Served;
use snapshot::{Snapshot, SnapshotError};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::{debug, info};
use vmm_core::machine::{ExitReason, MachineError, RunningMachine};
use vmm_core::memory::close_inherited_descriptors;

/// Runs the worker: the control connection is standard input. Returns the exit
/// status of the process.
pub fn run() -> u8 {
    close_inherited_descriptors();
    crate::file_limit::take_as_error();
    let control = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(error) => return report(&error),
    };
    let served = match log::begin() {
        Ok(()) => serve(&control),
        Err(error) => refuse_all(&control, &error),
    };
    match served {
        Ok(()) => 0,
        Err(error) => report(&error),
    }
}

/// Says instead of all else that there is a mistake in the environment.
fn refuse_all(control: &UnixStream, error: &log::BadFilter) -> io::Result<()> {
    send(control, &FromWorker::Hello { version: VERSION })?;
    send(
        control,
        &FromWorker::Failed {
            message: error.to_string(),
            rebake: false,
        },
    )?;
    // Until the embedder goes, or what it sends meets a closed door first.
    while receive::<ToWorker>(control)?.is_some() {}
    Ok(())
}

fn report(error: &io::Error) -> u8 {
    // Without a standard error there is no one to tell.
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "supermachine-worker: {error}");
    if error.raw_os_error() == Some(rustix::io::Errno::NOTSOCK.raw_os_error()) {
        let _ = writeln!(stderr, "it is started by supermachine, not by hand");
    }
    1
}

pub(crate) fn serve(control: &UnixStream) -> io::Result<()> {
    let replies = Arc::new(Mutex::new(control.try_clone()?));
    say(&replies, &FromWorker::Hello { version: VERSION })?;
    match receive::<ToWorker>(control)? {
        Some(ToWorker::Hello { version }) => check_version(version)?,
        None => return Ok(()),
        Some(_) => return Err(io::Error::other("the first message was no hello")),
    }
    let order = match receive::<ToWorker>(control)? {
        Some(order) => order,
        None => return Ok(()),
    };
    let files = passing::take(control, order.files())?;
    let setup = match order {
        ToWorker::Prepare(setup) => setup,
        ToWorker::Identify(engine) => return identify(&replies, engine),
        ToWorker::Stop => return Ok(()),
        _ => return Err(io::Error::other("the second message was no preparation")),
    };
    let Sockets { mux, exec, monitor } = Sockets::of(files)?;
    // Held against the sweep of other processes, and removed at the end: the
    // embedder may be gone by then.
    let _lock = runtime_dir::occupy(&setup.runtime_dir)?;
    let _machine = spans::machine(&setup.runtime_dir, None).entered();
    let mut served = Served::new(replies, &setup, monitor)?;
    let result = match served.prepare(&setup, mux, exec) {
        Ok(engine) => say(&served.replies, &FromWorker::Prepared { engine })
            .and_then(|()| served.serve(control)),
        Err(error) => served.refuse(&error),
    };
    served.end();
    let _ = std::fs::remove_dir_all(&setup.runtime_dir);
    debug!("worker ends");
    result
}

/// Says what this process's engine is.
fn identify(replies: &Mutex<UnixStream>, engine: Engine) -> io::Result<()> {
    let answer = match identity::of_this_process(engine) {
        Ok(identity) => FromWorker::Identity(Box::new(identity)),
        Err(error) => FromWorker::Failed {
            message: with_causes(&error),
            rebake: false,
        },
    };
    say(replies, &answer)
}

/// Why an order was not carried out. The worker ends: what it has is in no
/// state to go on from.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the worker was told to {0} and cannot now")]
    Untimely(&'static str),
    #[error("the host refused a thread or a connection")]
    Host(#[from] io::Error),
}

impl Refusal {
    /// Whether making the snapshot anew would help.
    fn wants_rebake(&self) -> bool {
        match self {
            Self::Snapshot(error) | Self::Machine(MachineError::Snapshot(error)) => {
                error.wants_rebake()
            }
            _ => false,
        }
    }
}

/// Reads the copy's working set ahead, while the copy is being made.
/// Where that fails, the guest waits for each page itself.
fn read_ahead(snapshot: &Arc<Snapshot>) {
    let snapshot = snapshot.clone();
    let thread = std::thread::Builder::new().name("read-ahead".into());
    let _ = thread.spawn(move || snapshot.read_ahead());
}

fn bytes(mib: usize) -> u64 {
    (mib as u64).saturating_mul(1 << 20)
}

/// Memory that a machine's guest has, in MiB.
fn memory_mib(machine: &RunningMachine) -> u64 {
    machine.memory_bytes() >> 20
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn say(replies: &Mutex<UnixStream>, message: &FromWorker) -> io::Result<()> {
    let stream = replies.lock().unwrap_or_else(PoisonError::into_inner);
    send(&*stream, message)
}

/// Reports the machine's end, and ends the worker with it: its sockets close,
/// so that nobody waits for a guest that is no more.
fn watch(machine: &RunningMachine, replies: &Mutex<UnixStream>, news: &News) {
    let reason = machine.wait();
    info!(
        reason = with_causes(&reason),
        exits = machine.total_exits(),
        "machine ended"
    );
    let orderly = matches!(reason, ExitReason::PowerOff | ExitReason::Stopped);
    news.tell(VmEventKind::Ended {
        reason: with_causes(&reason),
        orderly,
    });
    let message = FromWorker::Ended {
        orderly,
        reason: with_causes(&reason),
        console: machine.console().text(),
    };
    // The embedder may be gone already.
    let _ = say(replies, &message);
    let stream = replies.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = stream.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests;
