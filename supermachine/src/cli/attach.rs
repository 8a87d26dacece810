//! `supermachine attach`: a detached machine's command with our streams, until it ends
//! or we leave.

use super::control;
use super::frames::{self, Frame};
use super::keys::{self, Keys, Watch};
use super::output::{self, Progress, Standard};
use super::terminal::{self, RawTerminal};
use super::{machine, status};
use crate::Error;
use crate::exec::Sinks;
use crate::limits::cli::IMPATIENCE;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

#[derive(clap::Args)]
pub struct Arguments {
    /// Pass nothing of standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Keys that leave, and let the command run on; none if empty
    #[arg(long, value_name = "KEYS", default_value = keys::USUAL, value_parser = keys::parse)]
    detach_keys: Keys,
    /// Machine that was started with `run --detach` or `run -it`: its name, its id, or
    /// the start of its id
    #[arg(value_name = "VM")]
    vm: String,
}

/// Attaches, and returns the command's status; 0 if we have left.
pub fn run(arguments: &Arguments) -> Result<u8, Error> {
    let machine = machine::find(&arguments.vm)?;
    machine.record("attaching to its command")?;
    let attached = control::attach(&machine.running()?)?;
    let (stream, is_tty) = (attached.stream, attached.tty);
    let clone = stream.try_clone();
    let to = Arc::new(Mutex::new(
        clone.map_err(Error::system("duplicate a socket"))?,
    ));
    let takes_input = attached.interactive && !arguments.no_stdin;
    let raw = match is_tty && takes_input {
        true => RawTerminal::enter().map_err(Error::system("set the terminal up"))?,
        false => None,
    };
    let has_left = Arc::new(AtomicBool::new(false));
    pass_signals_on(to.clone(), is_tty)?;
    if takes_input {
        let watch = Watch::new(&arguments.detach_keys);
        let has_left = has_left.clone();
        // Ends with the process: a read of standard input cannot be ended.
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(move || pass_input_on(&to, watch, &has_left))
            .map_err(Error::system("start a thread"))?;
    }
    let result = show(&stream, &Progress::default());
    drop(raw);
    match result {
        _ if has_left.load(Ordering::SeqCst) => {
            output::complain("\n");
            Ok(0)
        }
        Ok(Some(end)) => Ok(end.told()),
        Ok(None) if machine.is_alive() => {
            let slow = io::Error::other("what the command wrote was not taken for too long");
            Err(Error::connection("showing the command's output")(slow))
        }
        Ok(None) => Err(Error::Ended {
            reason: "its supervisor is gone".into(),
        }),
        Err(error) => Err(error),
    }
}

/// How a command has ended.
pub struct End {
    status: u8,
    failure: Option<String>,
}

impl End {
    /// Its status, once somebody was told of what failed.
    pub fn told(self) -> u8 {
        if let Some(failure) = &self.failure {
            output::report_text(failure);
        }
        self.status
    }
}

/// Writes what the command writes, until it has ended.
pub fn show(stream: &UnixStream, progress: &Progress) -> Result<Option<End>, Error> {
    let mut to = Standard(progress);
    let mut failure = None;
    loop {
        let frame = frames::read(stream);
        match frame.map_err(Error::connection("reading what the command writes"))? {
            Some(Frame::Output(bytes)) => to.stdout(&bytes)?,
            Some(Frame::Error(bytes)) => to.stderr(&bytes)?,
            Some(Frame::Failed(text)) => failure = Some(text),
            Some(Frame::End(status)) => return Ok(Some(End { status, failure })),
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

/// Where what we say goes: whole frames of one thread after the other.
pub type Shared = Mutex<UnixStream>;

pub fn say(to: &Shared, frame: &Frame) -> io::Result<()> {
    let stream = to.lock().unwrap_or_else(PoisonError::into_inner);
    frames::write(&*stream, frame)
}

/// Passes what is typed on, until it ends or the keys leave the command.
pub fn pass_input_on(to: &Shared, mut watch: Watch, has_left: &AtomicBool) {
    let stdin = io::stdin();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let frame = match output::read(stdin.as_fd(), &mut buffer) {
            // A terminal that went away reads as an error.
            Ok(0) | Err(_) => Frame::InputEnd,
            Ok(count) => {
                let (typed, leaves) = watch.take(&buffer[..count]);
                if !typed.is_empty() && say(to, &Frame::Input(typed)).is_err() {
                    return;
                }
                if leaves {
                    has_left.store(true, Ordering::SeqCst);
                    let _ = say(to, &Frame::Leave);
                    let stream = to.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
                continue;
            }
        };
        let _ = say(to, &frame);
        return;
    }
}

/// Signals for the command go to it. Those that end a terminal's session, or us, end
/// only us: the machine is not ours.
fn pass_signals_on(to: Arc<Shared>, is_tty: bool) -> Result<(), Error> {
    let wanted = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH];
    let mut signals = Signals::new(wanted).map_err(Error::system("set signal handlers up"))?;
    if is_tty && let Some((columns, rows)) = terminal::size() {
        // Another size first: only a change has a program draw its screen again.
        let _ = say(&to, &Frame::Size(columns, rows.saturating_add(1)));
        let _ = say(&to, &Frame::Size(columns, rows));
    }
    let spawned = std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut interrupts: Vec<Instant> = Vec::new();
            for signal in signals.forever() {
                if signal == SIGWINCH {
                    if let (true, Some((columns, rows))) = (is_tty, terminal::size()) {
                        let _ = say(&to, &Frame::Size(columns, rows));
                    }
                    continue;
                }
                interrupts.retain(|then| then.elapsed() < IMPATIENCE);
                interrupts.push(Instant::now());
                if matches!(signal, SIGTERM | SIGHUP) || interrupts.len() > 2 {
                    terminal::restore();
                    status::erase();
                    std::process::exit(128 + signal);
                }
                let number = u8::try_from(signal).unwrap_or_default();
                let _ = say(&to, &Frame::Signal(number));
            }
        });
    spawned.map(drop).map_err(Error::system("start a thread"))
}
