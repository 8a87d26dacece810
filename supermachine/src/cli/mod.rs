//! The command line tool.

mod argv;
mod assets;
mod attach;
mod attended;
mod bake;
mod bars;
mod changes;
mod codesign;
mod command;
mod control;
mod copy;
mod detached;
mod directories;
mod disk;
mod doctor;
mod engine;
mod fork;
mod frames;
mod host_limits;
mod image;
mod keys;
mod life;
mod list;
#[cfg(feature = "pull")]
mod login;
mod logs;
mod machine;
mod machines;
mod manual;
#[cfg(feature = "mcp")]
mod mcp;
mod mounts;
mod net_log;
mod network;
mod output;
mod policy;
mod publish;
mod run;
mod secrets;
mod signals;
mod snapshots;
mod source;
mod status;
mod terminal;
mod transfer;
mod values;
mod volumes;

use crate::{Error, PullPolicy, log};
use clap::{Parser, Subcommand};
use std::io;

/// Exit status for errors of this tool, as container tools have it.
const EXIT_OWN_ERROR: u8 = 125;
/// Exit status when nobody reads our output: 128 and SIGPIPE.
const EXIT_CLOSED_OUTPUT: u8 = 128 + 13;

const EXIT_HELP: &str = "\
Exit status of run and exec: that of the command; 128+n if signal n ended it; 127 if the
command was not found; 126 if it cannot be run (not executable, no such user or
working directory); 125 for every other error, and for wrong arguments; 141 if
nobody reads the output. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2
go to the command; the third request to end within ten seconds ends the machine.
SUPERMACHINE_LOG has the tool and its machines' workers say on standard error what
they do: a level (error, warn, info, debug, trace), or parts with a level each.
Exit status of doctor: 0 if a guest can be run here, else 1; of images and
snapshot verify: 1 if something is damaged; of all others: 125 for every error.";

/// Run any OCI image as a microVM with its own Linux kernel.
#[derive(Parser)]
#[command(name = "supermachine", version, after_help = EXIT_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one command in a machine of an image
    #[command(after_help = EXIT_HELP)]
    Run(Box<run::Arguments>),
    /// Bake an image into a snapshot that machines are copied from
    Bake(bake::Arguments),
    /// Get an image as its registry has it now, and bake it
    Pull(bake::Arguments),
    /// Not here: images are built by other tools
    #[command(hide = true, disable_help_flag = true)]
    Build {
        /// Whatever was given
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Keep the credentials for a registry, where Docker keeps them
    #[cfg(feature = "pull")]
    Login(login::LoginArguments),
    /// Forget the credentials for a registry
    #[cfg(feature = "pull")]
    Logout(login::LogoutArguments),
    /// List machines
    Ps(machines::PsArguments),
    /// Run a command in a running machine
    #[command(after_help = EXIT_HELP)]
    Exec(machines::ExecArguments),
    /// End running machines
    Stop(machines::StopArguments),
    /// Start copies of a running machine
    Fork(fork::ForkArguments),
    /// Copy files and directories into a machine or out of one
    Cp(copy::Arguments),
    /// List what a machine has changed of a copy-on-write mount, or make it the host's
    Changes(changes::Arguments),
    /// Send a machine's command a signal, or end the machine
    Kill(machines::KillArguments),
    /// Have machines stand still
    Pause(life::WhichArguments),
    /// Let paused machines go on
    Unpause(life::WhichArguments),
    /// Show what machines use
    Stats(life::StatsArguments),
    /// Show the processes of a machine
    Top(life::TopArguments),
    /// Say what happens to machines
    Events(life::EventsArguments),
    /// Serve machines as tools of an agent, by the Model Context Protocol
    #[cfg(feature = "mcp")]
    Mcp(mcp::Arguments),
    /// Have a detached machine's command with our streams, until keys leave it
    Attach(attach::Arguments),
    /// Show what a detached machine's command wrote
    Logs(machines::LogsArguments),
    /// Wait for detached machines to end and print their statuses
    Wait(machines::WaitArguments),
    /// Remove what is kept of machines that have ended
    Rm(machines::RemoveArguments),
    /// Remove what is kept of all machines that have ended
    Prune,
    /// Show all that is known of machines, as JSON
    Inspect(machines::InspectArguments),
    /// List what was baked
    Images(snapshots::ImagesArguments),
    /// Remove what was baked, unless a machine runs from it
    Rmi(snapshots::RemoveArguments),
    /// Look into a snapshot
    #[command(subcommand)]
    Snapshot(snapshots::SnapshotCommand),
    /// Make, list and remove volumes: disks that outlive machines
    #[command(subcommand)]
    Volume(volumes::VolumeCommand),
    /// Write a snapshot into a file, to take it to another host
    Export(transfer::ExportArguments),
    /// Make a snapshot of what `export` has written, after all of it was checked
    Import(transfer::ImportArguments),
    /// Show what takes disk, and how much of it nothing needs
    Du(disk::DuArguments),
    /// Remove what nothing needs: replaced snapshots, leftovers, layers in no snapshot
    Gc(disk::GcArguments),
    /// Show which engines work here and which files were found where
    Doctor(doctor::Arguments),
    /// Find the guest's kernel and init, or put them where every program finds them
    #[command(subcommand)]
    Assets(assets::AssetsCommand),
    /// Sign a program for a Mac, so that it may run machines
    Codesign(codesign::Arguments),
    /// Print a script that completes this command line in a shell
    Completions(manual::CompletionsArguments),
    /// Print or write manual pages
    Man(manual::ManArguments),
}

