//! Commands through the agent's connection loop, over a socket pair.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use exec_proto::client::Event;
use exec_proto::{
    Deframer, Direction, ErrorKind, ExecFlags, ExecRequest, ExitStatus, HEADER_BYTES, Kind, WinSize,
};
use support::{Client, agent_with_groups, plain_agent, run, scratch, sh, with_stdin};

/// True while a process exists and is not a zombie.
fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
        state != Some(b'Z')
    })
}

fn wait_until_dead(pid: i32) -> bool {
    for _ in 0..200 {
        if !is_alive(pid) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn output_streams_stay_apart_and_exact() {
    let ran = run(
        &plain_agent(),
        &sh(r"printf 'a\0\377b'; printf err >&2; exit 7"),
    );
    assert_eq!(ran.stdout, b"a\0\xffb");
    assert_eq!(ran.stderr, b"err");
    let exited = ran.exited.unwrap();
    assert_eq!(exited.status, ExitStatus::Code(7));
    assert!(exited.duration_ns > 0 && exited.peak_rss_kib > 0 && !exited.timed_out);
}

#[test]
fn connection_serves_one_command_after_the_other() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    for round in 0..5 {
        let ran = client.run(&sh(&format!("echo {round}")));
        assert_eq!(ran.text(), format!("{round}\n"));
    }
    client.hang_up();
}

/// Programs that cannot be executed, the status they give and why.
fn unexecutable(dir: &Path) -> Vec<(Vec<u8>, u8, &'static str)> {
    use std::os::unix::fs::PermissionsExt;
    let path = |name: &str| dir.join(name).to_str().unwrap().as_bytes().to_vec();
    std::fs::write(dir.join("data"), "no program").unwrap();
    std::fs::write(dir.join("script"), "echo no interpreter line\n").unwrap();
    std::fs::write(dir.join("orphan"), "#!/no/such/interpreter\n").unwrap();
    for name in ["script", "orphan"] {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.join(name), mode).unwrap();
    }
    vec![
        (b"no-such-program".to_vec(), 127, "not found in PATH"),
        (b"/no/such/program".to_vec(), 127, "no such program"),
        (b"".to_vec(), 127, "not found"),
        (path("orphan"), 127, "its interpreter is missing"),
        (path("data"), 126, "denied"),
        (path("script"), 126, "exec format error"),
        (path("."), 126, "denied"),
    ]
}

