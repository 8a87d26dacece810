//! `SUPERMACHINE_LOG`: what was asked for and nothing that is a secret.

use crate::sandbox::{Outcome, Running, Sandbox, busybox};
use std::ffi::OsStr;
use std::io::Cursor;
use std::process::Stdio;

const SECRETS: [&str; 4] = ["env-secret", "argv-secret", "stdin-secret", "output-secret"];

fn logged(sandbox: &Sandbox, filter: &str, arguments: &[&OsStr], input: &str) -> Outcome {
    let mut command = sandbox.command(arguments);
    command
        .env("SUPERMACHINE_LOG", filter)
        .stdin(Stdio::piped());
    let mut running = Running::start(command);
    let writer = running.feed(Cursor::new(input.to_owned()));
    let outcome = running.finish();
    writer.join().expect("a writer does not panic");
    outcome
}

/// A command that is given secrets and writes one.
fn with_secrets<'a>(reference: &'a str, user: &'a str) -> Vec<&'a OsStr> {
    let script = ": argv-secret; cat >/dev/null; printf '\\033[31moutput-''secret'";
    [
        "run",
        "-i",
        "--env",
        "TOKEN=env-secret",
        "--user",
        user,
        reference,
        "--",
        "sh",
        "-c",
        script,
    ]
    .map(OsStr::new)
    .to_vec()
}

fn assert_tame(outcome: &Outcome) {
    for secret in SECRETS {
        assert!(!outcome.stderr.contains(secret), "{secret}:\n{outcome:?}");
    }
    assert!(!outcome.stderr.contains('\x1b'), "{outcome:?}");
}

#[test]
fn a_log_shows_the_life_of_machines_and_no_secrets() {
    let sandbox = Sandbox::new();
    let reference = busybox();
    let arguments = with_secrets(&reference, "root");
    let baked = logged(&sandbox, "trace", &arguments, "stdin-secret");
    let copied = logged(&sandbox, "trace", &arguments, "stdin-secret");
    for outcome in [&baked, &copied] {
        outcome.exited(0);
        assert!(outcome.stdout.ends_with(b"output-secret"), "{outcome:?}");
        assert_tame(outcome);
        for event in [
            // Of the tool, of the worker, and of the machine in it.
            "image loaded",
            "worker started",
            "worker is prepared",
            "machine prepared",
            "command begun",
            "command ended code=0",
            "machine ended reason=",
            "device counters slot=0 kind=\"vsock\"",
            "worker ended",
            "machine{id=\"supermachine-",
        ] {
            assert!(outcome.stderr.contains(event), "{event}:\n{outcome:?}");
        }
    }
    for event in [
        "bake{snapshot=",
        "baking a snapshot",
        "machine booted",
        "snapshot written",
    ] {
        assert!(baked.stderr.contains(event), "{event}:\n{baked:?}");
    }
    for event in [
        "snapshot is there already",
        "machine restored",
        "order=\"restore\"",
    ] {
        assert!(copied.stderr.contains(event), "{event}:\n{copied:?}");
    }
    sandbox.assert_empty();
}

#[test]
fn what_a_guest_says_is_escaped_in_a_log() {
    let sandbox = Sandbox::new();
    let reference = busybox();
    let arguments = with_secrets(&reference, "gh\x1b[2Jost");
    let outcome = logged(&sandbox, "supermachine=debug", &arguments, "stdin-secret");
    outcome.exited(126);
    assert_tame(&outcome);
    let line = outcome
        .stderr
        .lines()
        .find(|line| line.contains("command failed"));
    assert!(
        line.is_some_and(|line| line.contains("gh\\u{1b}[2Jost")),
        "{outcome:?}"
    );
}

#[test]
fn levels_and_parts_are_kept_to_and_nothing_is_written_unasked() {
    let sandbox = Sandbox::new();
    let reference = busybox();
    let arguments = with_secrets(&reference, "root");
    for filter in ["", "off"] {
        let outcome = logged(&sandbox, filter, &arguments, "");
        assert_eq!(outcome.exited(0).stderr, "");
    }
    let outcome = logged(&sandbox, "supermachine::vm=info", &arguments, "");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(
        matches!(lines[..], [line] if line.contains("machine restored")),
        "{outcome:?}"
    );
}

#[test]
fn a_wrong_filter_is_an_error_before_anything_is_done() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["images"]);
    command.env("SUPERMACHINE_LOG", "info,loud\x1b");
    let outcome = Running::start(command).finish();
    outcome.exited(125);
    assert!(
        outcome.stderr.starts_with(
            "supermachine: SUPERMACHINE_LOG has \"loud\\u{1b}\", which is no filter: give a level"
        ),
        "{outcome:?}"
    );
    assert!(outcome.stdout.is_empty(), "{outcome:?}");
}
