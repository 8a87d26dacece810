//! One machine in a process of its own; see [`supermachine::engine::worker`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(supermachine::engine::worker::run())
}
