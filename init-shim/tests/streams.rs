//! Flow in both directions, many commands at once, and hostile clients.

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use exec_proto::client::Event;
use exec_proto::{ErrorKind, ExecRequest, Kind, MAX_FILE_BYTES, STDIN_WINDOW_BYTES, encode_header};
use support::{Client, agent_with_groups, plain_agent, run, scratch, sh, with_stdin};

#[test]
fn signal_and_timeout_pass_stdin_that_nobody_reads() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    client
        .session
        .exec(&with_stdin(sh("echo ready; exec sleep 1000")))
        .unwrap();
    client.wait_for_output("ready");
    let block = vec![0; STDIN_WINDOW_BYTES];
    while client.session.write_stdin(&block) > 0 {
        client.send();
    }
    client.session.signal(15).unwrap();
    assert_eq!(client.finish().code(), 128 + 15);
    client.hang_up();

    let mut client = Client::new(&agent);
    let mut request = with_stdin(ExecRequest::new(["sleep", "1000"]));
    request.timeout_ms = 300;
    client.session.exec(&request).unwrap();
    client.session.write_stdin(&block);
    assert!(client.finish().exited.unwrap().timed_out);
    client.hang_up();
}

#[test]
fn timeout_applies_to_a_command_whose_reader_stopped() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let mut request = sh("yes");
    request.timeout_ms = 300;
    client.session.exec(&request).unwrap();
    client.send();
    thread::sleep(Duration::from_millis(800));
    assert!(client.finish().exited.unwrap().timed_out);
    client.hang_up();
}

