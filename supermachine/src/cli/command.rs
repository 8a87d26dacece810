//! Running one command with our own streams: what `run` and `exec` share.

use super::keys::{self, Keys, Watch};
use super::output::{self, Progress, Standard};
use super::signals::{Audience, Forwarder, to_command};
use super::terminal::{self, RawTerminal};
use super::values;
use crate::deadline::Deadline;
use crate::exec::{Channel, Finished, Sinks};
use crate::limits::GUEST_ANSWER_TIMEOUT;
use crate::{Error, ExecBuilder, Vm};
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// End-of-file character of a terminal in its default settings (`VEOF`, ^D).
const TERMINAL_EOF: u8 = 4;

/// How a command is run.
#[derive(clap::Args)]
pub struct Options {
    /// Set an environment variable, over the image's; the name alone passes ours
    /// on; may be repeated
    #[arg(short = 'e', long, value_name = "K[=V]",
          value_parser = OsStringValueParser::new().try_map(values::variable))]
    env: Vec<Option<values::Pair>>,
    /// Set the variables of a file, a K[=V] in each line; --env goes over them
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory instead of the image's
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// User instead of the image's
    #[arg(short = 'u', long, value_name = "U[:G]")]
    user: Option<OsString>,
    /// Pass standard input on; without this the command's is empty
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Give the command a terminal; its standard error joins its output
    #[arg(short = 't', long)]
    pub tty: bool,
    /// End the command after this long, in seconds or with a unit (90s, 5m, 2h)
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// Keys that leave a terminal, and let the command run on; none if empty
    #[arg(long, value_name = "KEYS", default_value = keys::USUAL, value_parser = keys::parse)]
    pub detach_keys: Keys,
}

/// What is said to who types the keys that leave a machine which ends with us.
const NO_LEAVING: &[u8] = b"\r\nsupermachine: this machine ends with its terminal: start one \
    that can be left without --console, --timings and --json, and where machines can be kept\r\n";
/// What is said to who has left.
const HAS_LEFT: &[u8] = b"\r\nsupermachine: the command runs on\r\n";

/// Runs the command with our streams, terminal and signals. `vm` is what a
/// third request to end takes down; without one it only ends us, and keys can leave
/// the command alone.
pub fn supervise(
    command: ExecBuilder<'_>,
    vm: Option<&Arc<Vm>>,
    options: &Options,
    signals: &Forwarder,
) -> Result<Finished, Error> {
    // A terminal nobody reads from keeps its Ctrl-C.
    let raw = if options.tty && options.interactive {
        RawTerminal::enter().map_err(Error::system("set the terminal up"))?
    } else {
        None
    };
    let channel = Arc::new(start(command, options, terminal::size())?);
    let progress = Arc::new(Progress::default());
    let audience = Audience::Terminal {
        vm: vm.cloned(),
        progress: progress.clone(),
    };
    signals.attach(audience, to_command(channel.clone(), options.tty))?;
    if options.interactive {
        let (channel, is_tty) = (channel.clone(), options.tty);
        let keys = raw.as_ref().map(|_| match vm {
            Some(_) => Leaving::Refused(Watch::new(&options.detach_keys)),
            None => Leaving::Granted(Watch::new(&options.detach_keys)),
        });
        // Ends with the process: a read of standard input cannot be ended.
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(move || copy_stdin(&channel, is_tty, keys))
            .map_err(Error::system("start a thread"))?;
    }
    let result = channel.read_to_finish(&mut Standard(&progress));
    if let Ok(Finished::LetGo(_)) = &result {
        let _ = Standard(&progress).stderr(HAS_LEFT);
    }
    drop(raw);
    result
}

/// Starts the command as the options say, and with so many columns and rows if it gets a
/// terminal.
pub fn start(
    command: ExecBuilder<'_>,
    options: &Options,
    size: Option<(u16, u16)>,
) -> Result<Channel, Error> {
    let mut builder = command.tty(options.tty);
    for (key, value) in &values::env_files(&options.env_file)? {
        builder = builder.env(key, value);
    }
    for (key, value) in options.env.iter().flatten() {
        builder = builder.env(key, value);
    }
    if let Some(dir) = &options.workdir {
        builder = builder.cwd(dir.as_bytes());
    }
    if let Some(user) = &options.user {
        builder = builder.user(user.as_bytes());
    }
    if let Some(timeout) = options.timeout {
        builder = builder.timeout(timeout);
    }
    if options.tty {
        if let Some((columns, rows)) = size {
            builder = builder.winsize(columns, rows);
        }
        if let Some(term) = std::env::var_os("TERM") {
            builder = builder.env("TERM", term);
        }
    }
    if options.interactive {
        builder.keep_stdin_open();
    }
    builder.start()
}

/// What the keys do that leave a terminal.
enum Leaving {
    /// They are the command's as well, and somebody says why nothing comes of it.
    Refused(Watch),
    /// The command goes on alone.
    Granted(Watch),
}

impl Leaving {
    /// What of the typed `bytes` is for the command, and whether that was all.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> (Cow<'a, [u8]>, bool) {
        match self {
            Self::Granted(watch) => {
                let (typed, leaves) = watch.take(bytes);
                (typed.into(), leaves)
            }
            Self::Refused(watch) => {
                if watch.take(bytes).1 {
                    watch.begin_again();
                    let _ = Standard(&Progress::default()).stderr(NO_LEAVING);
                }
                (bytes.into(), false)
            }
        }
    }
}

/// Passes our standard input on until it ends or nobody wants it.
///
/// A terminal's end-of-file character ends its input only where a line begins;
/// elsewhere it hands out the line so far. After a last line without an end one
/// more is needed than the guest's own.
fn copy_stdin(channel: &Channel, is_tty: bool, mut keys: Option<Leaving>) {
    let stdin = io::stdin();
    let mut buffer = vec![0; 64 * 1024];
    let mut last = b'\n';
    loop {
        match output::read(stdin.as_fd(), &mut buffer) {
            // A terminal that went away reads as an error.
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let (typed, leaves) = match &mut keys {
                    Some(keys) => keys.take(&buffer[..count]),
                    None => (Cow::from(&buffer[..count]), false),
                };
                if !typed.is_empty() && !matches!(channel.write_stdin(&typed), Ok(true)) {
                    return;
                }
                if leaves {
                    // A guest that does not answer keeps nobody.
                    channel.limit(Deadline::within(GUEST_ANSWER_TIMEOUT));
                    let _ = channel.detach();
                    return;
                }
                last = typed.last().copied().unwrap_or(last);
            }
        }
    }
    if is_tty && !matches!(last, b'\n' | TERMINAL_EOF) {
        let _ = channel.write_stdin(&[TERMINAL_EOF]);
    }
    let _ = channel.close_stdin();
}
