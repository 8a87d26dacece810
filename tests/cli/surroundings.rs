//! Where the tool is started from: without descriptors, without a home, with ignored
//! signals, with limits, on a full disk. As other tools behave there, or an error that
//! says what is the matter.

use crate::sandbox::{Outcome, Running, Sandbox, busybox, shell_arguments};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The executable, started by a shell that has prepared the way: `$@` is the tool with
/// its arguments.
fn shell_before(sandbox: &Sandbox, prepare: &str, arguments: &[String]) -> Command {
    let tool = sandbox.command(arguments);
    let mut shell = Command::new("sh");
    shell.args(["-c", prepare, "sh"]);
    shell.arg(tool.get_program()).args(tool.get_args());
    with_environment(&mut shell, &tool);
    shell
}

/// What the sandbox has the tool see.
fn with_environment(command: &mut Command, tool: &Command) {
    for (name, value) in tool.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null());
}

fn by_shell(sandbox: &Sandbox, prepare: &str, arguments: &[String]) -> Outcome {
    Running::start(shell_before(sandbox, prepare, arguments)).finish()
}

fn run(script: &str) -> Vec<String> {
    shell_arguments(&[], script)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn closed_descriptors_are_as_good_as_empty_ones() {
    let sandbox = Sandbox::new();
    let script = "cat; echo out; echo err >&2; exit 3";
    let with_input = shell_arguments(&["-i"], script);
    let all = by_shell(&sandbox, "exec \"$@\" <&- >&- 2>&-", &with_input);
    all.exited(3);
    assert_eq!((all.stdout.len(), all.stderr.len()), (0, 0));
    let without_input = by_shell(&sandbox, "exec \"$@\" <&-", &with_input);
    without_input.exited(3);
    assert_eq!(without_input.stdout, b"out\n");
    assert_eq!(without_input.stderr, "err\n");
    // What is opened later is not taken for one of them.
    let without_output = by_shell(&sandbox, "exec \"$@\" >&-", &run(script));
    without_output.exited(3);
    assert_eq!(without_output.stderr, "err\n");
    let id = by_shell(
        &sandbox,
        "\"$@\" <&- >&- 2>&-",
        &words(&[
            "run",
            "-d",
            "--name",
            "quiet",
            &busybox(),
            "sh",
            "-c",
            "echo kept; exit 4",
        ]),
    );
    id.exited(0);
    sandbox.run(&["wait", "quiet"]).printed("4\n");
    sandbox.run(&["logs", "quiet"]).printed("kept\n");
    sandbox.run(&["rm", "quiet"]).exited(0);
    sandbox.assert_empty();
}

#[test]
fn a_device_that_is_full_is_an_error_and_not_a_silence() {
    let sandbox = Sandbox::new();
    for arguments in [
        words(&["ps"]),
        run("echo lost"),
        words(&["completions", "bash"]),
    ] {
        let full = by_shell(&sandbox, "exec \"$@\" >/dev/full", &arguments);
        full.refused(125, &["No space left"]);
    }
    sandbox.assert_empty();
}

/// Reads a stream up to these words.
fn read_to(from: &mut impl Read, wanted: &str) {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(wanted) {
        let mut byte = [0];
        from.read_exact(&mut byte).expect("more output");
        text.push(byte[0]);
    }
}

fn send(signal: &str, pid: u32) {
    let kill = Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status();
    assert!(kill.expect("kill").success());
}

#[test]
fn what_nohup_ignores_stays_ignored() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo hup; exit 1' HUP; trap 'echo usr; exit 7' USR1; echo up; \
        while :; do sleep 0.1; done";
    let mut shell = shell_before(&sandbox, "trap '' HUP INT QUIT; exec \"$@\"", &run(script));
    shell.stdout(Stdio::piped());
    let mut child = Running::start_with_stdout(shell);
    let mut stdout = child.take_stdout();
    read_to(&mut stdout, "up\n");
    for signal in ["HUP", "INT", "QUIT", "HUP", "USR1"] {
        send(signal, child.id());
    }
    child.wait().exited(7);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "usr\n");

    // The supervisor of a detached machine has nothing to do with whoever started it.
    let arguments = [
        "run",
        "-d",
        "--name",
        "deaf",
        &busybox(),
        "sh",
        "-c",
        script,
    ];
    by_shell(&sandbox, "trap '' HUP; exec \"$@\"", &words(&arguments)).exited(0);
    while sandbox.run(&["logs", "deaf"]).stdout != b"up\n" {
        std::thread::sleep(Duration::from_millis(20));
    }
    sandbox.run(&["kill", "-s", "HUP", "deaf"]).exited(0);
    sandbox.run(&["wait", "deaf"]).printed("1\n");
    sandbox.run(&["rm", "deaf"]).exited(0);
    sandbox.assert_empty();
}

#[test]
fn a_limit_on_files_is_an_error_and_leaves_nothing() {
    let sandbox = Sandbox::with_empty_cache();
    // In units of 512 bytes or 1 KiB: no layer is so small.
    let limited = by_shell(&sandbox, "ulimit -f 100; exec \"$@\"", &run("echo hi"));
    limited.refused(125, &["File too large"]);
    sandbox.assert_empty();
}

#[test]
fn without_a_home_in_the_environment_the_system_knows_one() {
    let sandbox = Sandbox::new();
    let bare = by_shell(
        &sandbox,
        "unset HOME XDG_CACHE_HOME XDG_STATE_HOME; exec \"$@\"",
        &run("echo hi"),
    );
    bare.printed("hi\n");
    sandbox.assert_empty();
}

