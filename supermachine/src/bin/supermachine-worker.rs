//! One machine in a process of its own; see [`supermachine::run_worker`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(supermachine::run_worker())
}
