//! What can go wrong, by what the caller can do about it.

use exec_proto::Printable;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

/// An error of this crate.
///
/// What a guest or an image said is in the fields as it came; `Display` and
/// `Debug` show it so that it cannot drive a terminal, and not more than some
/// kilobytes of it. `Debug` has the causes too, for a `main` that returns it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image cannot be used: not an image, damaged, or not for arm64.
    #[error(transparent)]
    Image(#[from] oci_bake::BakeError),
    /// No running machine has this name or id, or several have.
    #[error("{}; `supermachine ps` shows all", how_many(*count, &Printable::line(name)))]
    NoSuchVm {
        /// What was looked for.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// The image reference is not one.
    #[error(transparent)]
    Reference(#[from] oci_bake::ImageError),
    /// The guest kernel or init was not found; the text says how to get them.
    #[error(transparent)]
    Assets(#[from] kernel::KernelError),
    /// The worker executable was not found.
    #[error(
        "supermachine-worker was not found beside {} or in PATH; \
         install it there or set VmConfig::with_worker",
        shown(beside)
    )]
    NoWorker {
        /// Directory of the running executable.
        beside: PathBuf,
    },
    /// The worker process could not be started or spoken to.
    #[error("the worker process failed while {what}{}", log_excerpt(.log))]
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
    Resources(#[from] vmm_core::ResourceError),
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
    #[error("{vcpus} vCPUs were asked for, a guest has at most {max}")]
    TooManyVcpus {
        /// How many were asked for.
        vcpus: u32,
        /// How many there can be.
        max: u32,
    },
    /// The configuration asks for other memory than a copy of the snapshot can
    /// have.
    #[error("{memory_mib} MiB of memory were asked for, copies can have {min_mib} to {max_mib}")]
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
        "`{}` is no name: 1 to 64 letters, digits, dots and hyphens are allowed",
        Printable::line(hostname)
    )]
    BadHostname {
        /// What was given.
        hostname: String,
    },
    /// The worker could not make the machine: no memory for it, no such
    /// engine here, a kernel that is none.
    #[error("the machine could not be started: {}", Printable::line(message))]
    Start {
        /// The worker's reason.
        message: String,
    },
    /// The asynchronous runtime ended before this was begun.
    #[error("the asynchronous runtime is ending")]
    Cancelled,
    /// The machine could not do what was asked, and goes on.
    #[error("the machine goes on without: {}", Printable::line(message))]
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
        "the snapshot cannot be used here and must be baked again: {}",
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
        source: snapshot::SnapshotError,
    },
    /// The snapshot cannot be read or written.
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
    /// The command that was to warm an image up failed.
    #[error("the warm-up ended with status {status}: {}", Printable::lines(stderr.trim_end()))]
    Warmup {
        /// Its exit status, as shells report it.
        status: u8,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The workload ended, or did not listen in time, while its image was being
    /// baked.
    #[error("the workload was not ready to be captured: {}{}", Printable::line(reason), output_excerpt(.output))]
    Workload {
        /// What was waited for, and what happened.
        reason: String,
        /// The last it wrote to standard output and error, at most 64 KiB.
        output: String,
    },
    /// The pool has no machine to give.
    #[error(transparent)]
    Pool(#[from] pool::PoolError),
    /// The guest could not be made a machine of its own, so it was not handed
    /// out.
    #[error(
        "the copy could not be made a machine of its own: {}",
        Printable::line(reason)
    )]
    NotUnique {
        /// What did not work.
        reason: String,
    },
    /// The machine was not made from a snapshot, or not kept as one needs it.
    #[error("{what} needs {needs}")]
    Unsuitable {
        /// What was asked for.
        what: &'static str,
        /// What it takes.
        needs: &'static str,
    },
    /// The guest ended or hung before it served commands.
    #[error("the guest did not come up: {}{}", Printable::line(reason), console_excerpt(.console))]
    BootFailed {
        /// How it ended.
        reason: String,
        /// The end of its console.
        console: String,
    },
    /// The machine has ended, so there is nothing to run commands on.
    #[error("the machine has ended: {}", Printable::line(reason))]
    Ended {
        /// How.
        reason: String,
    },
    /// The guest could not start the command.
    #[error("{}", Printable::line(message))]
    Exec {
        /// What kind of failure.
        kind: exec_proto::ErrorKind,
        /// The guest's words.
        message: String,
    },
    /// The agent broke the protocol.
    #[error(transparent)]
    Protocol(#[from] exec_proto::ProtoError),
    /// The connection to the agent broke.
    #[error("the connection to the guest broke while {what}")]
    Connection {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The command's output could not be passed on; it was ended for that.
    #[error("cannot write the command's output")]
    Output {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The host refused something that is usually there.
    #[error("cannot {what}")]
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
    /// A limit of the caller's passed.
    #[error("{what} took longer than {after:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The limit.
        after: Duration,
    },
    /// A file or directory of the host.
    #[error("{what}: {}", shown(path))]
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\x1b]0;owned\x07b\u{9b}2J\u{202e}c\nsupermachine: all is well";

    /// Every kind of error that carries text of a guest, an image or a worker.
    fn hostile() -> Vec<Error> {
        let text = || HOSTILE.to_owned();
        let broken = || io::Error::other("broken");
        let failure = exec_proto::Failure {
            kind: exec_proto::ErrorKind::UnknownUser,
            errno: 0,
            message: text(),
        };
        vec![
            failure.into(),
            Error::NoSuchVm {
                name: text(),
                count: 0,
            },
            Error::BadHostname { hostname: text() },
            Error::Start { message: text() },
            Error::Refused { message: text() },
            Error::Rebake { reason: text() },
            Error::NotUnique { reason: text() },
            Error::Ended { reason: text() },
            Error::host("cannot read", text())(broken()),
            Error::NoWorker {
                beside: text().into(),
            },
        ]
    }

    fn assert_tame(text: &str) {
        let is_shown = |char| Printable::is_harmless(char) || char == '\n';
        assert!(text.chars().all(is_shown), "{text:?}");
    }

    #[test]
    fn text_of_others_cannot_drive_a_terminal_or_make_lines_of_its_own() {
        for error in hostile() {
            for text in [error.to_string(), format!("{error:?}"), with_causes(&error)] {
                assert_tame(&text);
                assert!(!text.contains('\n') && text.contains("owned"), "{text}");
            }
        }
    }

    #[test]
    fn logs_and_consoles_keep_their_lines_and_nothing_else() {
        let text = || HOSTILE.to_owned();
        let errors = [
            Error::BootFailed {
                reason: text(),
                console: text(),
            },
            Error::Warmup {
                status: 1,
                stderr: text(),
            },
            Error::Workload {
                reason: text(),
                output: text(),
            },
            Error::Worker {
                what: "waiting",
                log: text(),
                source: io::Error::other("broken"),
            },
        ];
        for error in errors {
            assert_tame(&error.to_string());
            assert_tame(&format!("{error:?}"));
            assert!(error.to_string().contains("\nsupermachine: all is well"));
        }
    }

    #[test]
    fn text_of_others_is_bounded() {
        let long = "x".repeat(1 << 20);
        let errors = [
            Error::Exec {
                kind: exec_proto::ErrorKind::Io,
                message: long.clone(),
            },
            Error::BootFailed {
                reason: long.clone(),
                console: long.clone(),
            },
            Error::Warmup {
                status: 1,
                stderr: long.clone(),
            },
        ];
        for error in errors {
            assert!(error.to_string().len() < 32 << 10);
            assert!(format!("{error:?}").len() < 32 << 10);
        }
    }

    #[test]
    fn an_error_that_ends_main_reads_like_one_of_the_tool() {
        let error = Error::host("cannot read", "/a b")(io::Error::other("disk on fire"));
        assert_eq!(format!("{error:?}"), "cannot read: /a b: disk on fire");
        assert_eq!(format!("{error:#?}"), with_causes(&error));
    }
}
