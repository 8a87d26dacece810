//! Running one command with our own streams: what `run` and `exec` share.

use super::output::{self, Progress, Standard};
use super::signals::Forwarder;
use super::terminal::{self, RawTerminal};
use crate::exec::Channel;
use crate::{Error, ExecBuilder, ExecStatus, Vm};
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

/// How a command is run.
#[derive(clap::Args)]
pub struct Options {
    /// Set an environment variable, over the image's; may be repeated
    #[arg(long, value_name = "K=V", value_parser = OsStringValueParser::new().try_map(variable))]
    env: Vec<(OsString, OsString)>,
    /// Working directory instead of the image's
    #[arg(long, value_name = "DIR")]
    workdir: Option<OsString>,
    /// User instead of the image's
    #[arg(long, value_name = "U[:G]")]
    user: Option<OsString>,
    /// Pass standard input on; without this the command's is empty
    #[arg(short = 'i')]
    interactive: bool,
    /// Give the command a terminal; its standard error joins its output
    #[arg(short = 't')]
    tty: bool,
}

/// A variable of a command, in any bytes.
fn variable(text: OsString) -> Result<(OsString, OsString), &'static str> {
    let text = text.into_vec();
    let at = text.iter().position(|byte| *byte == b'=');
    match at
        .filter(|at| *at > 0)
        .and_then(|at| text.split_at_checked(at))
    {
        Some((name, value)) => Ok((
            OsString::from_vec(name.to_vec()),
            OsString::from_vec(value[1..].to_vec()),
        )),
        None => Err("expected NAME=VALUE"),
    }
}

/// A variable of a workload, which is kept as text.
pub(super) fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Runs the command with our streams, terminal and signals. `vm` is what a
/// third request to end takes down; without one it only ends us.
pub fn supervise(
    command: ExecBuilder<'_>,
    vm: Option<&Arc<Vm>>,
    options: &Options,
    signals: &Forwarder,
) -> Result<ExecStatus, Error> {
    // A terminal nobody reads from keeps its Ctrl-C.
    let raw = if options.tty && options.interactive {
        RawTerminal::enter().map_err(Error::system("set the terminal up"))?
    } else {
        None
    };
    let channel = Arc::new(start(command, options)?);
    let progress = Arc::new(Progress::default());
    signals.attach(vm, &channel, &progress, options.tty)?;
    if options.interactive {
        let channel = channel.clone();
        // Ends with the process: a read of standard input cannot be ended.
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(move || copy_stdin(&channel))
            .map_err(Error::system("start a thread"))?;
    }
    let result = channel.read_to_end(&mut Standard(&progress));
    drop(raw);
    result
}

fn start(command: ExecBuilder<'_>, options: &Options) -> Result<Channel, Error> {
    let mut builder = command.tty(options.tty);
    for (key, value) in &options.env {
        builder = builder.env(key, value);
    }
    if let Some(dir) = &options.workdir {
        builder = builder.cwd(dir.as_bytes());
    }
    if let Some(user) = &options.user {
        builder = builder.user(user.as_bytes());
    }
    if options.tty {
        if let Some((columns, rows)) = terminal::size() {
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

/// Passes our standard input on until it ends or nobody wants it.
fn copy_stdin(channel: &Channel) {
    let stdin = io::stdin();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match output::read(stdin.as_fd(), &mut buffer) {
            // A terminal that went away reads as an error.
            Ok(0) | Err(_) => break,
            Ok(count) if matches!(channel.write_stdin(&buffer[..count]), Ok(true)) => (),
            Ok(_) => return,
        }
    }
    let _ = channel.close_stdin();
}
