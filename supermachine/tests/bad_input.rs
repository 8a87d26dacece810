//! Bad input and hostile guests: a clear message, the documented status,
//! nothing left behind, nothing hanging.

mod support;

use oci_bake::{ImageBuilder, LayerBuilder};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::*;

/// A small image of its own, to be damaged.
fn layout(sandbox: &Sandbox, builder: ImageBuilder) -> (PathBuf, String) {
    let dir = sandbox.files.join("image");
    let layer = LayerBuilder::new().file("hello", 0o644, "hello");
    builder.layer(layer).write_layout(&dir).unwrap();
    let reference = format!("oci:{}", dir.display());
    (dir, reference)
}

/// The blob that the index's manifest calls `config` or `layers[0]`.
fn blob(dir: &Path, pick: impl Fn(&serde_json::Value) -> serde_json::Value) -> PathBuf {
    let json = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let blobs = dir.join("blobs/sha256");
    let path_of = |digest: &serde_json::Value| {
        blobs.join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let index = json(dir.join("index.json"));
    let manifest = json(path_of(&index["manifests"][0]["digest"]));
    path_of(&pick(&manifest)["digest"])
}

#[test]
fn what_is_no_image_is_refused() {
    let sandbox = Sandbox::new();
    let empty = sandbox.files.join("empty");
    fs::create_dir(&empty).unwrap();
    let text = sandbox.files.join("text");
    fs::write(&text, "no archive").unwrap();
    let missing = sandbox.files.join("missing");
    let display = |path: &Path| path.display().to_string();
    for (reference, words) in [
        (
            format!("oci:{}", display(&empty)),
            vec!["not an OCI image layout", "empty"],
        ),
        (
            format!("oci:{}", display(&missing)),
            vec!["missing", "No such file"],
        ),
        (format!("oci:{}", display(&text)), vec!["text"]),
        (format!("oci-archive:{}", display(&text)), vec!["text"]),
        (format!("docker-archive:{}", display(&text)), vec!["text"]),
        (
            format!("docker-archive:{}", display(&missing)),
            vec!["missing", "No such file"],
        ),
        ("a..b".into(), vec!["a..b", "name"]),
        ("oci:".into(), vec!["oci:"]),
        (String::new(), vec![]),
    ] {
        let finished = sandbox.run(&["run", &reference, "--", "true"]);
        finished.assert_refused(125, &words);
    }
}

#[test]
fn an_image_that_must_not_be_pulled_and_is_not_here_is_named() {
    let sandbox = Sandbox::new();
    let arguments = ["run", "--pull", "never", "alpine:3.20", "--", "true"];
    let words = ["docker.io/library/alpine:3.20", "not here", "pull it"];
    sandbox.run(&arguments).assert_refused(125, &words);
    let other = ["run", "--platform", "linux/amd64", "alpine:3.20", "true"];
    sandbox.run(&other).assert_refused(125, &["linux/arm64"]);
    let build = ["build", "-t", "x", "--help", "."];
    sandbox
        .run(&build)
        .assert_refused(125, &["buildx", "oci-archive:"]);
}

#[test]
fn wrong_architecture_is_named() {
    let sandbox = Sandbox::new();
    let (_, reference) = layout(&sandbox, ImageBuilder::new().architecture("amd64"));
    let finished = sandbox.run(&["run", &reference, "--", "true"]);
    finished.assert_refused(125, &["amd64", "arm64"]);
}

#[test]
fn damaged_images_are_refused_naming_the_blob() {
    for part in ["config", "layer"] {
        let sandbox = Sandbox::new();
        let (dir, reference) = layout(&sandbox, ImageBuilder::new());
        let path = blob(&dir, |manifest| match part {
            "config" => manifest["config"].clone(),
            _ => manifest["layers"][0].clone(),
        });
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // A layer another test has baked would not be read again.
        let run = || {
            let mut command = sandbox.command(&["run", &reference, "--", "true"]);
            command.env("XDG_CACHE_HOME", sandbox.files.join("cache"));
            finish(command.spawn().unwrap(), PATIENCE)
        };
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        run().assert_refused(125, &["digest mismatch", &name]);
        bytes.push(0);
        fs::write(&path, &bytes).unwrap();
        run().assert_refused(125, &[&name]);
        fs::remove_file(&path).unwrap();
        run().assert_refused(125, &["missing", &name]);
        let baked = sandbox.files.join("cache/supermachine/images/layers");
        let left: Vec<_> = fs::read_dir(baked)
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn image_without_a_command_needs_one() {
    let sandbox = Sandbox::new();
    let (_, reference) = layout(&sandbox, ImageBuilder::new());
    sandbox
        .run(&["run", &reference])
        .assert_refused(125, &["no command"]);
    // And this image has no program at all.
    let finished = sandbox.run(&["run", &reference, "--", "sh"]);
    assert_eq!(finished.code(), 127);
    assert_eq!(finished.err(), "sh: not found in PATH\n");
}

#[test]
fn impossible_machines_are_refused() {
    let sandbox = Sandbox::new();
    for (options, words) in [
        (&["--memory", "0"][..], &["memory", "greater than zero"][..]),
        (&["--memory", "1"], &["memory"]),
        (&["--memory", "100000000"], &["memory"]),
        (&["--memory", "18446744073709551615"], &["memory"]),
        (&["--vcpus", "0"], &["vCPU", "greater than zero"]),
        (&["--vcpus", "17"], &["17", "at most 16"]),
        (&["--vcpus", "65"], &["65", "at most 16"]),
        (&["--vcpus", "4294967295"], &["at most 16"]),
    ] {
        sandbox
            .run_shell(options, "true")
            .assert_refused(125, words);
    }
}

#[test]
fn sixteen_vcpus_are_possible() {
    let sandbox = Sandbox::new();
    let finished = sandbox.run_shell(&["--vcpus", "16"], "nproc");
    assert_eq!(
        (finished.code(), finished.out().as_str()),
        (0, "16\n"),
        "{}",
        finished.err()
    );
}

#[test]
fn missing_engine_is_named() {
    let sandbox = Sandbox::new();
    let finished = sandbox.run_shell(&["--engine", "hvf"], "true");
    if cfg!(target_os = "macos") {
        return assert_eq!(finished.code(), 0);
    }
    finished.assert_refused(125, &["Hypervisor.framework", "not available"]);
}

#[test]
fn missing_worker_and_missing_assets_are_named() {
    let sandbox = Sandbox::new();
    let alone = sandbox.files.join("a/b/c/supermachine");
    fs::create_dir_all(alone.parent().unwrap()).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_supermachine"), &alone).unwrap();
    let run = || {
        let like = sandbox.command(&["run", busybox(), "--", "true"]);
        let mut command = Command::new(&alone);
        command.args(like.get_args()).env("PATH", "/nowhere");
        for (key, value) in like.get_envs() {
            command.env(key, value.unwrap());
        }
        let piped = std::process::Stdio::piped;
        finish(
            command.stdout(piped()).stderr(piped()).spawn().unwrap(),
            PATIENCE,
        )
    };
    // The kernel's error lists where it looked.
    run().assert_refused(125, &["kernel", "a/b/c"]);
    let assets = supermachine::AssetPaths::discover().unwrap();
    fs::copy(&assets.kernel, alone.with_file_name("kernel")).unwrap();
    fs::copy(&assets.init_oci, alone.with_file_name("init-oci")).unwrap();
    run().assert_refused(125, &["supermachine-worker", "not found", "PATH"]);
    // Something of that name that is no program.
    fs::write(alone.with_file_name("supermachine-worker"), "no program").unwrap();
    run().assert_refused(125, &["cannot start the worker", "denied"]);
}

#[test]
fn worker_that_is_another_program_is_an_error_with_its_words() {
    let sandbox = Sandbox::new();
    let script = sandbox.files.join("worker");
    fs::write(&script, "#!/bin/sh\necho oh no >&2\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = library_config().with_worker(&script);
    let error = library_image().start(&config).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, supermachine::Error::Worker { .. }),
        "{error:?}"
    );
    assert!(text.contains("oh no"), "{text}");
}

#[test]
fn users_and_directories_that_do_not_exist_are_named() {
    let sandbox = Sandbox::new();
    for (options, words) in [
        (
            &["--user", "nobody-here"][..],
            &["no such user", "nobody-here"][..],
        ),
        (&["--user", "0:no-group"], &["no such group", "no-group"]),
        (
            &["--workdir", "/bin/busybox"],
            &["working directory", "/bin/busybox"],
        ),
    ] {
        sandbox
            .run_shell(options, "true")
            .assert_refused(126, words);
    }
}

#[test]
fn full_disk_is_the_commands_problem() {
    let sandbox = Sandbox::new();
    let script =
        "dd if=/dev/zero of=/fill bs=1M; echo status $?; rm /fill; echo alive > /x; cat /x";
    let finished = sandbox.run_shell(&["--memory", "128"], script);
    assert_eq!(finished.code(), 0, "{}", finished.err());
    assert_eq!(finished.out(), "status 1\nalive\n");
    assert!(
        finished.err().contains("No space left"),
        "{}",
        finished.err()
    );
}

#[test]
fn blocked_output_holds_little_memory_and_ends_on_a_signal() {
    let sandbox = Sandbox::new();
    let child = sandbox.shell(&[], "yes").spawn().unwrap();
    let rss = || {
        let worker = sandbox
            .processes()
            .into_iter()
            .map(|pid| status_kib(pid, "VmRSS"));
        worker.sum::<u64>()
    };
    // At first the machine comes up. What grows without a reader never stops.
    let grows = |_: &u32| {
        let before = rss();
        std::thread::sleep(Duration::from_millis(1500));
        rss() >= before + (8 << 10)
    };
    let steady = (0..20).find(|attempt| !grows(attempt));
    assert!(steady.is_some(), "grows without a reader: {}", rss());
    signal(child.id(), Signal::TERM);
    let mut child = child;
    let status = wait(&mut child, Duration::from_secs(20));
    assert_eq!(status.code(), Some(128 + 15));
}

#[test]
fn machine_that_ends_itself_is_news() {
    let sandbox = Sandbox::new();
    for (script, words) in [
        (
            "echo last; sleep 0.3; poweroff -f; sleep 100",
            &["machine has ended", "turned itself off"][..],
        ),
        (
            "echo last; sleep 0.3; reboot -f; sleep 100",
            &["machine has ended", "restarted itself"],
        ),
        (
            "echo last; sleep 0.3; echo 1 > /proc/sys/vm/panic_on_oom; \
             for i in 1 2 3; do dd if=/dev/zero bs=150M 2>/dev/null | sleep 100 & done; sleep 100",
            &["machine has ended", "kernel panicked"],
        ),
    ] {
        let child = sandbox.shell(&[], script).spawn().unwrap();
        let finished = finish(child, Duration::from_secs(20));
        finished.assert_refused(125, words);
        assert_eq!(finished.out(), "last\n");
    }
}
