//! `supermachine run`.

use super::output::{self, Progress, Standard, complain};
use super::signals::Forwarder;
use super::terminal::{self, RawTerminal};
use crate::exec::Channel;
use crate::image::default_cache;
use crate::{Engine, Error, ExecStatus, Image, Vm, VmConfig};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Engine that runs the guest
    #[arg(long, value_enum, default_value_t = EngineName::Auto)]
    engine: EngineName,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory: usize,
    /// Virtual CPUs, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 1)]
    vcpus: u32,
    /// Set an environment variable, over the image's; may be repeated
    #[arg(long, value_name = "K=V", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// Working directory instead of the image's
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// User instead of the image's
    #[arg(long, value_name = "U[:G]")]
    user: Option<String>,
    /// Program instead of the image's Entrypoint; drops the image's Cmd too
    #[arg(long, value_name = "E")]
    entrypoint: Option<String>,
    /// Pass standard input on; without this the command's is empty
    #[arg(short = 'i')]
    interactive: bool,
    /// Give the command a terminal; its standard error joins its output
    #[arg(short = 't')]
    tty: bool,
    /// Boot the image and show guest kernel messages on standard error
    #[arg(long)]
    console: bool,
    /// Boot the image instead of copying its snapshot, and leave none
    #[arg(long)]
    no_snapshot: bool,
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
pub(super) enum EngineName {
    Auto,
    Hvf,
    Soft,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Auto => Self::Auto,
            EngineName::Hvf => Self::Hvf,
            EngineName::Soft => Self::Soft,
        }
    }
}

pub(super) fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Runs the command and returns its exit status.
pub fn run(arguments: Arguments) -> Result<u8, Error> {
    let signals = Forwarder::install()?;
    let config = VmConfig::new()
        .with_engine(arguments.engine.into())
        .with_memory_mib(arguments.memory)
        .with_vcpus(arguments.vcpus)
        .with_console(arguments.console);
    config.validate()?;
    let image = find_image(&arguments, &config, &signals)?;
    let entrypoint = arguments.entrypoint.as_ref().map(std::slice::from_ref);
    let command = (!arguments.command.is_empty()).then_some(arguments.command.as_slice());
    let argv = image.config().command(entrypoint, command)?;
    let vm = Arc::new(image.start(&config)?);
    let begun = Instant::now();
    let result = supervise(&vm, &arguments, argv, &signals);
    let exec_time = begun.elapsed();
    signals.settle();
    // The signal thread holds the machine too, so that it is not dropped here.
    vm.end();
    let status = result?;
    if arguments.timings {
        complain(&format!(
            "engine {}, boot {:.1} ms, exec {:.1} ms\n",
            vm.engine(),
            milliseconds(vm.boot_time()),
            milliseconds(exec_time)
        ));
    }
    Ok(status.shell_status())
}

/// The image with its snapshot, which is baked if there is none yet. Who wants
/// to see the guest boot gets one that boots, and so does everyone where there
/// is no place for snapshots.
fn find_image(
    arguments: &Arguments,
    config: &VmConfig,
    signals: &Forwarder,
) -> Result<Image, Error> {
    let reference = &arguments.reference;
    let cache = default_cache()?;
    let image = signals.prepare(|cancel| Image::load_until(reference, &cache, cancel))?;
    if arguments.console || arguments.no_snapshot {
        return Ok(image);
    }
    let builder = Image::builder(reference).vm_config(config.clone());
    match builder.build_on(&image, &cache) {
        Err(Error::Snapshot(error)) => {
            complain(&format!(
                "supermachine: booting without a snapshot: {error}\n"
            ));
            Ok(image)
        }
        other => other,
    }
}

/// Runs the command with our streams, terminal and signals.
fn supervise(
    vm: &Arc<Vm>,
    arguments: &Arguments,
    argv: Vec<String>,
    signals: &Forwarder,
) -> Result<ExecStatus, Error> {
    // A terminal nobody reads from keeps its Ctrl-C.
    let raw = if arguments.tty && arguments.interactive {
        RawTerminal::enter().map_err(Error::system("set the terminal up"))?
    } else {
        None
    };
    let channel = Arc::new(start_command(vm, arguments, argv)?);
    let progress = Arc::new(Progress::default());
    signals.attach(vm, &channel, &progress, arguments.tty)?;
    if arguments.interactive {
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

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
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
