//! Running one command with our own streams: what `run` and `exec` share.

use super::output::{self, Progress, Standard};
use super::signals::Forwarder;
use super::terminal::{self, RawTerminal};
use crate::exec::Channel;
use crate::{Error, ExecBuilder, ExecStatus, Vm};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// How a command is run.
#[derive(clap::Args)]
pub struct Options {
    /// Set an environment variable, over the image's; may be repeated
    #[arg(long, value_name = "K=V", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// Working directory instead of the image's
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// User instead of the image's
    #[arg(long, value_name = "U[:G]")]
    user: Option<String>,
    /// Pass standard input on; without this the command's is empty
    #[arg(short = 'i')]
    interactive: bool,
    /// Give the command a terminal; its standard error joins its output
    #[arg(short = 't')]
    tty: bool,
}

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
        builder = builder.cwd(dir.as_str());
    }
    if let Some(user) = &options.user {
        builder = builder.user(user.as_str());
    }
    if options.tty {
        if let Some((columns, rows)) = terminal::size() {
            builder = builder.winsize(columns, rows);
        }
        if let Ok(term) = std::env::var("TERM") {
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
