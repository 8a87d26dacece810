//! The worker's side: makes one machine and runs it to its end.

use super::protocol::{FromWorker, Machine as Description, ToWorker, VERSION, check_version};
use super::protocol::{receive, send};
use super::runtime_dir;
use crate::Engine;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use vmm_core::VmResources;
use vmm_core::backend::hvf::HvfEngine;
use vmm_core::machine::{ExitReason, Machine, MachineError, MachineOptions, RunningMachine};

/// Runs the worker: the control connection is standard input. Returns the exit
/// status of the process.
pub fn run() -> u8 {
    let control = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(error) => return report(&error),
    };
    match serve(&control) {
        Ok(()) => 0,
        Err(error) => report(&error),
    }
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

fn serve(control: &UnixStream) -> io::Result<()> {
    let replies = Arc::new(Mutex::new(control.try_clone()?));
    say(&replies, &FromWorker::Hello { version: VERSION })?;
    match receive::<ToWorker>(control)? {
        Some(ToWorker::Hello { version }) => check_version(version)?,
        None => return Ok(()),
        Some(_) => return Err(io::Error::other("the first message was no hello")),
    }
    let description = match receive::<ToWorker>(control)? {
        Some(ToWorker::Start(description)) => description,
        None | Some(ToWorker::Stop) => return Ok(()),
        Some(_) => return Err(io::Error::other("the second message was no start")),
    };
    // Held against the sweep of other processes, and removed at the end: the
    // embedder may be gone by then.
    let _lock = runtime_dir::hold(&description.runtime_dir)?;
    let result = run_machine(control, &replies, &description);
    let _ = std::fs::remove_dir_all(&description.runtime_dir);
    result
}

fn run_machine(
    control: &UnixStream,
    replies: &Arc<Mutex<UnixStream>>,
    description: &Description,
) -> io::Result<()> {
    let reply = |message: &FromWorker| say(replies, message);
    let machine = match start(description) {
        Ok(machine) => Arc::new(machine),
        Err(error) => {
            let message = with_causes(&error);
            return reply(&FromWorker::Failed { message });
        }
    };
    reply(&FromWorker::Started {
        engine: machine.engine().to_owned(),
    })?;
    let watcher = {
        let (machine, replies) = (machine.clone(), replies.clone());
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || watch(&machine, &replies))?
    };
    while let Ok(Some(ToWorker::Inspect)) = receive::<ToWorker>(control) {
        let status = FromWorker::Status {
            exits: machine.total_exits(),
            console: machine.console().text(),
        };
        if reply(&status).is_err() {
            break;
        }
    }
    // Told to, or the embedder is gone, or the machine: either way it is over.
    if machine.stop().is_ok() {
        let _ = watcher.join();
    }
    Ok(())
}

fn say(replies: &Mutex<UnixStream>, message: &FromWorker) -> io::Result<()> {
    let stream = replies.lock().unwrap_or_else(PoisonError::into_inner);
    send(&*stream, message)
}

/// Reports the machine's end, and ends the worker with it: its sockets close,
/// so that nobody waits for a guest that is no more.
fn watch(machine: &RunningMachine, replies: &Mutex<UnixStream>) {
    let reason = machine.wait();
    let message = FromWorker::Ended {
        orderly: matches!(reason, ExitReason::PowerOff | ExitReason::Stopped),
        reason: with_causes(&reason),
        console: machine.console().text(),
    };
    // The embedder may be gone already.
    let _ = say(replies, &message);
    let stream = replies.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = stream.shutdown(Shutdown::Read);
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn start(description: &Description) -> Result<RunningMachine, MachineError> {
    let mut resources = VmResources::for_kernel(
        description.kernel.to_string_lossy(),
        description.init.to_string_lossy(),
    )
    .with_memory_mib(description.memory_mib)
    .with_vcpus(description.vcpus)
    .with_vsock_mux(description.mux.to_string_lossy())
    .with_vsock_exec(description.exec.to_string_lossy());
    for layer in &description.layers {
        resources = resources.with_block_device(layer.to_string_lossy());
    }
    let console: Option<Box<dyn Write + Send>> = if description.console {
        Some(Box::new(io::stderr()))
    } else {
        None
    };
    let options = MachineOptions {
        console,
        extra_cmdline: description.cmdline.clone(),
        ..MachineOptions::default()
    };
    let engine = engine(description.engine)?;
    Machine::start(&engine, &resources, options)
}

/// The one place that chooses an engine.
fn engine(wanted: Engine) -> Result<HvfEngine, MachineError> {
    let soft = || HvfEngine::new(softhv::api());
    Ok(match wanted {
        Engine::Soft => soft(),
        Engine::Hvf => HvfEngine::system()?,
        Engine::Auto => HvfEngine::system().unwrap_or_else(|_| soft()),
    })
}
