//! `ps`, `exec` and `stop` against machines of other processes.

mod support;

use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use support::*;

/// How soon a machine must be gone that is ended by force, on a busy machine:
/// before the 15 s are over that a worker has for ending by itself.
const FORCED_WITHIN: Duration = Duration::from_secs(14);

/// A machine that runs until its standard input ends.
struct Machine {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Machine {
    fn start(sandbox: &Sandbox, name: &str) -> Self {
        let mut child = sandbox
            .shell(
                &["--no-snapshot", "-i", "--name", name],
                "echo up; exec cat",
            )
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        read_until(child.stdout.as_mut().unwrap(), "up\n");
        Self {
            stdin: child.stdin.take(),
            child,
        }
    }

    /// Lets it end by itself.
    fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        finish(self.child, PATIENCE)
    }
}

fn listed(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let ps = sandbox.run(&["ps", "--json"]);
    assert_eq!(ps.code(), 0, "{}", ps.err());
    serde_json::from_str(&ps.out()).unwrap()
}

/// The one running machine.
fn only(sandbox: &Sandbox) -> serde_json::Value {
    let mut all = listed(sandbox);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn word(vm: &serde_json::Value, key: &str) -> String {
    vm[key].as_str().unwrap().to_owned()
}

fn process(vm: &serde_json::Value, key: &str) -> u32 {
    u32::try_from(vm[key].as_u64().unwrap()).unwrap()
}

/// The runtime directory of a machine.
fn directory(sandbox: &Sandbox, vm: &serde_json::Value) -> PathBuf {
    let name = format!("supermachine-{}", word(vm, "id"));
    sandbox.files.parent().unwrap().join("r").join(name)
}

fn exec(sandbox: &Sandbox, options: &[&str], vm: &str, script: &str) -> Command {
    let mut arguments = vec!["exec"];
    arguments.extend_from_slice(options);
    arguments.extend_from_slice(&[vm, "--", "sh", "-c", script]);
    sandbox.command(&arguments)
}

fn run(mut command: Command) -> Finished {
    finish(command.spawn().unwrap(), PATIENCE)
}

#[test]
fn machines_are_listed_while_they_run() {
    let sandbox = Sandbox::new();
    assert!(listed(&sandbox).is_empty());
    let machine = Machine::start(&sandbox, "first");
    let vm = only(&sandbox);
    assert_eq!(vm["name"], "first");
    assert_eq!(vm["image"], busybox());
    assert!(word(&vm, "digest").starts_with("sha256:"));
    assert_eq!((&vm["memory_mib"], &vm["vcpus"]), (&256.into(), &1.into()));
    assert_eq!(process(&vm, "owner_pid"), machine.child.id());
    assert_eq!(process(&vm, "worker_pid"), sandbox.worker());
    let table = sandbox.run(&["ps"]).out();
    assert!(table.lines().nth(1).unwrap().contains("first"), "{table}");
    assert_eq!(machine.finish().code(), 0);
    assert!(listed(&sandbox).is_empty());
}

#[test]
fn commands_in_running_machines_behave_as_in_run() {
    let sandbox = Sandbox::new();
    let machine = Machine::start(&sandbox, "host");
    let shell = |options: &[&str], script: &str| run(exec(&sandbox, options, "host", script));

    let out = shell(&[], "echo out; echo err >&2; exit 7");
    assert_eq!(
        (out.code(), out.out(), out.err()),
        (7, "out\n".into(), "err\n".into())
    );
    let options = ["--env", "A=b c", "--workdir", "/tmp", "--user", "12:34"];
    let out = shell(&options, "echo \"$A\" $PWD $(id -u) $(id -g)");
    assert_eq!(out.out(), "b c /tmp 12 34\n", "{}", out.err());
    assert_eq!(shell(&[], "kill -9 $$").code(), 137);
    assert_eq!(sandbox.run(&["exec", "host", "--", "/no/such"]).code(), 127);
    assert_eq!(sandbox.run(&["exec", "host", "--", "/etc"]).code(), 126);
    // The same machine all the while.
    shell(&[], "echo kept > /tmp/file");
    assert_eq!(shell(&[], "cat /tmp/file").out(), "kept\n");

    let input = noise(5 << 20, 7);
    let child = exec(&sandbox, &["-i"], "host", "sha256sum")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let expected = format!("{}  -\n", sha256_hex(&input));
    assert_eq!(finish_with_input(child, input).out(), expected);
    assert_eq!(shell(&["-t"], "test -t 1 && echo tty").out(), "tty\r\n");
    assert_eq!(machine.finish().code(), 0);
}

#[test]
fn signals_go_to_the_command_and_the_machine_runs_on() {
    let sandbox = Sandbox::new();
    let machine = Machine::start(&sandbox, "host");
    let trap = "trap 'echo caught; exit 9' TERM; echo up; while :; do sleep 0.1; done";
    let mut child = exec(&sandbox, &[], "host", trap).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    signal(child.id(), Signal::TERM);
    let out = finish(child, PATIENCE);
    assert_eq!((out.code(), out.out()), (9, "caught\n".into()));

    // Its command goes with a client that is killed, and nothing else.
    let mut child = exec(&sandbox, &[], "host", "echo up; exec sleep 4321")
        .spawn()
        .unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = Instant::now();
    let still = "ps | grep -q '[s]leep 4321'";
    while run(exec(&sandbox, &[], "host", still)).code() == 0 {
        assert!(
            begun.elapsed() < PATIENCE,
            "the command outlived its client"
        );
    }
    assert_eq!(machine.finish().code(), 0);
}

#[test]
fn machines_answer_to_name_id_and_the_start_of_an_id() {
    let sandbox = Sandbox::new();
    let machines = [
        Machine::start(&sandbox, "one"),
        Machine::start(&sandbox, "two"),
    ];
    let ids: Vec<String> = listed(&sandbox).iter().map(|vm| word(vm, "id")).collect();
    for wanted in [&ids[0][..], &ids[1][..ids[1].len() - 1]] {
        let out = run(exec(&sandbox, &[], wanted, "echo here"));
        assert_eq!(out.out(), "here\n", "{wanted}: {}", out.err());
    }
    assert_eq!(run(exec(&sandbox, &[], "two", "hostname")).code(), 0);
    // As much as both ids have in common.
    let common = ids[0]
        .bytes()
        .zip(ids[1].bytes())
        .take_while(|(a, b)| a == b);
    let common = &ids[0][..common.count()];
    if !common.is_empty() {
        let two = ["2 running machines", common];
        run(exec(&sandbox, &[], common, "true")).assert_refused(125, &two);
        sandbox.run(&["stop", common]).assert_refused(125, &two);
    }
    // A name is one machine's.
    let again = sandbox.run_shell(&["--no-snapshot", "--name", "one"], "true");
    again.assert_refused(125, &["is called `one` already"]);
    for unknown in ["other", ""] {
        let words = ["no running machine is called", unknown];
        sandbox
            .run(&["exec", unknown, "--", "true"])
            .assert_refused(125, &words);
        // The one that is there is not ended either.
        sandbox
            .run(&["stop", &ids[0], unknown])
            .assert_refused(125, &words);
    }
    assert_eq!(listed(&sandbox).len(), 2);
    assert_eq!(machines.map(|machine| machine.finish().code()), [0, 0]);
}

#[test]
fn stopped_machines_turn_themselves_off() {
    let sandbox = Sandbox::new();
    let machine = Machine::start(&sandbox, "one");
    let vm = only(&sandbox);
    let begun = Instant::now();
    let stop = sandbox.run(&["stop", "--time", "100", "one"]);
    assert_eq!(
        (stop.code(), stop.out()),
        (0, format!("{}\n", word(&vm, "id")))
    );
    assert!(
        begun.elapsed() < Duration::from_secs(50),
        "it was waited for"
    );
    let ended = machine.finish();
    assert_eq!(ended.code(), 125);
    assert!(
        ended.err().contains("the machine has ended"),
        "{}",
        ended.err()
    );
}

#[test]
fn machines_that_hang_are_ended_by_force() {
    let sandbox = Sandbox::new();
    for grace in ["0", "1"] {
        let machine = Machine::start(&sandbox, "stuck");
        signal(sandbox.worker(), Signal::STOP);
        let begun = Instant::now();
        let stop = sandbox.run(&["stop", "--time", grace, "stuck"]);
        assert_eq!(stop.code(), 0, "{}", stop.err());
        assert!(begun.elapsed() < FORCED_WITHIN, "{:?}", begun.elapsed());
        assert!(listed(&sandbox).is_empty());
        assert_eq!(machine.finish().code(), 125);
    }
}

#[test]
fn number_that_means_another_process_by_now_ends_nobody() {
    let sandbox = Sandbox::new();
    let machine = Machine::start(&sandbox, "one");
    let vm = only(&sandbox);
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    let worker = process(&vm, "worker_pid");
    let file = directory(&sandbox, &vm).join("vm.json");
    let text = fs::read_to_string(&file).unwrap();
    let changed = text.replace(
        &format!("\"worker_pid\":{worker}"),
        &format!("\"worker_pid\":{}", bystander.id()),
    );
    assert_ne!(changed, text);
    fs::write(&file, changed).unwrap();
    let stop = sandbox.run(&["stop", "--time", "0", "one"]);
    assert_eq!(stop.code(), 0, "{}", stop.err());
    assert!(
        bystander.try_wait().unwrap().is_none(),
        "the wrong process was ended"
    );
    assert_eq!(machine.finish().code(), 125);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn machine_whose_worker_died_is_none_even_if_its_owner_has_not_noticed() {
    let sandbox = Sandbox::new();
    let machine = Machine::start(&sandbox, "one");
    let vm = only(&sandbox);
    signal(machine.child.id(), Signal::STOP);
    signal(process(&vm, "worker_pid"), Signal::KILL);
    let begun = Instant::now();
    while !listed(&sandbox).is_empty() {
        assert!(begun.elapsed() < GONE_WITHIN, "a dead machine is listed");
    }
    sandbox
        .run(&["stop", "one"])
        .assert_refused(125, &["no running machine"]);
    signal(machine.child.id(), Signal::CONT);
    assert_eq!(machine.finish().code(), 125);
}

#[test]
fn foreign_content_in_runtime_directories_is_left_out() {
    let sandbox = Sandbox::new();
    let machine = Machine::start(&sandbox, "one");
    let dir = directory(&sandbox, &only(&sandbox));
    let (file, kept) = (dir.join("vm.json"), dir.join("kept"));
    fs::rename(&file, &kept).unwrap();
    let good = fs::read_to_string(&kept).unwrap();
    let bad = [
        String::new(),
        "{".into(),
        "[".repeat(100_000),
        good.replace("\"vcpus\":1", "\"vcpus\":-1"),
        good.replacen('{', "{\"more\":0,", 1),
        format!("{good}{}", " ".repeat(2 << 20)) + "x",
    ];
    for text in bad {
        fs::write(&file, text).unwrap();
        assert!(listed(&sandbox).is_empty());
        fs::remove_file(&file).unwrap();
    }
    let pipe = Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(pipe.success());
    assert!(listed(&sandbox).is_empty());
    fs::remove_file(&file).unwrap();
    symlink(&kept, &file).unwrap();
    assert!(listed(&sandbox).is_empty());
    fs::remove_file(&file).unwrap();
    fs::rename(&kept, &file).unwrap();
    assert_eq!(only(&sandbox)["name"], "one");
    // Others may have put the content of an open directory there.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(listed(&sandbox).is_empty());
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    // Nor is a machine there twice because of a link.
    let link = dir.parent().unwrap().join("supermachine-1-1");
    symlink(&dir, &link).unwrap();
    assert_eq!(listed(&sandbox).len(), 1);
    fs::remove_file(&link).unwrap();
    assert_eq!(machine.finish().code(), 0);
}

#[test]
fn output_that_nobody_reads_ends_a_listing_quietly() {
    let sandbox = Sandbox::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = sandbox.command(&["ps"]).stdout(writer).spawn().unwrap();
    let out = finish(child, PATIENCE);
    assert_eq!((out.code(), out.err()), (141, String::new()));
}
