//! The command line tool.

mod doctor;
mod run;
mod terminal;

use clap::{Parser, Subcommand};

/// Exit status for errors of this tool, as container tools have it.
const EXIT_OWN_ERROR: u8 = 125;

/// Run any OCI image as a microVM with its own Linux kernel.
#[derive(Parser)]
#[command(name = "supermachine", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot an image and run one command in it
    Run(run::Arguments),
    /// Show which engines work here and which files were found where
    Doctor(doctor::Arguments),
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
    let result = match arguments.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        complain(&error);
        error.exit_status()
    })
}

/// Prints an error with its causes.
fn complain(error: &dyn std::error::Error) {
    eprint!("supermachine: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
}
