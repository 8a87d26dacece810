//! What guests of the command line tool reach.

mod support;

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::thread;
use support::*;

#[test]
fn runs_have_a_network_that_reaches_nothing_private_unless_a_file_lists_it() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let call = format!(
        "ls /sys/class/net | grep -c eth; \
         echo hi | busybox nc -w 60 host.supermachine.internal {port} 2>/dev/null \
         && echo reached || echo refused"
    );
    let log = sandbox.files.join("log");
    let run = sandbox.run_shell(&["--net-log", log.to_str().unwrap()], &call);
    assert_eq!(
        (run.code(), run.out()),
        (0, "1\nrefused\n".into()),
        "{}",
        run.err()
    );
    listener.set_nonblocking(true).unwrap();
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
    listener.set_nonblocking(false).unwrap();
    let lines = fs::read_to_string(&log).unwrap();
    let flow: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert_eq!(
        (&flow["verdict"], &flow["port"]),
        (&"deny".into(), &port.into())
    );

    // Half of a file is not taken for all of it.
    let rules = sandbox.files.join("rules.toml");
    let good = format!("default = \"deny\"\nhost_ports = [{port}]\n");
    fs::write(&rules, format!("{good}hosts = [\"example.com\"]\n")).unwrap();
    let net = ["--net", rules.to_str().unwrap()];
    let run = sandbox.run_shell(&net, &call);
    assert_eq!(run.code(), 125, "{}", run.err());
    assert!(run.err().contains("line 3"), "{}", run.err());

    fs::write(&rules, good).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = [0; 3];
        stream.read_exact(&mut said).unwrap();
        said
    });
    let run = sandbox.run_shell(&net, &call);
    assert_eq!(
        (run.code(), run.out()),
        (0, "1\nreached\n".into()),
        "{}",
        run.err()
    );
    assert_eq!(&server.join().unwrap(), b"hi\n");

    let run = sandbox.run_shell(&["--net", "off"], &call);
    assert_eq!(
        (run.code(), run.out()),
        (0, "0\nrefused\n".into()),
        "{}",
        run.err()
    );
}
