//! Commands as data, which need no machine until they run.

use super::channel::Channel;
use super::durable::durable_id;
use super::output::MAX_UNREAD_BYTES;
use super::{ExecChild, ExecOutcome, Opens, environment};
use crate::Error;
use crate::deadline::Deadline;
use crate::limits::{COLLECTED_TIMEOUT, GREETING_TIMEOUT, OVERRUN_TIMEOUT};
use exec_proto::client::Session;
use exec_proto::{ExecFlags, ExecLimits, ExecRequest, ProtoError, WinSize};
use oci_bake::ImageConfig;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use tracing::debug;

/// [`COLLECTED_TIMEOUT`], as guests are told.
#[allow(clippy::cast_possible_truncation)]
const COLLECTED_TIMEOUT_MS: u64 = COLLECTED_TIMEOUT.as_millis() as u64;
/// How fast a guest takes staged files, at the least.
const SLOWEST_BYTES_PER_SECOND: usize = 1 << 20;

/// A file that is written before a command starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StagedFile {
    path: Vec<u8>,
    mode: u32,
    bytes: Vec<u8>,
}

/// How long a command may take.
pub(super) struct Times {
    /// Until its end.
    pub(super) whole: Deadline,
    /// Until the agent greets.
    pub(super) opening: Deadline,
}

/// What a command may use of its guest; 0 where that is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    pub(super) cpu_thousandths: u64,
}

/// A command as plain data: it can be built before there is a machine, kept,
/// sent to another thread, and run any number of times, by [`crate::Vm::run`] and
/// its kin. What it does not say, the image of the machine says: environment,
/// user and working directory.
///
/// ```
/// use std::time::Duration;
/// use supermachine::Command;
///
/// let command = Command::new(["sort", "-r"])
///     .env("LC_ALL", "C")
///     .stdin("b\na\n")
///     .timeout(Duration::from_secs(5));
/// let again = command.clone();
/// std::thread::spawn(move || drop(again)).join().unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "nothing runs before a machine is told to run it"]
pub struct Command {
    pub(super) argv: Vec<Vec<u8>>,
    pub(super) chain: Vec<Vec<Vec<u8>>>,
    pub(super) env: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) cwd: Option<Vec<u8>>,
    pub(super) user: Option<Vec<u8>>,
    /// 0 for none, if that was said.
    pub(super) timeout_ms: Option<u64>,
    pub(super) tty: bool,
    pub(super) winsize: WinSize,
    pub(super) staged: Vec<StagedFile>,
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) max_output_bytes: Option<usize>,
    pub(super) truncates: bool,
    pub(super) limits: Limits,
    pub(super) durable: bool,
    /// It is the agent's own program.
    agent_tool: bool,
}