#[test]
fn many_commands_at_once_do_not_mix() {
    let agent = agent_with_groups().unwrap_or_else(plain_agent);
    let threads: Vec<_> = (0..32)
        .map(|number| {
            let agent = Arc::clone(&agent.agent);
            thread::spawn(move || {
                for round in 0..3 {
                    let script = format!("echo {number}; cat; echo {round} >&2; exit {number}");
                    let mut client = Client::new(&agent);
                    client.session.exec(&with_stdin(sh(&script))).unwrap();
                    client
                        .session
                        .write_stdin(format!("in{number}\n").as_bytes());
                    client.session.close_stdin();
                    let ran = client.finish();
                    assert_eq!(ran.text(), format!("{number}\nin{number}\n"));
                    assert_eq!(ran.stderr, format!("{round}\n").as_bytes());
                    assert_eq!(ran.code(), number);
                    client.hang_up();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn files_are_staged_read_and_written() {
    let dir = scratch("files");
    let path = |name: &str| dir.join(name).to_str().unwrap().as_bytes().to_vec();
    let big: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut client = Client::new(&plain_agent());
    client
        .session
        .stage_file(&path("deep/run.sh"), 0o755, b"#!/bin/sh\necho staged\n")
        .unwrap();
    client
        .session
        .stage_file(&path("big"), 0o600, &big)
        .unwrap();
    let program = dir.join("deep/run.sh");
    let ran = client.run(&ExecRequest::new([program.to_str().unwrap()]));
    assert_eq!(ran.text(), "staged\n");
    client.session.read_file(&path("big")).unwrap();
    assert_eq!(client.event(), Some(Event::File(big)));
    client
        .session
        .write_file(&path("w"), 0o640, b"written")
        .unwrap();
    assert_eq!(client.event(), Some(Event::FileWritten { bytes: 7 }));
    assert_eq!(std::fs::read(dir.join("w")).unwrap(), b"written");
    client.session.ping(9).unwrap();
    client.session.sync().unwrap();
    assert_eq!(client.event(), Some(Event::Pong(9)));
    assert_eq!(client.event(), Some(Event::Done));
    client.session.read_file(b"/dev/zero").unwrap();
    let Some(Event::Failed(failure)) = client.event() else {
        panic!("a device was read");
    };
    assert_eq!(failure.kind, ErrorKind::NotRegularFile);
    assert_eq!(
        client.event(),
        None,
        "connection stays open after a failure"
    );
    client.hang_up();

    std::fs::write(dir.join("huge"), vec![0; MAX_FILE_BYTES + 1]).unwrap();
    let mut client = Client::new(&plain_agent());
    client.session.read_file(&path("huge")).unwrap();
    client.event();
    assert!(matches!(client.event(), Some(Event::Failed(f)) if f.kind == ErrorKind::TooLarge));
    client.hang_up();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn nothing_runs_behind_a_failed_request() {
    let dir = scratch("order");
    let mark = dir.join("mark");
    let mut client = Client::new(&plain_agent());
    client
        .session
        .stage_file(b"/dev/null", 0o644, b"x")
        .unwrap();
    let failure = client
        .run(&sh(&format!("touch {}", mark.display())))
        .failure
        .unwrap();
    assert_eq!(failure.kind, ErrorKind::NotRegularFile);
    client.hang_up();
    assert!(!mark.exists());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn agent_that_shares_its_machine_does_not_touch_it() {
    for request in 0..3 {
        let mut client = Client::new(&plain_agent());
        match request {
            0 => client.session.set_time(0).unwrap(),
            1 => client.session.reseed(&[1; 32]).unwrap(),
            _ => client.session.shutdown().unwrap(),
        }
        client.event();
        let Some(Event::Failed(failure)) = client.event() else {
            panic!("request {request} was done");
        };
        assert_eq!(failure.kind, ErrorKind::NotPermitted);
        client.hang_up();
    }
}

/// Writes raw bytes, half-closes, and gives everything the agent says.
fn say(bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::new(&plain_agent());
    client.stream.write_all(bytes).unwrap();
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.stream.read_to_end(&mut answer).unwrap();
    answer
}

fn hello(version: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    exec_proto::Hello {
        version,
        capabilities: 0,
    }
    .encode(&mut bytes);
    bytes
}

#[test]
fn other_version_is_answered_by_name() {
    let answer = String::from_utf8_lossy(&say(&hello(9))).into_owned();
    assert!(
        answer.contains("version 9")
            && answer.contains(&format!("version {}", exec_proto::VERSION)),
        "{answer}"
    );
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let mut flood = hello(1);
    flood.extend_from_slice(&encode_header(Kind::Stdin, 100));
    flood.extend_from_slice(&[0; 100]);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 5000],
        &hello(1)[..7],
        &flood,
    ] {
        say(bytes);
    }
    let agent = plain_agent();
    assert_eq!(run(&agent, &sh("echo fine")).text(), "fine\n");
}

#[test]
fn stdin_beyond_the_window_is_refused() {
    let mut client = Client::new(&plain_agent());
    client
        .session
        .exec(&with_stdin(ExecRequest::new(["sleep", "1000"])))
        .unwrap();
    client.send();
    let mut frame = encode_header(Kind::Stdin, 65_536).to_vec();
    frame.resize(frame.len() + 65_536, 0);
    for _ in 0..STDIN_WINDOW_BYTES / 65_536 + 2 {
        // The agent may have hung up by the last one.
        let _ = client.stream.write_all(&frame);
    }
    // Past the session, which would find fault with grants it did not earn.
    let mut answer = Vec::new();
    client.stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("more stdin than the window allows"));
}

#[test]
fn input_that_ends_without_a_line_end_ends_a_terminals_reader() {
    for input in [&b""[..], b"line\n", b"line\nrest"] {
        let mut client = Client::new(&plain_agent());
        let mut request = exec_proto::ExecRequest::new(["sh", "-c", "stty -echo; echo ready; cat"]);
        request.flags.tty = true;
        request.flags.stdin = true;
        client.session.exec(&request).unwrap();
        // Else the terminal's echo could be in the output.
        loop {
            match client.event().unwrap() {
                Event::Stdout(text) if text.starts_with(b"ready") => break,
                _ => {}
            }
        }
        assert_eq!(client.session.write_stdin(input), input.len());
        client.session.close_stdin();
        let ran = client.finish();
        assert_eq!(ran.code(), 0);
        let shown = String::from_utf8_lossy(&ran.stdout).replace("\r\n", "\n");
        assert_eq!(shown.as_bytes(), input);
    }
}
