//! Has services of Debian be the workloads of their images: `services NAME=LAYOUT…`.
//! `cargo xtask services` makes the images and runs this.

use std::path::Path;
use std::process::ExitCode;

use supermachine_tests::services::{SERVICES, check};

fn main() -> ExitCode {
    let mut failed = false;
    for word in std::env::args().skip(1) {
        let Some((name, layout)) = word.split_once('=') else {
            eprintln!("usage: services NAME=LAYOUT...");
            return ExitCode::from(2);
        };
        let Some(service) = SERVICES.iter().find(|service| service.name == name) else {
            let names: Vec<&str> = SERVICES.iter().map(|service| service.name).collect();
            eprintln!("there is no {name}; there are {}", names.join(", "));
            return ExitCode::from(2);
        };
        match check(service, Path::new(layout), &service.client) {
            Ok(report) => println!(
                "{name}: baked in {:.1} s, a copy started in {:.1} ms and answered in {:.1} ms",
                report.baked.as_secs_f64(),
                report.started.as_secs_f64() * 1e3,
                report.answered.as_secs_f64() * 1e3,
            ),
            Err(reason) => {
                println!("{name}: {reason}");
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(failed))
}
