//! The command line tool; see [`supermachine::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(supermachine::cli::main())
}
