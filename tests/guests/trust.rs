//! What a guest's users can do to the agent, which is nothing.

use exec_proto::client::Session;
use exec_proto::{ExecFlags, ExecRequest};
use std::fmt::Write;
use std::time::Duration;
use supermachine_tests::Guest;

/// More calls than the host keeps connections, in its backlog and beside it.
const CALLS: usize = 4200;

/// A request to run something as root, as the host would send it.
fn request_of_root() -> String {
    let mut session = Session::new();
    let request = ExecRequest {
        flags: ExecFlags::default(),
        ..ExecRequest::new(["touch", "/root-was-here"])
    };
    session.exec(&request).unwrap();
    session
        .outgoing()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[test]
fn users_are_neither_served_by_the_agent_nor_taken_for_it() {
    let guest = Guest::boot("python3", 1, 256);
    let source = include_str!("../programs/vsock-user.py");
    let vm = guest.vm();
    let users = vm
        .exec_builder()
        .stage_file("/tmp/user.py", source)
        .argv([
            "python3",
            "/tmp/user.py",
            &request_of_root(),
            &CALLS.to_string(),
        ])
        .user("1000:1000")
        .timeout(supermachine_tests::COMMAND_TIMEOUT);
    let mut asked = 0;
    let outcome = std::thread::scope(|scope| {
        let user = scope.spawn(move || users.output());
        // Commands go on meanwhile, and the agent answers them.
        while !user.is_finished() || asked < 10 {
            asked += 1;
            let word = format!("question {asked}");
            let answer = guest.run({
                let word = word.clone();
                move |command| command.argv(["sh", "-c", "id -u; echo \"$0\"", &word])
            });
            let answer = answer.unwrap();
            assert!(answer.success(), "{answer:?}");
            assert_eq!(answer.stdout, format!("0\n{word}\n").as_bytes());
        }
        user.join().unwrap().unwrap()
    });
    let seen = String::from_utf8_lossy(&outcome.stdout);
    assert!(outcome.success(), "{outcome:?}");
    assert_eq!(
        seen,
        "loopback closed\n\
         own id closed\n\
         from the agent's port closed\n\
         reserved ports denied\n\
         user namespace denied\n\
         calls closed\n",
    );
    assert!(vm.read_file("/root-was-here").is_err());
}

/// Prints what still runs of a command that was killed.
const SURVIVORS: &str =
    "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 5432[1]'; true";

#[test]
fn time_limit_ends_root_processes_that_try_to_leave_their_group() {
    let guest = Guest::boot("python3", 1, 256);
    let source = include_str!("../programs/escape.py");
    let outcome = guest
        .run(move |command| {
            command
                .stage_file("/tmp/escape.py", source)
                .argv(["python3", "/tmp/escape.py"])
                .timeout(Duration::from_secs(20))
        })
        .unwrap();
    assert!(outcome.timed_out, "{outcome:?}");
    assert_eq!(
        String::from_utf8_lossy(&outcome.stdout),
        "0::/\n\
         ['cgroup.procs', 'pids.max']\n\
         limit refused\n\
         refused\n\
         False\n\
         refused\n\
         False\n\
         {False} False refused\n\
         done\n\
         True\n",
        "{outcome:?}"
    );
    let left = guest.run(|command| command.argv(["bash", "-c", SURVIVORS]));
    assert_eq!(left.unwrap().stdout, b"0\n");
    // What one command mounts, the others see, in another group too; and those
    // are confined even if the way to mount their group is gone.
    let python = |source: String| {
        guest
            .run(move |command| command.argv(["python3", "-c", &source]))
            .unwrap()
            .stdout
    };
    let call = "import ctypes, os; c = ctypes.CDLL(None); os.makedirs('/tmp/m', exist_ok=True)\n";
    python(format!("{call}c.mount(b'x', b'/tmp/m', b'tmpfs', 0, None)"));
    let first = guest
        .vm()
        .exec_builder()
        .argv(["sleep", "54320"])
        .spawn()
        .unwrap();
    let seen = guest.run(|command| command.argv(["grep", "-c", " /tmp/m tmpfs", "/proc/mounts"]));
    assert_eq!(seen.unwrap().stdout, b"1\n");
    python(format!(
        "{call}[c.umount2(p, 2) for p in (b'/proc', b'/sys/fs/cgroup') * 3 + (b'/sys',)]"
    ));
    let second = guest
        .vm()
        .exec_builder()
        .argv(["sleep", "54320"])
        .spawn()
        .unwrap();
    let third = guest
        .vm()
        .exec_builder()
        .argv(["sleep", "54320"])
        .spawn()
        .unwrap();
    let group = python(format!(
        "{call}c.mount(b'x', b'/tmp/m', b'proc', 0, None); print(open('/tmp/m/self/cgroup').read())"
    ));
    assert_eq!(group, b"0::/\n\n");
    drop((first, second, third));
}

#[test]
fn time_limit_ends_a_fork_bomb_and_leaves_nothing_of_it() {
    for vcpus in [1, 2] {
        // Memory for as many processes as a command has: where that ends first, the guest
        // kills some of them, the first one perhaps.
        let guest = Guest::boot("base", vcpus, 1536);
        let limit = Duration::from_secs(5);
        let outcome = guest
            .run(move |command| {
                // Each process starts two, as long as there are any to be had.
                let bomb = "bomb() { bomb 54321 | bomb 54321 & }; bomb; wait; sleep 54321";
                command.argv(["bash", "-c", bomb]).timeout(limit)
            })
            .unwrap();
        assert!(outcome.timed_out, "{outcome:?}");
        eprintln!("{vcpus} vCPUs: {:?} guest time", outcome.duration);
        let late = outcome.duration.saturating_sub(limit);
        assert!(late < Duration::from_secs(5), "late by {late:?}");
        let left = guest.run(|command| {
            command.argv([
                "bash",
                "-c",
                "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'bomb 5432[1]'; true",
            ])
        });
        assert_eq!(left.unwrap().stdout, b"0\n");
    }
}
