//! What the command line tool promises, tried on the real executables.

mod support;

use oci_bake::{ImageBuilder, LayerBuilder};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::*;

#[test]
fn exit_status_of_the_command_becomes_ours() {
    let sandbox = Sandbox::new();
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
    ] {
        assert_eq!(sandbox.run_shell(&[], script).code(), expected, "{script}");
    }
}

#[test]
fn commands_that_cannot_start_have_the_status_of_a_shell() {
    let sandbox = Sandbox::new();
    for (command, status, words) in [
        (
            "no-such-program",
            127,
            &["no-such-program", "not found"][..],
        ),
        ("/no/such/program", 127, &["/no/such/program"]),
        ("/etc/passwd", 126, &["/etc/passwd", "denied"]),
        ("/etc", 126, &["/etc"]),
    ] {
        let finished = sandbox.run(&["run", busybox(), "--", command]);
        let said = finished.err();
        assert_eq!(finished.code(), status, "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(finished.stdout.is_empty());
    }
}

#[test]
fn streams_stay_apart_and_byte_exact() {
    let sandbox = Sandbox::new();
    let bytes: Vec<u8> = (0..=255).collect();
    let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let script = format!("printf '{octal}'; printf 'x\\n{octal}' >&2");
    let finished = sandbox.run_shell(&[], &script);
    assert_eq!(finished.code(), 0);
    assert_eq!(finished.stdout, bytes);
    assert_eq!(finished.stderr, [b"x\n", &bytes[..]].concat());
}

#[test]
fn a_mebibyte_of_noise_survives_both_ways() {
    let sandbox = Sandbox::new();
    let noise = noise(1 << 20, 42);
    let script = "tee /tmp/copy; sha256sum < /tmp/copy >&2";
    let mut command = sandbox.shell(&["-i"], script);
    let child = command.stdin(Stdio::piped()).spawn().unwrap();
    let finished = finish_with_input(child, noise.clone());
    assert_eq!(finished.code(), 0, "{}", finished.err());
    assert!(finished.stdout == noise, "standard output differs");
    assert_eq!(
        finished.err().split_whitespace().next(),
        Some(&*sha256_hex(&noise))
    );
}

#[test]
fn long_input_streams_in_bounded_memory() {
    const BYTES: usize = 64 << 20;
    const CHUNK: usize = 1 << 20;
    let sandbox = Sandbox::new();
    let mut command = sandbox.shell(&["-i", "--memory", "128"], "echo up >&2; exec cat");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    read_until(child.stderr.as_mut().unwrap(), "up");
    let (tool, worker) = (child.id(), sandbox.worker());
    let before = [tool, worker].map(|pid| status_kib(pid, "VmRSS"));
    let feeder = std::thread::spawn(move || {
        let chunk = noise(CHUNK, 7);
        for _ in 0..BYTES / CHUNK {
            stdin.write_all(&chunk).unwrap();
        }
    });
    let expected = noise(CHUNK, 7);
    let mut chunk = vec![0; CHUNK];
    let mut peaks = [0, 0];
    for _ in 0..BYTES / CHUNK {
        stdout.read_exact(&mut chunk).unwrap();
        assert!(chunk == expected, "the copy differs");
        peaks = [tool, worker].map(|pid| status_kib(pid, "VmHWM"));
    }
    feeder.join().unwrap();
    assert_eq!(finish(child, PATIENCE).code(), 0);
    let growth = [
        peaks[0].saturating_sub(before[0]),
        peaks[1].saturating_sub(before[1]),
    ];
    // The worker's includes guest memory that cat touches.
    assert!(
        growth[0] < 8 << 10 && growth[1] < 32 << 10,
        "grew by {growth:?} KiB"
    );
}

#[test]
fn command_that_closes_its_input_early_ends_normally() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.shell(&["-i"], "head -c 1");
    let child = command.stdin(Stdio::piped()).spawn().unwrap();
    let finished = finish_with_input(child, vec![b'y'; 8 << 20]);
    assert_eq!(
        (finished.code(), finished.stdout.as_slice()),
        (0, &b"y"[..])
    );
}

