//! Memory stays bounded whatever flows. In a process of its own, because other
//! tests' memory would count, too.

mod support;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use exec_proto::ExecRequest;
use exec_proto::client::Event;
use support::{Client, plain_agent, run, sh, with_stdin};

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends `total` bytes through a command and checks what comes back.
fn pump(client: &mut Client, total: usize) {
    let block: Vec<u8> = (0..=250).cycle().take(100_000).collect();
    let (mut sent, mut received) = (0, 0);
    client.stream.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 65_536];
    let begin = Instant::now();
    loop {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "stuck at {sent}/{received}"
        );
        let mut idle = true;
        if sent < total && client.session.outgoing().is_empty() {
            let from = sent % block.len();
            let to = block.len().min(from + total - sent);
            sent += client.session.write_stdin(&block[from..to]);
            if sent == total {
                client.session.close_stdin();
            }
        }
        if let Ok(count) = client.stream.write(client.session.outgoing()) {
            client.session.sent(count);
            idle &= count == 0;
        }
        if let Ok(count) = client.stream.read(&mut buffer) {
            assert!(count > 0, "agent closed");
            client.session.feed(&buffer[..count]);
            idle = false;
        }
        while let Some(event) = client.session.next_event().unwrap() {
            match event {
                Event::Stdout(data) => {
                    for byte in data {
                        assert_eq!(byte, block[received % block.len()]);
                        received += 1;
                    }
                }
                Event::Exited(_) => {
                    assert_eq!((sent, received), (total, total));
                    client.stream.set_nonblocking(false).unwrap();
                    return;
                }
                _ => {}
            }
        }
        if idle {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

#[test]
fn much_input_passes_in_bounded_memory() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    client
        .session
        .exec(&with_stdin(ExecRequest::new(["cat"])))
        .unwrap();
    let before = resident_kib();
    pump(&mut client, 64 << 20);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "grew by {grown} KiB");
    client.hang_up();
}

#[test]
fn reader_that_stops_delays_only_itself() {
    let agent = plain_agent();
    let mut stopped = Client::new(&agent);
    stopped.session.exec(&sh("yes")).unwrap();
    stopped.send();
    let before = resident_kib();
    for _ in 0..20 {
        assert_eq!(run(&agent, &sh("echo hi")).text(), "hi\n");
    }
    thread::sleep(Duration::from_millis(300));
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "grew by {grown} KiB");
    stopped.hang_up();
}
