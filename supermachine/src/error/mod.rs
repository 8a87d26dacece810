//! What can go wrong, by what the caller can do about it.

mod cause;
mod kind;
mod registry;
mod step;
#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod tests;

pub use cause::Cause;
pub use kind::ErrorKind;

use exec_proto::Printable;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

/// An error of this crate. Its text says what is the matter and what to do next,
/// its causes why. [`Error::kind`] says what a caller can do about it,
/// [`Error::is_retryable`] whether doing the same again may work, and
/// [`Error::code`] is a word for programs and logs that does not change.
///
/// What a guest or an image said is in the fields as it came; `Display` and
/// `Debug` show it so that it cannot drive a terminal, and not more than some
/// kilobytes of it. `Debug` has the causes too, for a `main` that returns it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image cannot be used: not an image, damaged, or not for arm64.
    #[error(transparent)]
    Image(Cause),
    /// No running machine has this name or id, or several have.
    #[error("{}; `supermachine ps` shows all", how_many(*count, &Printable::line(name)))]
    NoSuchVm {
        /// What was looked for.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// Another running machine has the name in the configuration.
    #[error(
        "a running machine is called `{}` already: use another name, or stop that one",
        Printable::line(name)
    )]
    NameTaken {
        /// What was given.
        name: String,
    },
    /// A port or socket of the host is taken already.
    #[error(
        "{} is in use: name another, or end what listens there",
        Printable::line(address)
    )]
    PortInUse {
        /// Address and port, or the path of a Unix socket.
        address: String,
    },
    /// A list has no such field to print or to select by.
    #[error("there is no field `{}`: name one of {fields}", Printable::line(field))]
    NoSuchField {
        /// What was asked for.
        field: String,
        /// What there is.
        fields: String,
    },
    /// The image reference is not one.
    #[error(transparent)]
    Reference(Cause),
    /// A registry does not give the image: it is not there, there or on the way something
    /// is broken, or it wants to know who asks.
    #[error(transparent)]
    Registry(Cause),
    /// The guest kernel or init was not found; the text says how to get them.
    #[error(transparent)]
    Assets(Cause),
    /// The worker executable was not found.
    #[error(
        "supermachine-worker was not found beside {} or in PATH: put it there, or begin the \
         program's `main` with `supermachine::worker_main();`",
        shown(beside)
    )]
    NoWorker {
        /// Directory of the running executable.
        beside: PathBuf,
    },
    /// The worker process could not be started or spoken to.
    #[error(
        "the worker process failed while {what}{}; start another machine",
        log_excerpt(.log)
    )]
    Worker {
        /// What was being done.
        what: &'static str,
        /// Its last words, if it left any.
        log: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The configuration asks for a machine without memory or vCPUs.
    #[error(transparent)]
    Resources(Cause),
    /// This process may not open as many files as that many machines need.
    #[error(
        "{count} machines need {needed} descriptors, {room} of {limit} are free: \
         ask for fewer, or raise the limit (ulimit -n)"
    )]
    Descriptors {
        /// Machines that were asked for.
        count: usize,
        /// Descriptors they need.
        needed: u64,
        /// Descriptors this process may still open.
        room: u64,
        /// Descriptors it may have in all.
        limit: u64,
    },
    /// The configuration asks for more vCPUs than a guest can use.
    #[error("{vcpus} vCPUs were asked for, a guest has at most {max}: ask for fewer")]
    TooManyVcpus {
        /// How many were asked for.
        vcpus: u32,
        /// How many there can be.
        max: u32,
    },
    /// The configuration asks for other memory than a copy of the snapshot can
    /// have.
    #[error(
        "{memory_mib} MiB of memory were asked for, copies can have {min_mib} to {max_mib}: \
         ask for that, or bake the image with other memory"
    )]
    MemoryOutOfRange {
        /// How much was asked for, in MiB.
        memory_mib: usize,
        /// What the guest needs at least, in MiB.
        min_mib: usize,
        /// What its address space has room for, in MiB.
        max_mib: usize,
    },
    /// The host name in the configuration is not one.
    #[error(
        "`{}` is no name: choose one of 1 to 64 letters, digits, dots and hyphens",
        Printable::line(hostname)
    )]
    BadHostname {
        /// What was given.
        hostname: String,
    },
    /// The network policy in the configuration is not one.
    #[error(transparent)]
    Network(Cause),
    /// A mount of the configuration is not one, or not one of the snapshot's.
    #[error("mount `{}`: {problem}", Printable::line(tag))]
    Mount {
        /// Its tag.
        tag: String,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// A volume cannot be what was asked for, or there is none of that name.
    #[error("volume `{}`: {problem}", Printable::line(name))]
    Volume {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// Another machine has the volume.
    #[error(
        "volume `{}` is in use by {}: stop that, or use another volume",
        Printable::line(name),
        Printable::line(by)
    )]
    VolumeInUse {
        /// Its name.
        name: String,
        /// Who has it.
        by: String,
    },
    /// The guest could not mount or grow a volume.
    #[error(
        "the guest cannot use volume `{}`: {}; see to what is in it, or remove it",
        Printable::line(name),
        Printable::line(reason)
    )]
    VolumeUnusable {
        /// Its name.
        name: String,
        /// The guest's words.
        reason: String,
    },
    /// The worker could not make the machine: no memory for it, no such
    /// engine here, a file that is no kernel.
    #[error(
        "the machine could not be started: {} (`supermachine doctor` shows what works here)",
        Printable::line(message)
    )]
    Start {
        /// The worker's reason.
        message: String,
    },
    /// Nobody wants this any more, or the asynchronous runtime ended before it was begun.
    #[error(
        "the call was cancelled, or its asynchronous runtime is ending: call it from one that lives on"
    )]
    Cancelled,
    /// The machine is paused, and does nothing until it goes on.
    #[error("the machine is paused: call Vm::resume, or `supermachine unpause`, first")]
    Paused,
    /// The machine could not do what was asked, and goes on.
    #[error(
        "the machine cannot do that, and goes on: {}; see to the reason, or do without",
        Printable::line(message)
    )]
    Refused {
        /// Why.
        message: String,
    },
    /// There is no snapshot there: neither the directory of an image that was
    /// baked nor that of one generation.
    #[error(
        "there is no snapshot at {}; `supermachine images` lists what was baked",
        shown(path)
    )]
    NoSnapshot {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// The snapshot does not fit this host, kernel or version; bake it again.
    #[error(
        "the snapshot cannot be used here, bake it again: {}",
        Printable::line(reason)
    )]
    Rebake {
        /// What does not fit.
        reason: String,
    },
    /// A machine could not be made of the snapshot because files of it do not
    /// have the content they were written with. What `build` baked is baked
    /// again by the next `build`.
    #[error(
        "the snapshot in {0} is damaged: bake the image again \
         (`supermachine snapshot verify {0}` says whether it is whole)",
        shown(path)
    )]
    Damaged {
        /// Directory of the generation.
        path: PathBuf,
        /// What is damaged.
        #[source]
        source: Cause,
    },
    /// The snapshot cannot be read or written.
    #[error(transparent)]
    Snapshot(Cause),
    /// The command that was to warm an image up failed.
    #[error(
        "the warm-up ended with status {status}, so nothing was baked; see to its command{}",
        output_excerpt(.stderr)
    )]
    Warmup {
        /// Its exit status, as shells report it.
        status: u8,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The workload ended, or did not listen in time, while its image was being
    /// baked.
    #[error(
        "the workload was not ready to be captured: {}; see to its output, or choose another \
         trigger{}",
        Printable::line(reason), output_excerpt(.output)
    )]
    Workload {
        /// What was waited for, and what happened.
        reason: String,
        /// The last it wrote to standard output and error, at most 64 KiB.
        output: String,
    },
    /// The pool has no machine to give.
    #[error(transparent)]
    Pool(Cause),
    /// The guest could not be made a machine of its own, so it was not handed
    /// out.
    #[error(
        "the copy could not be made a machine of its own, and was ended: {}; try again",
        Printable::line(reason)
    )]
    NotUnique {
        /// What did not work.
        reason: String,
    },
    /// The machine was not made from a snapshot, or not kept as one needs it.
    #[error("{what} needs {needs}: see to that first")]
    Unsuitable {
        /// What was asked for.
        what: &'static str,
        /// What it takes.
        needs: &'static str,
    },
    /// The guest ended or hung before it served commands.
    #[error(
        "the guest did not come up: {}; see to what its console says, or give it more time or \
         memory{}",
        Printable::line(reason), console_excerpt(.console)
    )]
    BootFailed {
        /// How it ended.
        reason: String,
        /// The end of its console.
        console: String,
    },
    /// The machine has ended, so there is nothing to run commands on.
    #[error(
        "the machine has ended: {}; start another one",
        Printable::line(reason)
    )]
    Ended {
        /// How.
        reason: String,
    },
    /// The guest could not start the command.
    #[error("{}{}", Printable::line(message), step::of_guest(*kind))]
    Exec {
        /// What kind of failure.
        kind: exec_proto::ErrorKind,
        /// The guest's words.
        message: String,
    },
    /// The agent broke the protocol, or was asked for what it has no words for: a path
    /// that is not absolute, a file that is too large.
    #[error(transparent)]
    Protocol(Cause),
    /// The connection to the agent broke.
    #[error("the connection to the guest broke while {what}; try again, or start another machine")]
    Connection {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The command's output could not be passed on; it was ended for that.
    #[error("cannot write the command's output; see to what takes it, and run the command again")]
    Output {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The host refused something that is usually there.
    #[error("cannot {what}; see to what the host says of it, and try again")]
    System {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The command wrote more than the limit for collected output.
    #[error("the command wrote more than {limit} bytes; read it as a stream instead")]
    OutputTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// What is copied has more than it may have.
    #[error("the copy has more than {limit} {what}: raise the limit in CopyOptions, or copy less")]
    CopyTooLarge {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A limit of the caller's passed.
    #[error(
        "{what} took longer than {after:?}; try again with more time, and start another machine \
         if it stays silent"
    )]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The limit.
        after: Duration,
    },
    /// A file or directory of the host.
    #[error("{what} {}; see to what the host says of it", shown(path))]
    Host {
        /// What was being done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl From<exec_proto::Failure> for Error {
    fn from(failure: exec_proto::Failure) -> Self {
        Self::Exec {
            kind: failure.kind,
            message: failure.message,
        }
    }
}

fn log_excerpt(log: &str) -> String {
    if log.trim().is_empty() {
        String::new()
    } else {
        format!(" (it said: {})", Printable::lines(log.trim()))
    }
}

/// Why a name does not stand for one machine.
fn how_many(count: usize, name: &Printable<'_>) -> String {
    match count {
        0 => format!("no running machine is called `{name}`"),
        _ => format!("{count} running machines are called `{name}`, or have ids that start so"),
    }
}

fn console_excerpt(console: &str) -> String {
    if console.trim().is_empty() {
        String::new()
    } else {
        let console = Printable::lines(console.trim_end());
        format!("\nthe end of its console:\n{console}")
    }
}

fn output_excerpt(output: &str) -> String {
    if output.trim().is_empty() {
        return "; it wrote nothing".to_owned();
    }
    let output = Printable::lines(output.trim_end());
    format!("\nthe end of its output:\n{output}")
}

/// A path, which may be named after what an image says.
fn shown(path: &Path) -> String {
    Printable::line(&path.to_string_lossy()).to_string()
}

/// An error's text and its causes'.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Printable::lines(&with_causes(self)), f)
    }
}

impl Error {
    pub(crate) fn host(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Host { what, path, source }
    }

    pub(crate) fn connection(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Connection { what, source }
    }

    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// The exit status by which a command line tool reports this error: 127
    /// for a command that does not exist, 126 for one that cannot be run, 125
    /// for everything else.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Exec { kind, .. } => kind.exit_status(),
            _ => 125,
        }
    }
}