#[test]
fn input_that_stays_open_does_not_keep_the_tool() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.shell(&["-i"], "echo done");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let _held = child.stdin.take();
    assert_eq!(finish(child, PATIENCE).out(), "done\n");
}

#[test]
fn input_is_empty_unless_asked_for() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.shell(&[], "cat; echo end");
    let child = command.stdin(Stdio::piped()).spawn().unwrap();
    let finished = finish_with_input(child, b"secret".to_vec());
    assert_eq!(finished.out(), "end\n");
}

#[test]
fn signals_reach_the_command() {
    let sandbox = Sandbox::new();
    for (number, name, expected) in [
        (Signal::TERM, "TERM", 3),
        (Signal::INT, "INT", 4),
        (Signal::HUP, "HUP", 5),
        (Signal::USR1, "USR1", 6),
    ] {
        let script = format!(
            "trap 'echo caught; exit {expected}' {name}; echo up; while :; do sleep 0.05; done"
        );
        let mut child = sandbox.shell(&[], &script).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        read_until(&mut stdout, "up\n");
        signal(child.id(), number);
        let status = wait(&mut child, PATIENCE);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(
            (status.code(), rest.as_str()),
            (Some(expected), "caught\n"),
            "{name}"
        );
    }
}

#[test]
fn command_without_a_handler_ends_by_the_signal() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .shell(&[], "echo up; exec sleep 1000")
        .spawn()
        .unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    signal(child.id(), Signal::TERM);
    assert_eq!(finish(child, PATIENCE).code(), 128 + 15);
}

#[test]
fn third_interrupt_ends_a_command_that_ignores_them() {
    let sandbox = Sandbox::new();
    let script = "trap '' INT; echo up; while :; do sleep 1; done";
    let mut child = sandbox.shell(&[], script).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    for _ in 0..2 {
        signal(child.id(), Signal::INT);
        std::thread::sleep(Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none(), "ended too early");
    }
    signal(child.id(), Signal::INT);
    assert_eq!(finish(child, Duration::from_secs(5)).code(), 128 + 2);
}

#[test]
fn user_signals_never_count_as_impatience() {
    let sandbox = Sandbox::new();
    let script = "trap : USR1; trap 'exit 9' USR2; echo up; while :; do sleep 0.05; done";
    let mut child = sandbox.shell(&[], script).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    for _ in 0..5 {
        signal(child.id(), Signal::USR1);
        std::thread::sleep(Duration::from_millis(50));
    }
    signal(child.id(), Signal::USR2);
    assert_eq!(finish(child, PATIENCE).code(), 9);
}

#[test]
fn interrupt_during_boot_ends_at_once() {
    // From before the runtime directory to after the agent is up.
    for delay_ms in [15, 40, 80, 120, 160] {
        let sandbox = Sandbox::new();
        let child = sandbox.shell(&[], "sleep 1000").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        let begun = Instant::now();
        signal(child.id(), Signal::INT);
        let finished = finish(child, Duration::from_secs(40));
        // The very first instants belong to the system's default.
        let by_default = std::os::unix::process::ExitStatusExt::signal(&finished.status);
        assert!(
            finished.status.code() == Some(130) || by_default == Some(2),
            "{finished:?}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
        sandbox.assert_clean();
    }
}

#[test]
fn killed_tool_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.shell(&[], "echo up; sleep 1000").spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    child.kill().unwrap();
    child.wait().unwrap();
    sandbox.assert_clean();
}

#[test]
fn killed_worker_is_reported() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.shell(&[], "echo up; sleep 1000").spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    signal(sandbox.worker(), Signal::KILL);
    finish(child, Duration::from_secs(40)).assert_refused(125, &["worker"]);
}

#[test]
fn closed_output_ends_the_tool_as_sigpipe_would() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.shell(&[], "yes").spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    read_until(&mut stdout, "y\n");
    drop(stdout);
    let finished = finish(child, Duration::from_secs(20));
    assert_eq!((finished.code(), finished.err().as_str()), (141, ""));
}

