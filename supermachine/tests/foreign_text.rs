//! What images and guests call things cannot drive the terminal it is shown on.

mod support;

use oci_bake::{ImageBuilder, LayerBuilder};
use std::process::Stdio;
use support::*;

/// Sets the title, clears the screen, turns the direction of writing, and makes
/// a line that looks like ours.
const HOSTILE: &str = "x\x1b]0;owned\x07\x1b[2J\u{9b}2J\u{202e}\nsupermachine: fine";

fn assert_tame(text: &str) {
    let tame = |char| char == '\n' || exec_proto::Printable::is_harmless(char);
    assert!(text.chars().all(tame), "{text:?}");
    assert!(!text.contains("\nsupermachine: fine"), "{text:?}");
}

#[test]
fn users_and_directories_of_an_image_are_shown_escaped() {
    let sandbox = Sandbox::new();
    let directory = format!("/bin/busybox/{HOSTILE}");
    for (name, builder) in [
        ("user", ImageBuilder::new().user(HOSTILE)),
        ("dir", ImageBuilder::new().working_dir(directory.as_str())),
    ] {
        let dir = sandbox.files.join(name);
        let reference = image(&dir, builder, LayerBuilder::new());
        for options in [&["run"][..], &["run", "--no-snapshot"]] {
            let arguments = [options, &[reference.as_str(), "--", "true"]].concat();
            let finished = sandbox.run(&arguments);
            finished.assert_refused(126, &["owned"]);
            assert_tame(&finished.err());
        }
    }
}

#[test]
fn programs_that_are_not_there_are_shown_escaped() {
    let sandbox = Sandbox::new();
    let finished = sandbox.run(&["run", busybox(), "--", HOSTILE]);
    assert_eq!(finished.code(), 127);
    assert_tame(&finished.err());
    assert!(finished.err().contains("owned"), "{}", finished.err());
}

#[test]
fn names_in_lists_are_shown_escaped_and_json_means_the_same() {
    let sandbox = Sandbox::new();
    // References with control characters are refused before they are shown.
    let dir = sandbox.files.join("x\u{202e}owned");
    let reference = image(&dir, ImageBuilder::new(), LayerBuilder::new());
    let baked = sandbox.run(&["bake", "--name", "image", &reference]);
    assert_eq!(baked.code(), 0, "{}", baked.err());
    let mut child = sandbox
        .command(&[
            "run",
            "-i",
            "--name",
            "box",
            &reference,
            "--",
            "sh",
            "-c",
            "echo up; exec cat",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    for arguments in [
        &["ps"][..],
        &["images"],
        &["snapshot", "inspect", "image"],
        &["snapshot", "verify", "image"],
        &["run", "--name", HOSTILE, &reference, "--", "true"],
        &["exec", "no such \x1b[2J machine", "--", "true"],
        &["stop", HOSTILE.get(..4).unwrap()],
        &["snapshot", "inspect", HOSTILE],
        &["rmi", HOSTILE],
    ] {
        let finished = sandbox.run(arguments);
        assert_tame(&finished.out());
        assert_tame(&finished.err());
    }
    for (arguments, key) in [
        (&["ps", "--json"][..], "image"),
        (&["images", "--json"], "reference"),
    ] {
        let finished = sandbox.run(arguments);
        assert_tame(&finished.out());
        let json: serde_json::Value = serde_json::from_str(&finished.out()).unwrap();
        let all = json.as_array().unwrap();
        assert!(all.iter().any(|row| row[key] == reference.as_str()));
    }
    assert_tame(
        &sandbox
            .run(&["snapshot", "inspect", "image", "--json"])
            .out(),
    );
    drop(child.stdin.take());
    assert_eq!(finish(child, PATIENCE).code(), 0);
}

#[test]
fn workload_of_words_that_are_no_text_is_refused_before_anything_is_baked() {
    use std::os::unix::ffi::OsStrExt;
    let sandbox = Sandbox::new();
    for at in ["command", "variable"] {
        let foreign = std::ffi::OsStr::from_bytes(b"A=caf\xe9");
        let mut command = sandbox.command(&["bake", "--name", "foreign"]);
        if at == "variable" {
            command.arg("--env").arg(foreign);
        }
        command.arg(busybox());
        if at == "command" {
            command.args(["--", "echo"]).arg(foreign);
        }
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let finished = finish(child, std::time::Duration::from_secs(60));
        finished.assert_refused(125, &["UTF-8"]);
        assert_tame(&finished.err());
    }
    let listed = sandbox.run(&["images"]);
    assert!(!listed.out().contains("foreign"), "{}", listed.out());
}
