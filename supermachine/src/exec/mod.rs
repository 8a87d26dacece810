//! Commands in a guest: built, run, streamed.

mod channel;
mod child;
mod environment;
mod output;
#[cfg(test)]
mod tests;

use channel::LATE_PROBE_PATIENCE;
pub(crate) use channel::{Channel, Sinks};
pub use child::{ExecChild, ExecStdin};
pub use output::ExecOutput;
use output::MAX_UNREAD_BYTES;

use crate::deadline::Deadline;
use crate::engine::dial::GREETING_LIMIT;
use crate::registry::RunningVm;
use crate::{Error, Vm};
use exec_proto::client::Session;
use exec_proto::{ExecFlags, ExecRequest, ExitStatus, Exited, ProtoError, WinSize};
use oci_bake::ImageConfig;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Default limit of collected output, per stream.
const MAX_OUTPUT_BYTES: usize = 256 << 20;
/// How much later than its time limit a command may end for its host, with the
/// time that then goes into a look at its worker.
const HANG_PATIENCE: Duration = Duration::from_secs(10).saturating_sub(LATE_PROBE_PATIENCE);
/// How fast a guest takes staged files, at the least.
const SLOWEST_BYTES_PER_SECOND: usize = 1 << 20;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecStatus {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal number, if one ended it.
    pub signal: Option<i32>,
    /// Wall time in the guest, from start to end.
    pub duration: Duration,
    /// The time limit ended it.
    pub timed_out: bool,
    /// Largest resident set of the command and its descendants, in KiB.
    pub peak_rss_kib: u64,
    /// Which command it was that ended last: 0 for the first, 1 for the first
    /// that was chained to it.
    pub step: u32,
    /// Its program came to run. If not, `code` is 127 if there is no such program,
    /// 126 if it cannot be executed, and standard error says which it was.
    pub executed: bool,
}

impl ExecStatus {
    pub(crate) fn from_wire(exited: &Exited) -> Self {
        let (code, signal) = match exited.status {
            ExitStatus::Code(code) => (Some(i32::from(code)), None),
            ExitStatus::Signal(signal) => (None, Some(i32::from(signal))),
        };
        Self {
            code,
            signal,
            duration: Duration::from_nanos(exited.duration_ns),
            timed_out: exited.timed_out,
            peak_rss_kib: exited.peak_rss_kib,
            step: exited.step,
            executed: exited.executed,
        }
    }

    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// As shells report it: the exit code, or 128 and the signal's number.
    pub fn shell_status(&self) -> u8 {
        let status = match (self.code, self.signal) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 255,
        };
        u8::try_from(status).unwrap_or(255)
    }
}

/// What a command wrote and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecOutcome {
    /// How it ended.
    pub status: ExecStatus,
    /// Standard output; with a terminal, everything.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Wall time in the guest.
    pub duration: Duration,
    /// The time limit ended it.
    pub timed_out: bool,
    /// Largest resident set, in KiB.
    pub peak_rss_kib: u64,
}

impl ExecOutcome {
    /// Whether the command exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

#[derive(Clone, Debug)]
struct StagedFile {
    path: Vec<u8>,
    mode: u32,
    bytes: Vec<u8>,
}

/// A command to run in a machine, with the image's environment, user and
/// working directory unless said otherwise.
#[derive(Debug)]
#[must_use = "nothing runs before output, spawn or one of their kin is called"]
pub struct ExecBuilder<'vm> {
    target: Target<'vm>,
    request: ExecRequest,
    env: Vec<(Vec<u8>, Vec<u8>)>,
    staged: Vec<StagedFile>,
    stdin: Option<Vec<u8>>,
    max_output_bytes: Option<usize>,
}

/// Where a command runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'vm> {
    /// In a machine of this process.
    Own(&'vm Vm),
    /// In a machine of another process of the user.
    Running(&'vm RunningVm),
}

impl Target<'_> {
    fn image_config(&self) -> &ImageConfig {
        match self {
            Self::Own(vm) => vm.image_config(),
            Self::Running(vm) => &vm.description.config,
        }
    }

    fn open_session(
        &self,
        deadline: Deadline,
        queue: impl Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        match self {
            Self::Own(vm) => vm.instance().open_session(deadline, queue),
            Self::Running(vm) => vm.open_session(deadline, queue),
        }
    }
}