#[test]
fn options_override_the_image() {
    let sandbox = Sandbox::new();
    let accounts = LayerBuilder::new()
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n",
        )
        .file(
            "etc/group",
            0o644,
            "root:x:0:\napp:x:1001:\nextra:x:77:app\n",
        )
        .dir("srv", 0o755)
        .dir("opt", 0o755);
    let show = "echo args \"$@\"; echo in $(pwd) as $(id -u):$(id -g) home $HOME; echo $A,$B";
    let builder = ImageBuilder::new()
        .entrypoint(["sh", "-c", show, "sh"])
        .cmd(["default"])
        .env("A", "image")
        .env("B", "image")
        .user("app")
        .working_dir("/srv");
    let reference = image(&sandbox.files.join("image"), builder, accounts);
    let run = |options: &[&str], command: &[&str]| {
        let mut arguments = vec!["run"];
        arguments.extend_from_slice(options);
        arguments.push(&reference);
        if !command.is_empty() {
            arguments.push("--");
            arguments.extend_from_slice(command);
        }
        let finished = sandbox.run(&arguments);
        assert_eq!(finished.code(), 0, "{}", finished.err());
        finished.out()
    };
    assert_eq!(
        run(&[], &[]),
        "args default\nin /srv as 1000:1001 home /home/app\nimage,image\n"
    );
    assert_eq!(
        run(
            &[
                "--env",
                "B=x=y",
                "--env",
                "C=",
                "--workdir",
                "/opt",
                "--user",
                "0:77"
            ],
            &["a", "b c"]
        ),
        "args a b c\nin /opt as 0:77 home /root\nimage,x=y\n"
    );
    assert_eq!(
        run(&["--entrypoint", "id", "--user", "app"], &["-G"]),
        "1001 77\n"
    );
    // An entrypoint of ours discards the image's Cmd.
    assert_eq!(run(&["--entrypoint", "pwd"], &[]), "/srv\n");
    // A directory that does not exist is made, as container tools do.
    assert_eq!(
        run(&["--entrypoint", "pwd", "--workdir", "/new/dir"], &[]),
        "/new/dir\n"
    );
}

#[test]
fn kernel_messages_show_only_when_asked_for() {
    let sandbox = Sandbox::new();
    let quiet = sandbox.run_shell(&[], "echo out");
    assert_eq!((quiet.out().as_str(), quiet.err().as_str()), ("out\n", ""));
    let console = sandbox.run_shell(&["--console"], "echo out");
    assert_eq!(console.out(), "out\n");
    assert!(console.err().contains("Linux version"), "{}", console.err());
}

#[test]
fn timings_are_one_line_on_standard_error() {
    let sandbox = Sandbox::new();
    let finished = sandbox.run_shell(&["--timings"], "echo out");
    assert_eq!(finished.out(), "out\n");
    let text = finished.err();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.starts_with("engine soft, boot ") && text.contains(" ms, exec "),
        "{text}"
    );
}

#[test]
fn doctor_says_what_works() {
    let sandbox = Sandbox::new();
    let text = sandbox.run(&["doctor"]);
    assert_eq!(text.code(), 0, "{}", text.err());
    for word in ["hvf", "kvm", "soft", "kernel", env!("CARGO_PKG_VERSION")] {
        assert!(text.out().contains(word), "no {word} in {}", text.out());
    }
    let json = sandbox.run(&["doctor", "--json"]);
    assert_eq!(json.code(), 0);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert!(report["host"]["cpus"].as_u64().unwrap() > 0);
    assert_eq!(report["host"]["arch"], std::env::consts::ARCH);
    let engines = report["engines"].as_array().unwrap();
    let works = |name: &str| {
        let engine = engines
            .iter()
            .find(|engine| engine["name"] == name)
            .unwrap();
        assert!(!engine["detail"].as_str().unwrap().is_empty());
        engine["works"].as_bool().unwrap()
    };
    assert!(works("soft"));
    assert!(!works("kvm"));
    let soft = engines.iter().find(|e| e["name"] == "soft").unwrap();
    let said = match soft["tier"].as_str().unwrap() {
        "compile" => "compiles code that runs often".to_owned(),
        "interpret" => soft["tier_detail"].as_str().unwrap().to_owned(),
        other => panic!("{other}"),
    };
    assert!(text.out().contains(&said), "no {said} in {}", text.out());
    assert_eq!(
        works("hvf"),
        cfg!(all(target_os = "macos", target_arch = "aarch64"))
    );
    let instances = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances");
    let instances = instances.ok().and_then(|text| text.trim().parse().ok());
    assert_eq!(report["watches"]["mounts"].as_u64(), instances);
    let said = report["watches"]["detail"].as_str().unwrap();
    assert!(text.out().contains(said), "no {said} in {}", text.out());
    assert_eq!(report["assets"]["found"], true);
    assert!(
        report["assets"]["kernel"]
            .as_str()
            .unwrap()
            .ends_with("kernel")
    );
}