#[test]
fn directories_that_cannot_be_written_are_named_or_done_without() {
    let sandbox = Sandbox::new();
    let there = |variable: &str, place: &str, arguments: &[String]| {
        let mut command = sandbox.command(arguments);
        command.env(variable, place);
        Running::start(command).finish()
    };
    let hi = run("echo hi");
    there("XDG_CACHE_HOME", "/proc", &hi).refused(125, &["/proc/supermachine"]);
    there("XDG_CACHE_HOME", "/dev/null", &hi).refused(125, &["/dev/null", "Not a directory"]);
    // Where no sockets can be made, they go where all temporary files go.
    there("XDG_RUNTIME_DIR", "/no/such/place", &hi).printed("hi\n");
    there("XDG_RUNTIME_DIR", "/proc", &hi).refused(125, &["/proc/supermachine"]);
    let no_snapshots = there("SUPERMACHINE_SNAPSHOTS", "/proc/none", &hi);
    no_snapshots.exited(0);
    assert_eq!(no_snapshots.stdout, b"hi\n");
    let told = &no_snapshots.stderr;
    assert!(
        told.contains("without a snapshot") && told.contains("os error"),
        "{told}"
    );
    let detached = words(&["run", "-d", &busybox(), "true"]);
    there("XDG_STATE_HOME", "/proc", &detached).refused(125, &["/proc/supermachine/machines"]);
    sandbox.assert_empty();
}

/// Whether this user may mount in a namespace of its own. Says so if not.
fn may_mount() -> bool {
    let tried = Command::new("unshare")
        .args([
            "--mount",
            "--map-root-user",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/mnt",
        ])
        .stderr(Stdio::null())
        .status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        eprintln!("skipped: this user may not mount");
    }
    may
}

/// Runs a script in which `$full` is a file system of 1 MiB, `$tool` the executable.
fn on_a_small_disk(sandbox: &Sandbox, script: &str) -> Outcome {
    let tool = sandbox.command::<&str>(&[]);
    let disk = sandbox.path("full");
    std::fs::create_dir_all(&disk).expect("a directory");
    let mut shell = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size=1m none \"$full\" && {script}");
    shell.args(["--mount", "--map-root-user", "sh", "-c", &script]);
    shell
        .env("full", disk)
        .env("tool", tool.get_program())
        .env("image", busybox());
    with_environment(&mut shell, &tool);
    Running::start(shell).finish()
}

#[test]
fn full_disks_are_named_and_nothing_half_written_is_left() {
    if !may_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let left = "; status=$?; find \"$full\" -type f ! -name '*.lock' ! -path '*/images/locks/*' ! -name 'sha256-*.squashfs' | head -n 3; exit $status";
    let cache = on_a_small_disk(
        &sandbox,
        &format!("XDG_CACHE_HOME=$full \"$tool\" run \"$image\" true{left}"),
    );
    cache.refused(125, &["No space left"]);
    let bake = on_a_small_disk(
        &sandbox,
        &format!("SUPERMACHINE_SNAPSHOTS=$full \"$tool\" bake -q \"$image\"{left}"),
    );
    bake.refused(125, &["No space left"]);
    let runtime = on_a_small_disk(
        &sandbox,
        &format!(
            "head -c 2m /dev/zero > $full/fill; rm -f $full/x; \
             XDG_RUNTIME_DIR=$full \"$tool\" run \"$image\" true; status=$?; \
             rm $full/fill{}",
            left.replace("status=$?;", "")
        ),
    );
    runtime.refused(125, &["No space left"]);
    let state = on_a_small_disk(
        &sandbox,
        &format!(
            "head -c 2m /dev/zero > $full/fill; \
             XDG_STATE_HOME=$full \"$tool\" run -d \"$image\" true; status=$?; \
             rm $full/fill; ls $full/supermachine/machines{}",
            left.replace("status=$?;", "")
        ),
    );
    state.refused(125, &["No space left"]);
    sandbox.assert_empty();
}

#[test]
fn a_full_disk_costs_a_part_of_the_log_and_not_the_machine() {
    if !may_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    // The log has no room for what is written first, and has for what comes after.
    let script = "export XDG_STATE_HOME=$full; head -c 500000 /dev/zero > $full/fill; \
        \"$tool\" run -d --name noisy \"$image\" sh -c \
            'yes | head -c 3000000; touch /over; until [ -e /room ]; do sleep 0.1; done; \
             echo end; exit 5' && \
        \"$tool\" exec noisy sh -c 'until [ -e /over ]; do sleep 0.1; done'; \
        until [ $(\"$tool\" logs noisy | wc -c) -gt 100000 ]; do sleep 0.1; done; \
        rm $full/fill; \"$tool\" exec noisy touch /room; \"$tool\" wait noisy; \
        \"$tool\" ps -a --format '{{.ExitStatus}} {{.State}}'; \
        \"$tool\" logs noisy 2>&1 | tail -n 2";
    let outcome = on_a_small_disk(&sandbox, script);
    outcome.exited(0);
    let text = String::from_utf8_lossy(&outcome.stdout);
    let text = text.split_once('\n').map_or("", |(_id, rest)| rest);
    let (told, log) = text.split_once("5\n5 exited\n").expect("its status");
    assert_eq!(told, "", "{}", outcome.stderr);
    assert!(
        log.contains("the log has a gap") && log.ends_with("end\n"),
        "{log}"
    );
    sandbox.assert_empty();
}
