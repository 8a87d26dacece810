//! From the kernel's hand-over to a machine in which commands can run.
//!
//! Only what a command cannot do without is fatal: the layers, the overlay,
//! `/dev`, `/proc`. Everything else is tried once and lived without, because
//! an image may be odd and a kernel may be small.

pub mod network;
pub mod options;
mod root;
mod shares;
mod surroundings;

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::agent::Agent;
use crate::agent::groups::GroupPool;
use crate::sys;
use options::Options;
use surroundings::GroupsPlace;

/// Soft and hard limit on open descriptors of commands. Not higher, because
/// some programs close every possible descriptor one by one; servers raise the
/// soft limit themselves.
const DESCRIPTOR_LIMITS: (u64, u64) = (16_384, 1_048_576);

/// Why a machine cannot come up.
#[derive(Debug)]
#[non_exhaustive]
pub enum BootError {
    /// A file system that must be there cannot be mounted.
    Mount {
        /// Where it was to be mounted.
        target: PathBuf,
        /// What it was to be mounted from.
        source: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The command line cannot be read.
    CommandLine(io::Error),
    /// The command line makes no sense.
    Options(options::BadOption),
    /// The overlay of all layers cannot be assembled.
    Overlay(io::Error),
    /// The overlay cannot become the root.
    Root(io::Error),
    /// The agent lacks something it needs.
    Agent(io::Error),
}

impl std::fmt::Display for BootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mount {
                target,
                source,
                error,
            } => {
                let (source, target) = (source.display(), target.display());
                write!(f, "cannot mount {source} on {target}: {error}")
            }
            Self::CommandLine(error) => write!(f, "cannot read the command line: {error}"),
            Self::Options(error) => write!(f, "{error}"),
            Self::Overlay(error) => write!(f, "cannot assemble the layers: {error}"),
            Self::Root(error) => write!(f, "cannot enter the new root: {error}"),
            Self::Agent(error) => write!(f, "cannot set up the agent: {error}"),
        }
    }
}

impl std::error::Error for BootError {}

/// Mounts a file system that is not on a disk.
fn mount_virtual(
    fs_type: &CStr,
    target: &str,
    flags: sys::MountFlags,
    data: &CStr,
) -> io::Result<()> {
    let source = Path::new(std::ffi::OsStr::new(fs_type.to_str().unwrap_or("none")));
    sys::mount(source, Path::new(target), fs_type, flags, data)
}

fn require(result: io::Result<()>, source: &str, target: &str) -> Result<(), BootError> {
    match result {
        Ok(()) => Ok(()),
        // Mounted already, by the kernel or by whoever started us.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        Err(error) => Err(BootError::Mount {
            target: target.into(),
            source: source.into(),
            error,
        }),
    }
}

/// Brings the machine up as PID 1 and gives the agent to serve it.
///
/// # Errors
/// What makes the machine unusable.
pub fn boot() -> Result<(Agent, Options), BootError> {
    // Existing directories are the normal case.
    let _ = fs::create_dir("/dev");
    let _ = fs::create_dir("/proc");
    let dev = mount_virtual(c"devtmpfs", "/dev", libc::MS_NOSUID, c"mode=0755");
    require(dev, "devtmpfs", "/dev")?;
    sys::fill_standard_descriptors().map_err(BootError::Agent)?;
    open_console();
    let safe = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let proc = mount_virtual(c"proc", "/proc", safe, c"");
    require(proc, "proc", "/proc")?;
    let line = fs::read("/proc/cmdline").map_err(BootError::CommandLine)?;
    let options = Options::parse(&String::from_utf8_lossy(&line)).map_err(BootError::Options)?;
    sys::set_umask(0o022);
    let around = surroundings::of_machine(&options);
    let (soft, hard) = DESCRIPTOR_LIMITS;
    // Commands live with the kernel's default then.
    let _ = sys::set_descriptor_limit(soft, hard);
    let agent = Agent::of_machine(around.boot_id).map_err(BootError::Agent)?;
    if options.root_later {
        let enter = |line: &str| {
            let options = Options::parse(line).map_err(BootError::Options);
            let entered = options.and_then(|options| enter_root(&options, around.groups));
            entered.map_err(|error| error.to_string())
        };
        return Ok((agent.entering(Box::new(enter)), options));
    }
    if let Some(groups) = enter_root(&options, around.groups)? {
        agent.use_groups(groups);
    }
    Ok((agent, options))
}

/// Makes the layers the root, if there are any, and puts into it what programs expect.
/// Gives control groups for commands, which see what is mounted by then.
fn enter_root(
    options: &Options,
    groups: Option<GroupsPlace>,
) -> Result<Option<GroupPool>, BootError> {
    if options.layers > 0 {
        root::enter_layers(options)?;
    }
    surroundings::of_root(options);
    let groups = groups.and_then(|place| place.pool(options.process_limit).ok());
    shares::mount(&options.mounts)?;
    Ok(groups)
}

/// The console, opened before a guest can cover `/dev`.
static CONSOLE: OnceLock<File> = OnceLock::new();

/// Finds where a person watching the boot looks: the console, or the kernel's
/// log, which reaches the console of every configuration.
fn open_console() {
    for name in ["/dev/console", "/dev/kmsg"] {
        if let Ok(file) = File::options().write(true).open(name) {
            let _ = CONSOLE.set(file);
            return;
        }
    }
}

/// Prints one line on the console.
pub fn say(message: &str) {
    if CONSOLE.get().is_none() {
        open_console();
    }
    if let Some(mut console) = CONSOLE.get() {
        let line = format!("supermachine-init: {message}\n");
        // Nobody is left to tell.
        let _ = console.write_all(line.as_bytes());
    }
}

/// Reports a boot that failed and ends the machine.
pub fn give_up(error: &BootError) -> ! {
    say(&format!("boot failed: {error}"));
    sys::sync_all();
    sys::power_off()
}
