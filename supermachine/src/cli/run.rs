//! `supermachine run`.

use super::terminal::{self, RawTerminal};
use crate::exec::{Channel, Sinks};
use crate::{Engine, Error, Image, Vm, VmConfig};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use std::io::{self, Read, Write};
use std::sync::Arc;

use std::time::{Duration, Instant};

/// Signals in a row that end us even if the guest's command does not care.
const IMPATIENCE: u32 = 3;

#[derive(clap::Args)]
pub struct Arguments {
    /// Engine that runs the guest
    #[arg(long, value_enum, default_value_t = EngineName::Auto)]
    engine: EngineName,
    /// Guest memory
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory: usize,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    vcpus: u32,
    /// Set an environment variable, over the image's
    #[arg(long, value_name = "K=V", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// Working directory instead of the image's
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// User instead of the image's
    #[arg(long, value_name = "U[:G]")]
    user: Option<String>,
    /// Program instead of the image's Entrypoint
    #[arg(long, value_name = "E")]
    entrypoint: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i')]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short = 't')]
    tty: bool,
    /// Show guest kernel messages on standard error
    #[arg(long)]
    console: bool,
    /// Print one line of timings on standard error
    #[arg(long)]
    timings: bool,
    /// Image: oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE
    #[arg(value_name = "REF")]
    reference: String,
    /// Command instead of the image's Cmd
    #[arg(value_name = "CMD", last = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum EngineName {
    Auto,
    Hvf,
    Soft,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Runs the command and returns its exit status.
pub fn run(arguments: Arguments) -> Result<u8, Error> {
    let signals = Forwarder::install()?;
    let image = Image::load(&arguments.reference)?;
    let entrypoint = arguments.entrypoint.as_ref().map(std::slice::from_ref);
    let command = (!arguments.command.is_empty()).then_some(arguments.command.as_slice());
    let argv = image.config().command(entrypoint, command)?;
    let config = VmConfig::new()
        .with_engine(match arguments.engine {
            EngineName::Auto => Engine::Auto,
            EngineName::Hvf => Engine::Hvf,
            EngineName::Soft => Engine::Soft,
        })
        .with_memory_mib(arguments.memory)
        .with_vcpus(arguments.vcpus)
        .with_console(arguments.console);
    let vm = image.start(&config)?;
    let begun = Instant::now();
    let channel = Arc::new(start_command(&vm, &arguments, argv)?);
    let raw = if arguments.tty {
        RawTerminal::enter().map_err(Error::connection("setting the terminal up"))?
    } else {
        None
    };
    signals.attach(&channel, arguments.tty);
    if arguments.interactive {
        let channel = channel.clone();
        // Ends with the process: a read of standard input cannot be ended.
        std::thread::spawn(move || copy_stdin(&channel));
    }
    let result = channel.read_to_end(&mut Standard);
    drop(raw);
    let status = match result {
        Ok(status) => status,
        Err(error) if is_closed_output(&error) => return Ok(128 + 13),
        Err(error) => return Err(or_end(&vm, error)),
    };
    let exec_time = begun.elapsed();
    let (engine, boot_time) = (vm.engine().to_owned(), vm.boot_time());
    vm.stop()?;
    if arguments.timings {
        eprintln!(
            "engine {engine}, boot {:.1} ms, exec {:.1} ms",
            milliseconds(boot_time),
            milliseconds(exec_time)
        );
    }
    Ok(status.shell_status())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// If the connection broke because the machine ended, that is the news.
fn or_end(vm: &Vm, error: Error) -> Error {
    match (&error, vm.status()) {
        (Error::Connection { .. }, Err(ended @ Error::Ended { .. })) => ended,
        _ => error,
    }
}

fn start_command(vm: &Vm, arguments: &Arguments, argv: Vec<String>) -> Result<Channel, Error> {
    let mut builder = vm.exec_builder().argv(argv).tty(arguments.tty);
    for (key, value) in &arguments.env {
        builder = builder.env(key, value);
    }
    if let Some(dir) = &arguments.workdir {
        builder = builder.cwd(dir.as_str());
    }
    if let Some(user) = &arguments.user {
        builder = builder.user(user.as_str());
    }
    if arguments.tty {
        if let Some((columns, rows)) = terminal::size() {
            builder = builder.winsize(columns, rows);
        }
        if let Ok(term) = std::env::var("TERM") {
            builder = builder.env("TERM", term);
        }
    }
    if arguments.interactive {
        builder.keep_stdin_open();
    }
    builder.start()
}

fn copy_stdin(channel: &Channel) {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if channel.write_stdin(&buffer[..count]).is_ok() => (),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            _ => return,
        }
    }
    let _ = channel.close_stdin();
}

/// Our standard output and error, byte for byte.
struct Standard;

fn pour(mut to: impl Write, bytes: &[u8]) -> Result<(), Error> {
    to.write_all(bytes)
        .and_then(|()| to.flush())
        .map_err(|source| Error::Connection {
            what: WRITING_OUTPUT,
            source,
        })
}

const WRITING_OUTPUT: &str = "writing its output";

fn is_closed_output(error: &Error) -> bool {
    matches!(error, Error::Connection { what, source }
        if *what == WRITING_OUTPUT && source.kind() == io::ErrorKind::BrokenPipe)
}

impl Sinks for Standard {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        pour(io::stdout().lock(), bytes)
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        pour(io::stderr().lock(), bytes)
    }
}

/// Passes signals on to the guest's command. Before there is one, they end us.
struct Forwarder {
    signals: Signals,
    handle: signal_hook::iterator::Handle,
}

impl Forwarder {
    fn install() -> Result<Self, Error> {
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH])
            .map_err(Error::connection("setting signal handlers up"))?;
        let handle = signals.handle();
        Ok(Self { signals, handle })
    }

    fn attach(mut self, channel: &Arc<Channel>, tty: bool) {
        let channel = channel.clone();
        std::thread::spawn(move || {
            let mut ignored = 0;
            for signal in self.signals.forever() {
                if signal == SIGWINCH {
                    if let (true, Some((columns, rows))) = (tty, terminal::size()) {
                        let _ = channel.resize(columns, rows);
                    }
                    continue;
                }
                ignored += 1;
                if ignored > IMPATIENCE || channel.signal(signal.unsigned_abs()).is_err() {
                    terminal::restore();
                    channel.close();
                }
            }
            self.handle.close();
        });
    }
}