/// The settings of a command, for the type itself and for the builder that has a
/// machine: each has `settings(&mut self) -> &mut Command`.
macro_rules! settings {
    () => {
        /// Program and arguments. The program is looked up in the guest's PATH.
        ///
        /// A program that is missing or cannot be executed is no error but has a
        /// status, 127 or 126, as in a shell; [`ExecStatus::executed`] tells it from
        /// one that ran and exited so. The same holds for chained commands.
        ///
        /// [`ExecStatus::executed`]: crate::ExecStatus::executed
        pub fn argv<S: Into<Vec<u8>>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
            self.settings().argv = argv.into_iter().map(Into::into).collect();
            self
        }

        /// Sets a variable, over the image's. A name that is empty or has a `=` in it is
        /// refused when the command is to start.
        pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
            let bytes = |text: &OsStr| text.as_bytes().to_vec();
            let variable = (bytes(key.as_ref()), bytes(value.as_ref()));
            self.settings().env.push(variable);
            self
        }

        /// Working directory, instead of the image's.
        pub fn cwd(mut self, cwd: impl Into<Vec<u8>>) -> Self {
            self.settings().cwd = Some(cwd.into());
            self
        }

        /// `USER[:GROUP]`, names or numbers, instead of the image's.
        pub fn user(mut self, user: impl Into<Vec<u8>>) -> Self {
            self.settings().user = Some(user.into());
            self
        }

        /// Kills the command with all its descendants after this long, in guest
        /// time from its start, to the millisecond. Without this, one whose output is
        /// collected has 60 s, and one whose streams are open as long as it likes, as
        /// both have with `Duration::MAX`. The outcome is no error but
        /// has `timed_out` set. The guest is not trusted with that: if the end is
        /// not there ten seconds later (and a second for each MiB staged), whatever
        /// else the guest sends, that is [`Error::Timeout`].
        pub fn timeout(mut self, timeout: Duration) -> Self {
            let is_limited = timeout < Duration::MAX;
            let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            self.settings().timeout_ms = Some(if is_limited { ms.max(1) } else { 0 });
            self
        }

        /// Runs the command on a terminal of its own.
        pub fn tty(mut self, tty: bool) -> Self {
            self.settings().tty = tty;
            self
        }

        /// Size of the terminal.
        pub fn winsize(mut self, columns: u16, rows: u16) -> Self {
            self.settings().winsize = WinSize {
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
            self.settings().stage(path.into(), bytes.into(), mode);
            self
        }

        /// Runs this after the previous command if that exited with 0. The outcome
        /// is that of the last command that was tried: [`ExecStatus::step`] says which
        /// one that was.
        ///
        /// [`ExecStatus::step`]: crate::ExecStatus::step
        pub fn chain<S: Into<Vec<u8>>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
            let argv = argv.into_iter().map(Into::into).collect();
            self.settings().chain.push(argv);
            self
        }

        /// Bytes for standard input; without this it is empty. A spawned command
        /// has its own input instead.
        pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
            self.settings().stdin = Some(bytes.into());
            self
        }

        /// The most that is collected of each stream, 256 MiB if not set: a command
        /// that writes more is killed. Also the most that a spawned command keeps
        /// of a stream nobody reads, 16 MiB if not set: see
        /// [`ExecChild::stdout`](crate::ExecChild::stdout).
        pub fn max_output_bytes(mut self, bytes: usize) -> Self {
            self.settings().max_output_bytes = Some(bytes);
            self
        }

        /// Drops collected output beyond [`max_output_bytes`](Self::max_output_bytes)
        /// and lets the command go on, instead of killing it. The outcome says so:
        /// [`ExecOutcome::truncated`](crate::ExecOutcome::truncated).
        pub fn truncate_output(mut self, truncate: bool) -> Self {
            self.settings().truncates = truncate;
            self
        }

        /// The most memory that the command and all its descendants may use together.
        /// At it the guest kills them all, and [`ExecStatus::oom`] says so. Files
        /// that they write to memory count too: in a guest that is `/tmp`, and all
        /// else that is no volume. From the first such command on the guest counts
        /// memory by command.
        ///
        /// [`ExecStatus::oom`]: crate::ExecStatus::oom
        pub fn max_memory_bytes(mut self, bytes: u64) -> Self {
            self.settings().limits.memory_bytes = bytes.max(1);
            self
        }

        /// The most processes and threads that the command and its descendants may
        /// be, up to the machine's own limit. More cannot be made.
        pub fn max_processes(mut self, count: u64) -> Self {
            self.settings().limits.processes = count.max(1);
            self
        }

        /// The most processor time that the command and its descendants get, in
        /// processors: half of one with 0.5. They are slowed down to it.
        pub fn max_cpus(mut self, cpus: f64) -> Self {
            // A conversion of floats saturates.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let thousandths = (cpus * 1000.0) as u64;
            self.settings().limits.cpu_thousandths = thousandths.max(1);
            self
        }

        /// Makes the command the guest's: it goes on if its owner goes away, and in
        /// copies of the machine. [`Vm::attach`](crate::Vm::attach) takes its streams
        /// up again, from any place that the guest still keeps, also after its end.
        /// [`Vm::execs`](crate::Vm::execs) lists such commands. A command that is not
        /// durable from its start can become so by
        /// [`ExecChild::detach`](crate::ExecChild::detach).
        pub fn durable(mut self, durable: bool) -> Self {
            self.settings().durable = durable;
            self
        }
    };
}
pub(super) use settings;

