//! What a guest's users can do to the agent, which is nothing.

use exec_proto::client::Session;
use exec_proto::{ExecFlags, ExecRequest};
use std::fmt::Write;
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