#[test]
fn doctor_fails_without_a_guest() {
    let sandbox = Sandbox::new();
    // Alone in a directory, the tool finds no assets.
    let alone = sandbox.files.join("a/b/c/supermachine");
    std::fs::create_dir_all(alone.parent().unwrap()).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_supermachine"), &alone).unwrap();
    let mut command = std::process::Command::new(&alone);
    command.env("XDG_CACHE_HOME", &sandbox.files);
    let output = command.arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let output = command.args(["--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["assets"]["found"], false);
    assert!(!report["assets"]["detail"].as_str().unwrap().is_empty());
}

#[test]
fn help_and_wrong_arguments_are_told_apart() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["doctor", "--help"],
        &["--version"],
    ] {
        let finished = sandbox.run(arguments);
        assert_eq!((finished.code(), finished.err().as_str()), (0, ""));
        assert!(!finished.out().is_empty());
    }
    let help = sandbox.run(&["run", "--help"]).out();
    for word in ["--memory", "--engine", "--entrypoint", "Exit status", "127"] {
        assert!(help.contains(word), "no {word} in {help}");
    }
    for arguments in [
        &[][..],
        &["fly"],
        &["run"],
        &["run", "--no-such-flag", busybox()],
        &["run", "--memory", "many", busybox()],
        &["run", "--vcpus", "-1", busybox()],
        &["run", "--env", "=value", busybox()],
        &["run", "--engine", "warp", busybox()],
    ] {
        let finished = sandbox.run(arguments);
        assert_eq!(finished.code(), 125, "{arguments:?}");
        assert!(finished.stdout.is_empty() && !finished.stderr.is_empty());
    }
}

#[test]
fn arguments_variables_and_directories_need_not_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let odd = OsStr::from_bytes(b"\xff\xfe\x80");
    let directory = OsStr::from_bytes(b"/tmp/d\xff");
    let variable = OsStr::from_bytes(b"V=\xfd\xff");
    let script = r#"printf '%s|' "$0" "$(pwd)" "$V""#;
    let expected = b"\xff\xfe\x80|/tmp/d\xff|\xfd\xff|";
    let with_words = |command: &mut std::process::Command| {
        command.arg("--env").arg(variable);
        command.arg("--workdir").arg(directory);
    };
    let sandbox = Sandbox::new();
    let mut run = sandbox.command(&["run"]);
    with_words(&mut run);
    run.args([busybox(), "--", "sh", "-c", script]).arg(odd);
    let finished = finish(run.spawn().unwrap(), PATIENCE);
    assert_eq!(finished.stdout, expected, "{}", finished.err());

    let mut machine = sandbox.shell(&["-i", "--name", "box"], "echo up; exec cat");
    let mut machine = machine.stdin(Stdio::piped()).spawn().unwrap();
    read_until(machine.stdout.as_mut().unwrap(), "up\n");
    let mut exec = sandbox.command(&["exec"]);
    with_words(&mut exec);
    exec.args(["box", "--", "sh", "-c", script]).arg(odd);
    let finished = finish(exec.spawn().unwrap(), PATIENCE);
    assert_eq!(finished.stdout, expected, "{}", finished.err());
    drop(machine.stdin.take());
    assert_eq!(finish(machine, PATIENCE).code(), 0);
}
