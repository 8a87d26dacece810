//! `supermachine-fsd`: a directory of the host for guests of other monitors.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use supermachine_fsd::daemon::{self, DaemonError};
    use supermachine_fsd::options::{OptionsError, USAGE};
    match daemon::run(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(DaemonError::Options(OptionsError::Help)) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            eprintln!("supermachine-fsd: {text}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!(
        "supermachine-fsd: it is for Linux: vhost-user hands over memory and events of Linux"
    );
    ExitCode::FAILURE
}
