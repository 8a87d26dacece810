//! What snapshots are called, what is found under those names, and what is left
//! of those that were not finished.

mod support;

use std::fs;
use std::process::Command;
use supermachine::{AssetPaths, Error, Image};
use support::shelf::*;
use support::*;

/// Names of images and their generations.
fn baked(sandbox: &Sandbox) -> Vec<String> {
    let root = sandbox.files.join("s");
    let mut found = Vec::new();
    for image in fs::read_dir(&root).unwrap() {
        let image = image.unwrap().path();
        if !image.join("current").exists() {
            continue;
        }
        for entry in fs::read_dir(&image).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.push(path.strip_prefix(&root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn runs_with_different_memory_do_not_bake_in_turns() {
    let sandbox = Sandbox::new();
    let run = |memory: &str| {
        let out = sandbox.run_shell(&["--memory", memory], "echo up");
        assert_eq!((out.code(), out.out()), (0, "up\n".into()), "{}", out.err());
    };
    run("128");
    run("160");
    let both = baked(&sandbox);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both.iter().all(|name| name.ends_with("/0000000001")));
    run("128");
    run("160");
    assert_eq!(baked(&sandbox), both);
}

#[test]
fn what_was_baked_under_a_name_runs_by_its_name_and_its_path() {
    let sandbox = Sandbox::new();
    let out = sandbox.run(&[
        "bake",
        "--name",
        "mine",
        "--memory",
        "200",
        "--vcpus",
        "2",
        "--warmup",
        "echo warm > /tmp/mark",
        busybox(),
    ]);
    assert_eq!(out.code(), 0, "{}", out.err());
    let generation = out.out().trim_end().to_owned();
    let image = sandbox.files.join("s/mine").display().to_string();
    let script = "cat /tmp/mark; nproc";
    for which in [
        "mine",
        "snapshot:mine",
        &image,
        &generation,
        &format!("snapshot:{image}"),
    ] {
        let out = sandbox.run(&["run", which, "--", "sh", "-c", script]);
        // With the memory and the vCPUs that were baked.
        assert_eq!(out.out(), "warm\n2\n", "{which}: {}", out.err());
    }
    let out = sandbox.run(&["run", "--vcpus", "1", "mine", "--", "nproc"]);
    assert_eq!(out.out(), "1\n", "{}", out.err());
    let relative = sandbox
        .command(&["run", "./s/mine", "--", "cat", "/tmp/mark"])
        .current_dir(&sandbox.files)
        .spawn();
    assert_eq!(finish(relative.unwrap(), PATIENCE).out(), "warm\n");
    // Nothing was baked for that.
    assert_eq!(baked(&sandbox), ["mine/0000000001"]);

    // A reference with a scheme is the image, whatever a snapshot is called.
    let plain = sandbox.run(&["run", "--no-snapshot", busybox(), "--", "ls", "/tmp/mark"]);
    assert_eq!(plain.code(), 1);
    sandbox
        .run(&["run", "--no-snapshot", "mine", "--", "true"])
        .assert_refused(125, &["image", "snapshot"]);
    sandbox
        .run(&["run", "snapshot:yours", "--", "true"])
        .assert_refused(125, &["no snapshot", "yours"]);
    sandbox
        .run(&["run", "--pull", "never", "yours", "--", "true"])
        .assert_refused(125, &["docker.io/library/yours", "pull"]);
}

#[test]
fn a_snapshot_that_is_not_there_is_told_by_its_path_and_not_made() {
    let shelf = Shelf::new("missing");
    for path in [shelf.0.join("some/where"), shelf.0.join("where")] {
        let error = Image::from_snapshot_with(&path, &library_config()).unwrap_err();
        assert!(matches!(error, Error::NoSnapshot { .. }), "{error:?}");
        let shown = path.display().to_string();
        assert!(error.to_string().contains(&shown), "{error}");
        assert!(!shelf.0.exists());
    }
}

#[test]
fn nothing_is_left_of_a_first_bake_that_failed() {
    let shelf = Shelf::new("failing");
    let failing = shelf.builder().with_warmup(|vm| {
        vm.read_file("/no-such-file")?;
        Ok(())
    });
    assert!(failing.build().is_err());
    let no_guest = library_config().with_worker("/bin/false");
    assert!(shelf.builder().vm_config(no_guest).build().is_err());
    assert_eq!(fs::read_dir(&shelf.0).unwrap().count(), 0);
    // And nothing of what others use is gone.
    let image = shelf.bake();
    let failing = shelf.builder().name("other").with_warmup(|vm| {
        vm.read_file("/no-such-file")?;
        Ok(())
    });
    assert!(failing.build().is_err());
    assert!(!shelf.0.join("other").exists() && shelf.0.join(".bases").exists());
    assert_eq!(sh(&copy(&image), "echo on"), "on");
}

#[cfg(target_os = "linux")]
#[test]
fn images_are_baked_and_copied_on_hosts_without_proc() {
    let sandbox = Sandbox::new();
    // A program that cannot see its own path looks in PATH and in the user's cache.
    let cache = sandbox.files.join("c");
    let assets = AssetPaths::discover().unwrap();
    let places = kernel::search_dirs();
    let place = cache.join("supermachine");
    let place = place.join(places.last().unwrap().file_name().unwrap());
    fs::create_dir_all(&place).unwrap();
    fs::copy(assets.kernel, place.join("kernel")).unwrap();
    fs::copy(assets.init_oci, place.join("init-oci")).unwrap();
    let hidden = "mount -t tmpfs none /proc && exec \"$@\"";
    let without_proc = |arguments: &[&str]| {
        let tool = sandbox.command(arguments);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "--", "sh", "-c", hidden, "sh"]);
        command.arg(tool.get_program()).args(tool.get_args());
        for (name, value) in tool.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let worker = std::path::Path::new(env!("CARGO_BIN_EXE_supermachine-worker"));
        command.env(
            "PATH",
            format!("{}:/usr/bin:/bin", worker.parent().unwrap().display()),
        );
        command.env("XDG_CACHE_HOME", &cache);
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        command
    };
    let may = Command::new("unshare")
        .args([
            "--mount",
            "--map-root-user",
            "--",
            "sh",
            "-c",
            hidden,
            "sh",
            "true",
        ])
        .status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: this host does not let its users hide /proc");
        return;
    }
    let reference = busybox();
    for _ in 0..2 {
        let run = without_proc(&["run", reference, "--", "sh", "-c", "echo up"]);
        let out = finish({ run }.spawn().unwrap(), PATIENCE);
        assert_eq!((out.code(), out.out()), (0, "up\n".into()), "{}", out.err());
        assert_eq!(out.err(), "");
    }
    assert_eq!(baked(&sandbox).len(), 1);
}
