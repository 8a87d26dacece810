//! The supervisor of a detached machine: it is the machine's owner, writes its
//! command's output to the log and down how that ended.

use super::clients::{Attachable, Told};
use super::log::Writer;
use super::record::{Ended, Record, Started};
use crate::cli::command::{self, Options};
use crate::cli::control;
use crate::cli::net_log::NetLog;
use crate::cli::signals::{Audience, Forwarder, to_command};
use crate::deadline::Deadline;
use crate::error::with_causes;
use crate::exec::{self, Channel, ExecId, ExecStatus, StreamOffsets};
use crate::limits::OVERRUN_TIMEOUT;
use crate::running::unix_ms;
use crate::store::remove_unless_used;
use crate::{Error, Vm};
use rustix::fs::{Mode, OFlags};
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Status of a command whose machine was ended by force: 128 and SIGKILL.
const KILLED: u8 = 128 + 9;
/// What a supervisor says on its standard output when the command runs.
pub const STARTED: &str = "started\n";

/// What a machine is to do.
pub enum Work {
    /// This command.
    Begin(Vec<Vec<u8>>),
    /// What it did when it was copied.
    GoOn(Going),
}

/// A command of a machine that was copied, and up to where somebody was told of its
/// outputs: `ID:STDOUT:STDERR` in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Going {
    /// By what the guest knows it.
    pub id: ExecId,
    /// What comes from here on is the copy's.
    pub from: StreamOffsets,
}

impl fmt::Display for Going {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.id, self.from.stdout, self.from.stderr)
    }
}

impl FromStr for Going {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().unwrap_or_default();
        Ok(Self {
            id: next().parse()?,
            from: StreamOffsets {
                stdout: next().parse()?,
                stderr: next().parse()?,
            },
        })
    }
}

impl Work {
    /// The command's connection, by what the guest knows it, and where its outputs
    /// begin. It is the guest's, so that it goes on in copies of the machine.
    fn take_up(
        self,
        vm: &Vm,
        options: &Options,
        size: Option<(u16, u16)>,
    ) -> Result<(Channel, (ExecId, StreamOffsets)), Error> {
        match self {
            Self::Begin(argv) => {
                let builder = vm.exec_builder().argv(argv).durable(true);
                let channel = command::start(builder, options, size)?;
                let id = exec::durable_id(&channel)?;
                Ok((channel, (id, StreamOffsets::default())))
            }
            Self::GoOn(Going { id, from }) => {
                let (channel, begins) = exec::attach_channel(vm, id, from)?;
                // Its time goes on in the guest. That is not trusted with it, as ever.
                if let Some(timeout) = options.timeout {
                    channel.limit(Deadline::within(timeout).later_by(OVERRUN_TIMEOUT));
                }
                Ok((channel, (id, begins)))
            }
        }
    }
}

/// What a supervisor is told of its machine.
pub struct Supervised<'a> {
    /// The machine's directory.
    pub dir: &'a Path,
    pub options: &'a Options,
    /// Columns and rows of the terminal that attends the command, if one does: our
    /// standard input is a socket to it then.
    pub attended: Option<(u16, u16)>,
}

/// Becomes the supervisor of the directory's machine: makes it by `begin`, and
/// returns when its command has ended.
pub fn supervise(
    supervised: &Supervised<'_>,
    signals: &Forwarder,
    begin: impl FnOnce() -> Result<(Vm, Work, Option<NetLog>), Error>,
) -> Result<u8, Error> {
    let dir = supervised.dir;
    let record = Record::open(dir).ok_or_else(|| {
        Error::host("there is no machine to supervise in", dir)(io::ErrorKind::NotFound.into())
    })?;
    let occupied = record.occupy()?;
    let (ended, is_kept) = match run(&record, supervised, signals, begin) {
        Ok(ended) => ended,
        Err(error) => {
            drop(occupied);
            // If whoever started us is still there, they do it.
            let _ = record.remove();
            return Err(error);
        }
    };
    let written = record.set_ended(&ended);
    if let Some(snapshot) = &record.about.snapshot {
        // What stays is removed by `gc`.
        let _ = remove_unless_used(snapshot);
    }
    if !is_kept {
        drop(occupied);
        record.remove()?;
    }
    written.map(|()| ended.status)
}