#[test]
fn program_that_cannot_be_executed_has_a_status_first_or_chained() {
    let dir = scratch("noexec");
    let mut client = Client::new(&plain_agent());
    for (program, status, why) in unexecutable(&dir) {
        let shown = String::from_utf8(program.clone()).unwrap();
        let mut first = ExecRequest::new([program.clone()]);
        first.chain = vec![vec![b"echo".to_vec(), b"never".to_vec()]];
        let mut chained = sh("echo one");
        chained.chain = vec![vec![program], vec![b"echo".to_vec(), b"never".to_vec()]];
        for (request, step, output) in [(first, 0, ""), (chained, 1, "one\n")] {
            // One connection serves all of them: none is an error.
            let ran = client.run(&request);
            let exited = ran.exited.unwrap();
            let found = (ran.text(), ran.code(), exited.step, exited.executed);
            assert_eq!(found, (output, status, step, false), "{shown}");
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(said.starts_with(&shown) && said.contains(why), "{said}");
        }
    }
    let ran = client.run(&sh("exit 127"));
    assert!(ran.exited.unwrap().executed && ran.stderr.is_empty());
    client.hang_up();

    let ran = run(&plain_agent(), &tty(ExecRequest::new(["no-such-program"])));
    assert_eq!(ran.text(), "no-such-program: not found in PATH\r\n");
    assert_eq!(ran.code(), 127);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn environment_directory_and_user_apply() {
    let mut request = sh("echo $A; pwd; id -u; id -g; echo $HOME");
    request.env.push(b"A=b c".to_vec());
    request.cwd = b"/usr".to_vec();
    let ran = run(&plain_agent(), &request);
    let id = |flag: &str| {
        let out = std::process::Command::new("id").arg(flag).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let expected = format!("b c\n/usr\n{}{}/root\n", id("-u"), id("-g"));
    assert_eq!(ran.text(), expected);

    request.cwd = b"/no/such/dir".to_vec();
    let failure = run(&plain_agent(), &request).failure.unwrap();
    assert_eq!(failure.kind, ErrorKind::NoSuchCwd);
    request.cwd = Vec::new();
    request.user = b"no-such-user-here".to_vec();
    let failure = run(&plain_agent(), &request).failure.unwrap();
    assert_eq!(failure.kind, ErrorKind::UnknownUser);
}

#[test]
fn command_runs_as_the_named_user_where_that_is_allowed() {
    let mut request = sh("id -u; id -g; id -G");
    request.user = b"65534:65533".to_vec();
    let ran = run(&plain_agent(), &request);
    match ran.failure {
        None => assert_eq!(ran.text(), "65534\n65533\n65533\n"),
        // Without privileges the change is refused, and nothing ran.
        Some(failure) => {
            assert_eq!(failure.kind, ErrorKind::NotPermitted);
            assert!(ran.stdout.is_empty());
        }
    }
}

#[test]
fn missing_directory_is_created_on_request() {
    let dir = scratch("cwd");
    let deep = dir.join("a/b");
    let mut request = sh("pwd");
    request.cwd = deep.to_str().unwrap().into();
    request.flags.create_cwd = true;
    assert_eq!(
        run(&plain_agent(), &request).text().trim_end(),
        deep.to_str().unwrap()
    );
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn signal_reaches_the_process_group() {
    let mut client = Client::new(&plain_agent());
    client
        .session
        .exec(&sh(
            "trap 'echo got; exit 3' TERM; echo ready; sleep 100 & wait",
        ))
        .unwrap();
    client.wait_for_output("ready");
    client.session.signal(15).unwrap();
    let ran = client.finish();
    assert_eq!((ran.text(), ran.code()), ("got\n", 3));
    client.hang_up();

    let mut client = Client::new(&plain_agent());
    client
        .session
        .exec(&sh("echo ready; exec sleep 100"))
        .unwrap();
    client.wait_for_output("ready");
    client.session.signal(9).unwrap();
    assert_eq!(
        client.finish().exited.unwrap().status,
        ExitStatus::Signal(9)
    );
    client.hang_up();
}

#[test]
fn a_kill_reaches_what_left_the_process_group() {
    let mut client = Client::new(&plain_agent());
    client
        .session
        .exec(&sh("setsid sleep 1000 & echo $!; wait"))
        .unwrap();
    let child: i32 = client.wait_for_output("\n").trim().parse().unwrap();
    client.session.signal(9).unwrap();
    assert_eq!(client.finish().code(), 128 + 9);
    assert!(wait_until_dead(child));
    client.hang_up();
}

#[test]
fn command_starts_with_default_signals() {
    let mask = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let ran = run(&plain_agent(), &sh("cat /proc/self/status"));
    // What the test's own parent ignores stays ignored; what Rust does must not.
    let pipe = 1 << (libc::SIGPIPE - 1);
    assert_eq!(mask(&own, "SigIgn") & pipe, pipe);
    assert_eq!(mask(ran.text(), "SigIgn"), mask(&own, "SigIgn") & !pipe);
    assert_eq!(mask(ran.text(), "SigBlk"), 0);
}

/// Descriptors above 2 that the test's own parent left open for its children.
fn inherited() -> usize {
    let is_inherited = |entry: std::fs::DirEntry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let info = std::fs::read_to_string(entry.path()).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
        (number > 2 && flags & libc::O_CLOEXEC == 0).then_some(())
    };
    let entries = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    entries.flatten().filter_map(is_inherited).count()
}

#[test]
fn command_inherits_no_descriptor_but_its_three() {
    let ran = run(&plain_agent(), &with_stdin(sh("ls /proc/self/fd | wc -l")));
    // The fourth is ls reading the directory.
    assert_eq!(ran.text().trim(), (inherited() + 4).to_string());
}

const ORPHANS: &str = "setsid sh -c 'echo $$; exec sleep 1000' & sh -c '(setsid sleep 1000 & echo $!)'; \
                       sleep 0.1; echo ready; sleep 1000";

fn pids(text: &str) -> Vec<i32> {
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn timeout_kills_grandchildren_in_sessions_of_their_own() {
    for agent in [Some(plain_agent()), agent_with_groups()]
        .into_iter()
        .flatten()
    {
        let mut request = sh("setsid sh -c 'echo $$; exec sleep 1000' & echo $!; sleep 1000");
        request.timeout_ms = 400;
        let begin = Instant::now();
        let ran = run(&agent, &request);
        assert!(begin.elapsed() < Duration::from_secs(10));
        let exited = ran.exited.unwrap();
        assert!(exited.timed_out);
        assert_eq!(exited.status, ExitStatus::Signal(9));
        let pids = pids(ran.text());
        assert!(!pids.is_empty());
        for pid in pids {
            assert!(wait_until_dead(pid), "{pid} survived");
        }
    }
}

#[test]
fn control_group_reaches_double_forked_daemons() {
    let Some(agent) = agent_with_groups() else {
        eprintln!("no writable cgroup2 here: only the weaker tree kill is tested");
        return;
    };
    let mut request = sh(ORPHANS);
    request.timeout_ms = 600;
    let ran = run(&agent, &request);
    assert!(ran.exited.unwrap().timed_out);
    let pids = pids(ran.text());
    assert_eq!(pids.len(), 2, "{}", ran.text());
    for pid in pids {
        assert!(!is_alive(pid), "{pid} survived its own answer");
    }
}

#[test]
fn hanging_up_kills_the_command() {
    for agent in [Some(plain_agent()), agent_with_groups()]
        .into_iter()
        .flatten()
    {
        let mut client = Client::new(&agent);
        client
            .session
            .exec(&sh("setsid sleep 1000 & echo $!; echo ready; sleep 1000"))
            .unwrap();
        let pid = pids(&client.wait_for_output("ready"))[0];
        assert!(is_alive(pid));
        client.hang_up();
        assert!(wait_until_dead(pid));
    }
}

#[test]
fn background_process_does_not_delay_the_answer_and_lives_on() {
    let begin = Instant::now();
    let agent = agent_with_groups().unwrap_or_else(plain_agent);
    let ran = run(&agent, &sh("sleep 20 & echo $!; echo done"));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(ran.text().ends_with("done\n"));
    let pid = pids(ran.text())[0];
    assert!(is_alive(pid));
    init_shim::sys::kill_process(pid, 9);
}

#[test]
fn all_output_written_before_the_end_arrives() {
    let ran = run(
        &plain_agent(),
        &sh("sleep 1000 & head -c 60000 /dev/zero; kill $!"),
    );
    assert_eq!(ran.stdout.len(), 60_000);
    let ran = run(
        &plain_agent(),
        &sh("head -c 10000000 /dev/zero; echo end >&2"),
    );
    assert_eq!(
        (ran.stdout.len(), ran.stderr.as_slice()),
        (10_000_000, &b"end\n"[..])
    );
}

/// A packet of vsock has 64 KiB at most. A frame that is a little longer is two, of
/// which the second costs as much as the first.
#[test]
fn a_frame_of_a_file_or_of_output_fits_a_packet() {
    use std::io::{Read, Write};
    let dir = scratch("frames");
    let file = dir.join("file");
    std::fs::write(&file, vec![1; 300_000]).unwrap();
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let session = &mut client.session;
    session
        .read_file(file.to_str().unwrap().as_bytes())
        .unwrap();
    session.exec(&sh("head -c 1000000 /dev/zero")).unwrap();
    client.stream.write_all(session.outgoing()).unwrap();
    let mut frames = Deframer::new(Direction::ToClient);
    let (mut of_file, mut of_output, mut over) = (0, 0, false);
    while !over {
        let mut buffer = [0; 16384];
        let count = client.stream.read(&mut buffer).unwrap();
        frames.feed(&buffer[..count]);
        while let Some((kind, payload)) = frames.next_frame().unwrap() {
            assert!(payload.len() + HEADER_BYTES <= 64 << 10, "{kind:?}");
            match kind {
                Kind::FileData => of_file += payload.len() - 1,
                Kind::Stdout => of_output += payload.len(),
                kind => over = kind == Kind::Exited,
            }
        }
    }
    assert_eq!((of_file, of_output), (300_000, 1_000_000));
    client.hang_up();
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn chain_runs_while_each_command_succeeds() {
    let script =
        |text: &str| -> Vec<Vec<u8>> { ["sh", "-c", text].map(|s| s.as_bytes().to_vec()).to_vec() };
    let mut request = sh("echo one");
    request.chain = vec![script("echo two"), script("exit 4"), script("echo never")];
    let ran = run(&plain_agent(), &request);
    assert_eq!(
        (ran.text(), ran.code(), ran.exited.unwrap().step),
        ("one\ntwo\n", 4, 2)
    );
}

fn tty(request: ExecRequest) -> ExecRequest {
    ExecRequest {
        flags: ExecFlags {
            tty: true,
            stdin: true,
            ..ExecFlags::default()
        },
        winsize: WinSize { cols: 90, rows: 33 },
        ..request
    }
}

#[test]
fn terminal_has_size_echo_and_control_characters() {
    let mut client = Client::new(&plain_agent());
    // The trap only notes the change: a shell may lose a signal that comes while
    // it runs the trap of another.
    let script = "stty size; trap 'changed=1' WINCH; trap 'echo int; exit 5' INT; echo ready; \
        while :; do sleep 0.05; test -z \"$changed\" || { changed=; stty size; }; done";
    client.session.exec(&tty(sh(script))).unwrap();
    assert!(client.wait_for_output("ready").contains("33 90"));
    client.session.resize(WinSize {
        cols: 100,
        rows: 40,
    });
    client.wait_for_output("40 100");
    client.session.write_stdin(b"\x03");
    let ran = client.finish();
    assert!(ran.text().contains("int"), "{}", ran.text());
    assert_eq!(ran.code(), 5);
    client.hang_up();
}

#[test]
fn terminal_echoes_input_and_ends_at_end_of_input() {
    let mut client = Client::new(&plain_agent());
    client.session.exec(&tty(sh("echo ready; cat"))).unwrap();
    client.wait_for_output("ready");
    client.session.write_stdin(b"hello\n");
    client.session.close_stdin();
    let ran = client.finish();
    // Once from the terminal's echo and once from cat.
    assert_eq!(ran.text().matches("hello").count(), 2, "{}", ran.text());
    assert_eq!(ran.code(), 0);
    client.hang_up();
}

#[test]
fn terminal_whose_input_has_ended_ends_for_each_reader() {
    let mut client = Client::new(&plain_agent());
    // A shell of its own reads its commands from the terminal, and so does cat.
    let mut request = tty(sh("echo ready; sh; cat; cat; echo between"));
    request.chain = vec![["cat"].map(|word| word.as_bytes().to_vec()).to_vec()];
    client.session.exec(&request).unwrap();
    client.wait_for_output("ready");
    client.session.write_stdin(b"cat\nhello\n");
    client.session.close_stdin();
    let ran = client.finish();
    assert!(ran.text().contains("between"), "{}", ran.text());
    assert!(ran.text().matches("hello").count() >= 2, "{}", ran.text());
    assert_eq!((ran.code(), ran.exited.unwrap().step), (0, 1));
    client.hang_up();
}

#[test]
fn terminal_output_is_complete_at_exit() {
    for _ in 0..10 {
        let ran = run(&plain_agent(), &tty(sh("seq 1 2000")));
        assert!(ran.text().ends_with("\r\n2000\r\n"));
        assert_eq!(ran.text().lines().count(), 2000);
    }
}

#[test]
fn command_may_turn_its_back_on_its_terminal() {
    let dir = scratch("tty");
    let mark = dir.join("mark");
    let script = format!(
        "exec </dev/null >/dev/null 2>&1; sleep 0.3; touch {}; exit 6",
        mark.display()
    );
    assert_eq!(run(&plain_agent(), &tty(sh(&script))).code(), 6);
    assert!(mark.exists());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn no_stdin_means_an_empty_one() {
    assert_eq!(run(&plain_agent(), &sh("cat; echo end")).text(), "end\n");
}

#[test]
fn command_that_closes_stdin_lets_the_host_know() {
    let mut client = Client::new(&plain_agent());
    client
        .session
        .exec(&with_stdin(sh("echo go; sleep 0.2; exec 0<&-; sleep 0.5")))
        .unwrap();
    client.wait_for_output("go");
    assert_eq!(client.event(), Some(Event::StdinClosed));
    assert_eq!(client.session.write_stdin(&[0; 1 << 20]), 1 << 20);
    assert_eq!(client.finish().code(), 0);
    client.hang_up();
}