impl<'vm> ExecBuilder<'vm> {
    pub(crate) fn new(target: Target<'vm>) -> Self {
        let config = target.image_config();
        Self {
            target,
            request: ExecRequest {
                cwd: config.working_dir.clone().into_bytes(),
                user: config.user.clone().into_bytes(),
                flags: ExecFlags {
                    create_cwd: true,
                    ..ExecFlags::default()
                },
                ..ExecRequest::default()
            },
            env: Vec::new(),
            staged: Vec::new(),
            stdin: None,
            max_output_bytes: None,
        }
    }

    /// Program and arguments. The program is looked up in the guest's PATH.
    ///
    /// A program that is missing or cannot be executed is no error but has a
    /// status, 127 or 126, as in a shell; [`ExecStatus::executed`] tells it from
    /// one that ran and exited so. The same holds for chained commands.
    pub fn argv<S: Into<Vec<u8>>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.request.argv = argv.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a variable, over the image's.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let bytes = |text: &OsStr| text.as_bytes().to_vec();
        self.env.push((bytes(key.as_ref()), bytes(value.as_ref())));
        self
    }

    /// Working directory, instead of the image's.
    pub fn cwd(mut self, cwd: impl Into<Vec<u8>>) -> Self {
        self.request.cwd = cwd.into();
        self
    }

    /// `USER[:GROUP]`, names or numbers, instead of the image's.
    pub fn user(mut self, user: impl Into<Vec<u8>>) -> Self {
        self.request.user = user.into();
        self
    }

    /// Kills the command with all its descendants after this long, in guest
    /// time from its start, to the millisecond. The outcome is no error but
    /// has `timed_out` set. The guest is not trusted with that: if the end is
    /// not there ten seconds later (and a second for each MiB staged), whatever
    /// else the guest sends, that is [`Error::Timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout_ms = u64::try_from(timeout.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self
    }

    /// Runs the command on a terminal of its own.
    pub fn tty(mut self, tty: bool) -> Self {
        self.request.flags.tty = tty;
        self
    }

    /// Size of the terminal.
    pub fn winsize(mut self, columns: u16, rows: u16) -> Self {
        self.request.winsize = WinSize {
            cols: columns,
            rows,
        };
        self
    }

    /// Writes a file (mode 0644, at most 256 MiB, absolute path) before the
    /// command starts, in the same round trip. Directories that are missing are
    /// made.
    pub fn stage_file(self, path: impl Into<Vec<u8>>, bytes: impl Into<Vec<u8>>) -> Self {
        self.stage_file_mode(path, bytes, 0o644)
    }

    /// Writes a file with these permission bits before the command starts.
    pub fn stage_file_mode(
        mut self,
        path: impl Into<Vec<u8>>,
        bytes: impl Into<Vec<u8>>,
        mode: u32,
    ) -> Self {
        self.staged.push(StagedFile {
            path: path.into(),
            mode,
            bytes: bytes.into(),
        });
        self
    }

    /// Runs this after the previous command if that exited with 0. The outcome
    /// is that of the last command that was tried: [`ExecStatus::step`] says which
    /// one that was.
    pub fn chain<S: Into<Vec<u8>>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.request
            .chain
            .push(argv.into_iter().map(Into::into).collect());
        self
    }

    /// Bytes for standard input; without this it is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The most that [`ExecBuilder::output`] collects per stream, 256 MiB if
    /// not set: a command that writes more is killed. Also the most that a
    /// spawned command keeps of a stream nobody reads, 16 MiB if not set: see
    /// [`ExecChild::stdout`].
    pub fn max_output_bytes(mut self, bytes: usize) -> Self {
        self.max_output_bytes = Some(bytes);
        self
    }

    /// Runs the command and collects what it writes. A command that fails is
    /// no error: see [`ExecOutcome::status`].
    ///
    /// # Errors
    /// [`Error::Exec`] when the guest cannot start a command as it was asked to
    /// (no such user or directory, no memory left),
    /// [`Error::OutputTooLarge`] when it wrote more than the limit,
    /// [`Error::Ended`] when the machine ended meanwhile.
    pub fn output(mut self) -> Result<ExecOutcome, Error> {
        self.request.flags.stdin = self.stdin.is_some();
        let stdin = self.stdin.take();
        let limit = self.max_output_bytes.unwrap_or(MAX_OUTPUT_BYTES);
        let channel = self.start()?;
        let mut collect = Collect {
            stdout: Vec::new(),
            stderr: Vec::new(),
            limit,
        };
        let status = std::thread::scope(|scope| {
            if let Some(stdin) = stdin {
                let channel = &channel;
                let feed = move || {
                    // Failures show on the reading side too.
                    let _ = channel
                        .write_stdin(&stdin)
                        .and_then(|_| channel.close_stdin());
                };
                std::thread::Builder::new()
                    .name("exec-stdin".into())
                    .spawn_scoped(scope, feed)
                    .map_err(Error::system("start a thread"))?;
            }
            channel.read_to_end(&mut collect)
        })?;
        Ok(ExecOutcome {
            status,
            stdout: collect.stdout,
            stderr: collect.stderr,
            duration: status.duration,
            timed_out: status.timed_out,
            peak_rss_kib: status.peak_rss_kib,
        })
    }

    /// Starts the command with its streams open. A guest that cannot start it
    /// shows in [`ExecChild::wait`].
    ///
    /// # Errors
    /// [`Error::Ended`] when the machine has ended, [`Error::System`] when the
    /// host has no threads or descriptors left.
    pub fn spawn(mut self) -> Result<ExecChild, Error> {
        self.request.flags.stdin = true;
        let max_unread_bytes = self.max_output_bytes.unwrap_or(MAX_UNREAD_BYTES);
        let channel = self.start()?;
        ExecChild::new(channel, max_unread_bytes, HANG_PATIENCE)
    }

    /// Connects and sends everything that comes before the command's output.
    pub(crate) fn start(mut self) -> Result<Channel, Error> {
        self.request.env = self.environment();
        let staged: usize = self.staged.iter().map(|file| file.bytes.len()).sum();
        let sending = Duration::from_secs((staged / SLOWEST_BYTES_PER_SECOND) as u64);
        let whole = match self.request.timeout_ms {
            0 => Deadline::none(),
            ms => Deadline::within(Duration::from_millis(ms))
                .later_by(HANG_PATIENCE.saturating_add(sending)),
        };
        let opening = whole.at_most(GREETING_LIMIT.saturating_add(sending));
        let channel = self.target.open_session(opening, |session| {
            for file in &self.staged {
                session.stage_file(&file.path, file.mode, &file.bytes)?;
            }
            session.exec(&self.request)
        })?;
        channel.limit(whole);
        Ok(channel)
    }

    /// Starts the command as the machine's workload, which lives on its own.
    pub(crate) fn start_workload(mut self, deadline: Deadline) -> Result<(), Error> {
        self.request.env = self.environment();
        let channel = self
            .target
            .open_session(deadline, |session| session.start_workload(&self.request))?;
        crate::vm::answer_until(&channel, deadline, |event| {
            matches!(event, exec_proto::client::Event::Workload(_)).then_some(())
        })
    }

    pub(crate) fn keep_stdin_open(&mut self) {
        self.request.flags.stdin = true;
    }

    /// The image's variables under ours; a later setting of a name wins.
    fn environment(&self) -> Vec<Vec<u8>> {
        let image = self.target.image_config().env.iter().filter_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            Some((key.as_bytes(), value.as_bytes()))
        });
        let own = self.env.iter().map(|(key, value)| (&key[..], &value[..]));
        environment::merge(image.chain(own))
            .into_iter()
            .map(|(key, value)| [key, b"=", value].concat())
            .collect()
    }
}

struct Collect {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    limit: usize,
}

impl Collect {
    fn push(buffer: &mut Vec<u8>, bytes: &[u8], limit: usize) -> Result<(), Error> {
        if bytes.len() > limit.saturating_sub(buffer.len()) {
            return Err(Error::OutputTooLarge { limit });
        }
        buffer.extend_from_slice(bytes);
        Ok(())
    }
}

impl Sinks for Collect {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Self::push(&mut self.stdout, bytes, self.limit)
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Self::push(&mut self.stderr, bytes, self.limit)
    }
}