/// Runs the machine, and tells whether something of it is to be kept. An error is one
/// before its command ran.
fn run(
    record: &Record,
    supervised: &Supervised<'_>,
    signals: &Forwarder,
    begin: impl FnOnce() -> Result<(Vm, Work, Option<NetLog>), Error>,
) -> Result<(Ended, bool), Error> {
    let options = supervised.options;
    let owner = match supervised.attended {
        Some(_) => Some(UnixStream::from(
            io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map_err(Error::system("duplicate a socket"))?,
        )),
        None => None,
    };
    // So that neither a terminal's end nor its keys reach this process.
    rustix::process::setsid()
        .map_err(|error| Error::system("leave the terminal's session")(error.into()))?;
    let (vm, work, flows) = begin()?;
    let vm = Arc::new(vm);
    let log = Writer::create(record.dir())?;
    let (channel, command) = work.take_up(&vm, options, supervised.attended)?;
    let channel = Arc::new(channel);
    signals.attach(Audience::Tool, to_command(channel.clone(), options.tty))?;
    record.set_started(&Started {
        vm: vm.id().to_owned(),
        unix_ms: unix_ms(),
    })?;
    let streams = (options.tty, options.interactive);
    let attachable = Arc::new(Attachable::new(channel.clone(), command, streams));
    // Without it nobody can ask for a snapshot, or attach.
    let _ = control::serve(&vm, Some(attachable.clone()));
    let attended = match owner {
        Some(owner) => Some(Attendance::begin(owner, &attachable, &vm)?),
        None => None,
    };
    announce()?;
    let mut told = Told {
        log,
        to: &attachable,
    };
    let result = channel.read_to_end(&mut told);
    signals.settle();
    let (status, reason, has_failed) = match result {
        Ok(status) => (status.shell_status(), in_words(&status), false),
        Err(_) if record.is_killed() => (KILLED, "ended by force".to_owned(), true),
        Err(error) => (error.exit_status(), with_causes(&error), true),
    };
    attachable.end(status, has_failed.then(|| reason.clone()));
    drop(flows);
    vm.end();
    let is_left = attended.is_none_or(|attended| attended.has_left());
    let ended = Ended {
        status,
        reason,
        unix_ms: unix_ms(),
    };
    Ok((ended, is_left && !record.about.remove))
}

/// Who started the machine, and sits at a terminal that shows its command.
struct Attendance(Arc<AtomicBool>);

impl Attendance {
    /// The machine ends with them, unless they say before that they leave it.
    fn begin(owner: UnixStream, attachable: &Arc<Attachable>, vm: &Arc<Vm>) -> Result<Self, Error> {
        let number = attachable.attend(&owner);
        let number = number.map_err(Error::system("duplicate a socket"))?;
        let has_left = Arc::new(AtomicBool::new(false));
        let (left, attachable, vm) = (has_left.clone(), attachable.clone(), Arc::downgrade(vm));
        let heed = move || {
            let is_left = attachable.heed(number, &owner);
            left.store(is_left, Ordering::SeqCst);
            if let (false, Some(vm)) = (is_left, vm.upgrade()) {
                vm.abandon();
            }
        };
        std::thread::Builder::new()
            .name("owner".into())
            .spawn(heed)
            .map_err(Error::system("start a thread"))?;
        Ok(Self(has_left))
    }

    /// Whether they have left the machine to itself.
    fn has_left(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Tells whoever started us, who is not there any more from here on.
fn announce() -> Result<(), Error> {
    let nowhere = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let told = io::stdout().write_all(STARTED.as_bytes());
    told.and_then(|()| io::stdout().flush())
        .and_then(|()| {
            let nowhere = nowhere?;
            rustix::stdio::dup2_stdin(&nowhere)?;
            rustix::stdio::dup2_stdout(&nowhere)?;
            rustix::stdio::dup2_stderr(&nowhere)?;
            std::env::set_current_dir("/")
        })
        .map_err(Error::system("leave whoever started the machine"))
}

fn in_words(status: &ExecStatus) -> String {
    match (status.timed_out, status.signal, status.code) {
        (true, _, _) => "ended by its time limit".to_owned(),
        (_, Some(signal), _) => format!("ended by signal {signal}"),
        (_, None, Some(code)) if !status.executed => {
            format!("its program could not be executed (status {code})")
        }
        (_, None, code) => format!("exited with {}", code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_goes_on_is_one_word() {
        let going: Going = "7:0:18446744073709551615".parse().unwrap();
        assert_eq!((going.from.stdout, going.from.stderr), (0, u64::MAX));
        assert_eq!(going.to_string(), "7:0:18446744073709551615");
        for bad in ["", "7", "7:1", "7:1:", "7:1:2:3", "x:1:2", "7:-1:2"] {
            assert!(bad.parse::<Going>().is_err(), "{bad:?}");
        }
    }
}