/// Parses the process's arguments, runs, and returns the exit status.
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                EXIT_OWN_ERROR
            } else {
                0
            };
        }
    };
    crate::file_limit::take_as_error();
    if let Err(error) = log::begin() {
        output::complain(&format!("supermachine: {error}\n"));
        return EXIT_OWN_ERROR;
    }
    let result = match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Bake(arguments) => bake::run(arguments, PullPolicy::Missing),
        Command::Pull(arguments) => bake::run(arguments, PullPolicy::Always),
        Command::Build { .. } => Err(Error::Unsuitable {
            what: "`supermachine build`",
            needs: "a builder, which this is not: run `docker buildx build --platform linux/arm64 \
                    --output type=oci,dest=FILE .` or `buildah`, and use oci-archive:FILE",
        }),
        #[cfg(feature = "pull")]
        Command::Login(arguments) => login::login(&arguments),
        #[cfg(feature = "pull")]
        Command::Logout(arguments) => login::logout(&arguments),
        Command::Ps(arguments) => machines::ps(&arguments),
        Command::Exec(arguments) => machines::exec(&arguments),
        Command::Stop(arguments) => machines::stop(&arguments),
        Command::Fork(arguments) => fork::fork(&arguments),
        Command::Cp(arguments) => copy::run(&arguments),
        Command::Changes(arguments) => changes::run(&arguments),
        Command::Kill(arguments) => machines::kill(&arguments),
        Command::Pause(arguments) => life::pause(&arguments),
        Command::Unpause(arguments) => life::unpause(&arguments),
        Command::Stats(arguments) => life::stats(&arguments),
        Command::Top(arguments) => life::top(&arguments),
        Command::Events(arguments) => life::events(&arguments),
        Command::Codesign(arguments) => codesign::run(&arguments),
        #[cfg(feature = "mcp")]
        Command::Mcp(arguments) => mcp::run(arguments),
        Command::Attach(arguments) => attach::run(&arguments),
        Command::Logs(arguments) => machines::logs(&arguments),
        Command::Wait(arguments) => machines::wait(&arguments),
        Command::Rm(arguments) => machines::remove(&arguments),
        Command::Prune => machines::prune(),
        Command::Inspect(arguments) => machines::inspect(&arguments),
        Command::Images(arguments) => snapshots::images(&arguments),
        Command::Rmi(arguments) => snapshots::remove(&arguments),
        Command::Snapshot(command) => snapshots::snapshot(&command),
        Command::Volume(command) => volumes::run(&command),
        Command::Export(arguments) => transfer::export(&arguments),
        Command::Import(arguments) => transfer::import(&arguments),
        Command::Du(arguments) => disk::du(&arguments),
        Command::Gc(arguments) => disk::gc(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Assets(command) => assets::run(&command),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
    };
    crate::aside::wait();
    match result {
        Ok(status) => status,
        Err(Error::Output { source }) if source.kind() == io::ErrorKind::BrokenPipe => {
            EXIT_CLOSED_OUTPUT
        }
        Err(error) => {
            output::report(&error);
            error.exit_status()
        }
    }
}
