//! Which executable workers are started from.

use crate::{Error, VmConfig, worker};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// The only argument of an executable that is entered again as a worker.
const REENTRY: &str = "--supermachine-worker";
/// Whether this executable can be entered again.
static CAN_REENTER: AtomicBool = AtomicBool::new(false);

/// For programs that ship as one executable: to be called first in `main`.
/// Where the process was started as a worker, it is one and does not return;
/// otherwise this returns at once, and workers are started from the running
/// executable instead of a `supermachine-worker` beside it or in `PATH`.
///
/// ```no_run
/// fn main() -> Result<(), supermachine::Error> {
///     supermachine::worker_main();
///     let image = supermachine::Image::builder("oci:image").build()?;
///     let vm = image.acquire()?;
///     println!("{:?}", vm.exec(["uname", "-a"])?.stdout);
///     Ok(())
/// }
/// ```
pub fn worker_main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == REENTRY) && arguments.next().is_none() {
        std::process::exit(worker::run().into());
    }
    CAN_REENTER.store(true, Ordering::Relaxed);
}

/// The whole of a worker executable's `main`: prepares one machine, makes it what
/// it is told over its standard input, and runs it to its end. Returns the exit
/// status of the process.
///
/// `supermachine-worker` is this and nothing else; programs that are their own
/// worker call [`worker_main`].
pub fn run_worker() -> u8 {
    worker::run()
}

/// What to start a worker with: the configured executable; else this one, if
/// it [can be entered again](worker_main); else the one beside it, else the
/// one in `PATH`.
pub fn find_worker(config: &VmConfig) -> Result<Command, Error> {
    const NAME: &str = "supermachine-worker";
    if let Some(path) = &config.worker {
        return Ok(Command::new(path));
    }
    let own = std::env::current_exe().unwrap_or_default();
    if CAN_REENTER.load(Ordering::Relaxed) {
        let mut command = Command::new(&own);
        command.arg(REENTRY);
        return Ok(command);
    }
    let beside = own.parent().unwrap_or(Path::new("/")).to_path_buf();
    // Tests and examples are built one directory below the executables.
    let below = beside.ends_with("deps") || beside.ends_with("examples");
    let above = beside.parent().filter(|_| below);
    for dir in [Some(beside.as_path()), above].into_iter().flatten() {
        let candidate = dir.join(NAME);
        if candidate.is_file() {
            entitle(&candidate);
            return Ok(Command::new(candidate));
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(NAME))
        .find(|candidate| candidate.is_file())
        .inspect(|worker| entitle(worker))
        .map(Command::new)
        .ok_or(Error::NoWorker { beside })
}

/// Signs a worker that has not the entitlement to run machines on a Mac, as one has not
/// that was just built. What cannot be signed can still run the software engine; why Apple's
/// refuses it is said then.
#[cfg(target_os = "macos")]
fn entitle(worker: &Path) {
    use std::sync::Once;
    // It is read whole, which is too much to do for each machine.
    static ONCE: Once = Once::new();
    ONCE.call_once(
        || match codesign::entitle(worker, &codesign::Entitlements::hypervisor()) {
            Ok(was_signed) => tracing::debug!(path = %worker.display(), was_signed, "worker"),
            Err(error) => tracing::warn!(path = %worker.display(), %error, "cannot sign worker"),
        },
    );
}

/// Other systems let every program run machines.
#[cfg(not(target_os = "macos"))]
fn entitle(_worker: &Path) {}
