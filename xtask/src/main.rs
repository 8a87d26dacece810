//! `cargo xtask`: everything done to this workspace that is more than one cargo
//! command. Each subcommand is a module; this file is the table of them.

#![forbid(unsafe_code)]

mod assets;
mod bench;
mod check;
mod clients;
mod demo;
mod deny;
mod dist;
mod examples;
mod guest_image;
mod handlers;
mod init_build;
mod kernel_build;
mod lock;
mod mach_o;
mod macos;
mod mcp;
mod msrv;
mod newer_qemu;
mod node;
mod outside;
mod packages;
mod process;
mod prune;
mod python;
mod registry;
mod services;
mod suites;
mod test;
mod tests_run;
mod workspace;

use std::process::ExitCode;

/// One subcommand: what the user types, what help says, what runs.
struct Command {
    name: &'static str,
    arguments: &'static str,
    summary: &'static str,
    run: fn(&[String]) -> anyhow::Result<()>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        arguments: "",
        summary: "set everything up and run a program in a microVM",
        run: demo::run,
    },
    Command {
        name: "test",
        arguments: "[quick|STEP…]",
        summary: "check everything that must hold, what of it needs no guest, or the named steps",
        run: test::run,
    },
    Command {
        name: "bench",
        arguments: "[NAME…] [--json FILE]",
        summary: "measure times, memory and reliability, beside QEMU where it can do the same",
        run: bench::run,
    },
    Command {
        name: "assets",
        arguments: "[kernel|init]",
        summary: "build the guest kernel and init, or reuse cached ones, and print where they are",
        run: assets::run,
    },
    Command {
        name: "images",
        arguments: "[NAME…]",
        summary: "make the guest images of the tests and benches",
        run: guest_image::run,
    },
    Command {
        name: "services",
        arguments: "[NAME…]",
        summary: "have large services of Debian be captured when they listen, and asked (not a test step)",
        run: services::run,
    },
    Command {
        name: "clients",
        arguments: "",
        summary: "have large programs of Debian use a guest's network (not a test step)",
        run: clients::run,
    },
    Command {
        name: "suites",
        arguments: "[SIDE|SUITE…]",
        summary: "run pjdfstest, fsx, fio and programs on mounts, ours and virtiofsd's (not a test step)",
        run: suites::run,
    },
    Command {
        name: "check",
        arguments: "",
        summary: "check layers, versions and sources against the house rules",
        run: check::run,
    },
    Command {
        name: "node",
        arguments: "[types]",
        summary: "build the native part of the npm package, or write its TypeScript declarations",
        run: node::run,
    },
    Command {
        name: "python",
        arguments: "[sync|wheel]",
        summary: "put the Python package together, write its module for threads, or make a wheel",
        run: python::run,
    },
    Command {
        name: "dist",
        arguments: "[check|again]",
        summary: "make what is installed, install it in a clean system, or make it twice and compare",
        run: dist::run,
    },
    Command {
        name: "handlers",
        arguments: "[EXECUTABLE]",
        summary: "check that no handler of the engine in the release worker takes host stack",
        run: handlers::run,
    },
    Command {
        name: "macos",
        arguments: "",
        summary: "build for macOS and link the executables as Mach-O",
        run: macos::run,
    },
    Command {
        name: "msrv",
        arguments: "",
        summary: "check each library with the oldest compiler that it promises (needs rustup)",
        run: msrv::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", help());
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprint!("no such command: {name}\n\n{}", help());
        return ExitCode::from(2);
    };
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let mut text = String::from("usage: cargo xtask COMMAND\n\n");
    for command in COMMANDS {
        let usage = format!("{} {}", command.name, command.arguments);
        text.push_str(&format!("  {usage:<24}{}\n", command.summary));
    }
    text
}
