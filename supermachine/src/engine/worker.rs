//! The worker's side: makes one machine and runs it to its end.

use super::protocol::{FromWorker, Machine as Description, ToWorker, VERSION, check_version};
use super::protocol::{receive, send};
use crate::Engine;
use std::io::{self, Write};
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
    eprintln!("supermachine-worker: {error}");
    if error.kind() == io::ErrorKind::NotConnected || error.kind() == io::ErrorKind::InvalidInput {
        eprintln!("supermachine-worker: started by supermachine only, not by hand");
    }
    1
}

fn serve(control: &UnixStream) -> io::Result<()> {
    let replies = Arc::new(Mutex::new(control.try_clone()?));
    let reply = |message: &FromWorker| {
        send(
            &mut *replies.lock().unwrap_or_else(PoisonError::into_inner),
            message,
        )
    };
    reply(&FromWorker::Hello { version: VERSION })?;
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
    let machine = match start(&description) {
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
        std::thread::spawn(move || watch(&machine, &replies))
    };
    while let Ok(Some(message)) = receive::<ToWorker>(control) {
        match message {
            ToWorker::Inspect => reply(&FromWorker::Status {
                exits: machine.total_exits(),
                console: machine.console().text(),
            })?,
            ToWorker::Stop => break,
            ToWorker::Hello { .. } | ToWorker::Start(_) => break,
        }
    }
    // Told to, or the embedder is gone: either way this machine is over.
    if machine.stop().is_ok() {
        let _ = watcher.join();
    }
    for path in [&description.mux, &description.exec] {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Reports the machine's end.
fn watch(machine: &RunningMachine, replies: &Mutex<UnixStream>) {
    let reason = machine.wait();
    let message = FromWorker::Ended {
        orderly: matches!(reason, ExitReason::PowerOff | ExitReason::Stopped),
        reason: with_causes(&reason),
        console: machine.console().text(),
    };
    let stream = replies.lock().unwrap_or_else(PoisonError::into_inner);
    // The embedder may be gone already.
    let _ = send(&*stream, &message);
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