impl Command {
    /// Program and arguments, and nothing else said.
    pub fn new<S: Into<Vec<u8>>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::default().argv(argv)
    }

    /// A run of the agent's own program, as root, whatever the image says.
    pub(crate) fn agent_tool<S: Into<Vec<u8>>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            agent_tool: true,
            user: Some(Vec::new()),
            cwd: Some(Vec::new()),
            ..Self::new(argv)
        }
    }

    settings!();

    fn settings(&mut self) -> &mut Self {
        self
    }

    pub(super) fn stage(&mut self, path: Vec<u8>, bytes: Vec<u8>, mode: u32) {
        self.staged.push(StagedFile { path, mode, bytes });
    }

    /// What the agent of a guest of that image is asked for.
    fn request(&self, image: &ImageConfig, has_stdin: bool, timeout_ms: u64) -> ExecRequest {
        let or_image = |own: &Option<Vec<u8>>, image: &str| {
            own.clone().unwrap_or_else(|| image.as_bytes().to_vec())
        };
        ExecRequest {
            argv: self.argv.clone(),
            chain: self.chain.clone(),
            env: match self.agent_tool {
                true => Vec::new(),
                false => self.environment(image),
            },
            cwd: or_image(&self.cwd, &image.working_dir),
            user: or_image(&self.user, &image.user),
            timeout_ms,
            limits: ExecLimits {
                memory_bytes: self.limits.memory_bytes,
                processes: self.limits.processes,
                cpu_thousandths: self.limits.cpu_thousandths,
            },
            winsize: self.winsize,
            flags: ExecFlags {
                create_cwd: true,
                tty: self.tty,
                stdin: has_stdin,
                agent_tool: self.agent_tool,
                durable: self.durable,
                ..ExecFlags::default()
            },
        }
    }

    /// Whether what is called a name is one: all behind the first `=` of `NAME=VALUE` is
    /// the value, so that the guest would see another variable.
    fn check_names(&self) -> Result<(), Error> {
        let is_name = |name: &[u8]| !name.is_empty() && !name.contains(&b'=');
        match self.env.iter().all(|(name, _)| is_name(name)) {
            true => Ok(()),
            false => Err(Error::Unsuitable {
                what: "the name of a variable",
                needs: "at least one character, and no =",
            }),
        }
    }

    /// The image's variables under ours; a later setting of a name wins.
    fn environment(&self, image: &ImageConfig) -> Vec<Vec<u8>> {
        let image = image.env.iter().filter_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            Some((key.as_bytes(), value.as_bytes()))
        });
        let own = self.env.iter().map(|(key, value)| (&key[..], &value[..]));
        environment::merge(image.chain(own))
            .into_iter()
            .map(|(key, value)| [key, b"=", value].concat())
            .collect()
    }

    /// Connects and sends everything that comes before the command's output.
    pub(crate) fn start(&self, on: &dyn Opens, has_stdin: bool) -> Result<Channel, Error> {
        self.start_within(on, has_stdin, self.timeout_ms.unwrap_or(0))
    }

    fn start_within(
        &self,
        on: &dyn Opens,
        has_stdin: bool,
        timeout_ms: u64,
    ) -> Result<Channel, Error> {
        let (request, times) = self.prepared(on, has_stdin, timeout_ms)?;
        let queue = |session: &mut Session| self.queue(session, &request);
        let channel = on.open_session(times.opening, &queue)?;
        channel.limit(times.whole);
        // Neither its words nor its variables: they may be secret.
        debug!(
            has_stdin,
            tty = self.tty,
            staged_bytes = self.staged_bytes(),
            "command begun"
        );
        Ok(channel)
    }

    /// What is asked of the agent, and how long that may take.
    fn prepared(
        &self,
        on: &dyn Opens,
        has_stdin: bool,
        timeout_ms: u64,
    ) -> Result<(ExecRequest, Times), Error> {
        self.check_names()?;
        let request = self.request(on.image_config(), has_stdin, timeout_ms);
        let sending = Duration::from_secs((self.staged_bytes() / SLOWEST_BYTES_PER_SECOND) as u64);
        let whole = match timeout_ms {
            0 => Deadline::none(),
            ms => Deadline::within(Duration::from_millis(ms))
                .later_by(OVERRUN_TIMEOUT.saturating_add(sending)),
        };
        let opening = whole.at_most(GREETING_TIMEOUT.saturating_add(sending));
        Ok((request, Times { whole, opening }))
    }

    /// Makes the request, after the files that are staged for it.
    pub(super) fn queue(
        &self,
        session: &mut Session,
        request: &ExecRequest,
    ) -> Result<(), ProtoError> {
        for file in &self.staged {
            session.stage_file(&file.path, file.mode, &file.bytes)?;
        }
        session.exec(request)
    }

    pub(super) fn staged_bytes(&self) -> usize {
        self.staged.iter().map(|file| file.bytes.len()).sum()
    }

    /// Starts the command as the machine's workload, which lives on its own.
    pub(super) fn start_workload(&self, on: &dyn Opens, deadline: Deadline) -> Result<(), Error> {
        let request = self.request(on.image_config(), false, self.timeout_ms.unwrap_or(0));
        let channel = on.open_session(deadline, &|session| session.start_workload(&request))?;
        channel.answer_until(deadline, |event| {
            matches!(event, exec_proto::client::Event::Workload(_)).then_some(())
        })
    }

    /// Runs the command and collects what it writes.
    pub(crate) fn output_of(&self, on: &dyn Opens) -> Result<ExecOutcome, Error> {
        let _turn = on.turn(&|| true)?;
        self.collect(&self.start_collected(on)?)
    }

    /// Starts the command for [`Command::collect`].
    pub(crate) fn start_collected(&self, on: &dyn Opens) -> Result<Channel, Error> {
        self.start_within(on, self.stdin.is_some(), self.collected_ms())
    }

    /// The same, without anything being asked yet.
    pub(super) fn to_collect(&self, on: &dyn Opens) -> Result<(ExecRequest, Times), Error> {
        self.prepared(on, self.stdin.is_some(), self.collected_ms())
    }

    fn collected_ms(&self) -> u64 {
        self.timeout_ms.unwrap_or(COLLECTED_TIMEOUT_MS)
    }

    /// Starts the command with its streams open.
    pub(crate) fn spawn_on(&self, on: &dyn Opens) -> Result<ExecChild, Error> {
        let max_unread_bytes = self.max_output_bytes.unwrap_or(MAX_UNREAD_BYTES);
        let channel = self.start(on, true)?;
        let id = match self.durable {
            true => Some(durable_id(&channel)?),
            false => None,
        };
        let child = ExecChild::new(channel, max_unread_bytes, OVERRUN_TIMEOUT)?;
        Ok(match id {
            Some(id) => child.durable(id),
            None => child,
        })
    }
}
