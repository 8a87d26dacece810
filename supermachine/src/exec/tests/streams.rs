//! Each stream of a spawned command ends on its own, and what is kept of one
//! that nobody reads is bounded.

use super::*;
use crate::deadline::Deadline;
use crate::exec::ExecChild;
use crate::exec::output::MAX_UNREAD_BYTES;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much later than its own limit a command's channel ends here.
const RESERVE: Duration = Duration::from_millis(500);

/// What a socket holds beside what is kept, generously.
const SOCKET_BYTES: usize = 4 << 20;

fn line(number: usize) -> [u8; 32 << 10] {
    [u8::try_from(number % 251).unwrap(); 32 << 10]
}

/// Writes so many bytes to standard error, says `out` and ends.
fn noisy(mut to: UnixStream, bytes: usize) {
    begin(&mut to);
    for number in 0..bytes.div_ceil(32 << 10) {
        if send(&mut to, &[Reply::Stderr(&line(number))]).is_err() {
            return;
        }
    }
    let _ = send(&mut to, &[Reply::Stdout(b"out"), exited()]);
}

fn assert_lines(bytes: &[u8]) {
    for (number, chunk) in bytes.chunks(32 << 10).enumerate() {
        assert!(chunk == &line(number)[..chunk.len()], "chunk {number}");
    }
}

#[test]
fn a_stream_that_nobody_reads_hides_no_end() {
    // As much as is kept, and more.
    for (bytes, max) in [
        (10 << 20, MAX_UNREAD_BYTES),
        (40 << 20, MAX_UNREAD_BYTES),
        (1 << 20, 0),
    ] {
        let (channel, agent) = channel_to(move |to| noisy(to, bytes));
        let mut child = ExecChild::new(channel, max, RESERVE).unwrap();
        let mut text = String::new();
        let mut stdout = child.stdout().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "out");
        let mut stderr = child.stderr().unwrap();
        assert!(child.stderr().is_none() && child.stdout().is_none());
        let mut rest = Vec::new();
        let result = stderr.read_to_end(&mut rest);
        assert_lines(&rest);
        if bytes <= max {
            assert_eq!(result.unwrap(), bytes);
        } else {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(&format!("more than {max} bytes")), "{error}");
            assert!(rest.len() <= max.max(32 << 10));
        }
        assert!(child.wait().unwrap().success());
        agent.join().unwrap();
    }
}

#[test]
fn an_end_that_is_waited_for_comes_past_streams_that_somebody_holds() {
    let (channel, agent) = channel_to(|to| noisy(to, 10 << 20));
    let mut child = ExecChild::new(channel, MAX_UNREAD_BYTES, RESERVE).unwrap();
    let (mut stdout, mut stderr) = (child.stdout().unwrap(), child.stderr().unwrap());
    assert!(child.wait().unwrap().success());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    stdout.read_to_end(&mut out).unwrap();
    stderr.read_to_end(&mut err).unwrap();
    assert_eq!((out.as_slice(), err.len()), (&b"out"[..], 10 << 20));
    assert_lines(&err);
    agent.join().unwrap();
}

#[test]
fn a_command_waits_for_its_readers_and_loses_nothing() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    const ALL: usize = 64 << 20;
    let (channel, agent) = channel_to(|mut to| {
        begin(&mut to);
        for number in 0..ALL / (32 << 10) {
            send(&mut to, &[Reply::Stdout(&line(number))]).unwrap();
            SENT.fetch_add(32 << 10, Ordering::SeqCst);
        }
        send(&mut to, &[exited()]).unwrap();
    });
    let mut child = ExecChild::new(channel, MAX_UNREAD_BYTES, RESERVE).unwrap();
    let settle = || {
        let mut before = SENT.load(Ordering::SeqCst);
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let now = SENT.load(Ordering::SeqCst);
            if now > 0 && now == before {
                return now;
            }
            before = now;
        }
    };
    assert!(settle() < SOCKET_BYTES, "{} bytes were taken", settle());
    // Taken, and still not read.
    let mut stdout = child.stdout().unwrap();
    assert!(settle() < SOCKET_BYTES, "{} bytes were taken", settle());
    let mut all = Vec::new();
    assert_eq!(stdout.read_to_end(&mut all).unwrap(), ALL);
    assert_lines(&all);
    assert!(child.wait().unwrap().success());
    agent.join().unwrap();
}

#[test]
fn a_time_limit_holds_with_streams_that_nobody_reads() {
    for takes in [false, true] {
        let (channel, agent) = channel_to(|mut to| {
            begin(&mut to);
            let both = [Reply::Stdout(&[1; 4096]), Reply::Stderr(&[2; 4096])];
            while send(&mut to, &both).is_ok() {}
        });
        let begun = Instant::now();
        channel.limit(Deadline::within(Duration::from_millis(300)).later_by(RESERVE));
        let mut child = ExecChild::new(channel, 1 << 20, RESERVE).unwrap();
        let held = takes.then(|| (child.stdout().unwrap(), child.stderr().unwrap()));
        assert_timeout(child.wait(), begun);
        if let Some((mut stdout, _)) = held {
            let mut kept = Vec::new();
            assert!(stdout.read_to_end(&mut kept).is_err());
            assert!(!kept.is_empty() && kept.len() <= 1 << 20);
        }
        agent.join().unwrap();
    }
}

#[test]
fn a_command_killed_at_its_limit_is_reported_past_streams_that_nobody_reads() {
    let (channel, agent) = channel_to(|to| noisy(to, 6 << 20));
    let begun = Instant::now();
    // The command's own limit is over at once; an honest guest has ended it.
    channel.limit(Deadline::within(SOON));
    let mut child = ExecChild::new(channel, MAX_UNREAD_BYTES, SOON).unwrap();
    let (_stdout, mut stderr) = (child.stdout().unwrap(), child.stderr().unwrap());
    assert!(child.wait().unwrap().success());
    assert!(begun.elapsed() < SOON);
    assert_eq!(stderr.read_to_end(&mut Vec::new()).unwrap(), 6 << 20);
    agent.join().unwrap();
}

#[test]
fn readers_of_a_command_that_was_let_go_see_an_end() {
    let (channel, agent) = channel_to(|to| noisy(to, 40 << 20));
    let mut child = ExecChild::new(channel, MAX_UNREAD_BYTES, RESERVE).unwrap();
    let (mut stdout, stderr) = (child.stdout().unwrap(), child.stderr().unwrap());
    let reader = std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    drop(child);
    assert!(reader.join().unwrap().is_ok());
    agent.join().unwrap();
    drop(stderr);
}

#[test]
fn readers_see_that_a_connection_broke() {
    let (channel, agent) = channel_to(|mut to| {
        begin(&mut to);
        send(&mut to, &[Reply::Stdout(b"some")]).unwrap();
    });
    let mut child = ExecChild::new(channel, MAX_UNREAD_BYTES, RESERVE).unwrap();
    let mut kept = Vec::new();
    assert!(child.stdout().unwrap().read_to_end(&mut kept).is_err());
    assert_eq!(kept, b"some");
    assert!(matches!(child.wait(), Err(Error::Connection { .. })));
    agent.join().unwrap();
}

#[test]
fn a_reader_that_leaves_early_holds_up_nothing() {
    let (channel, agent) = channel_to(|to| noisy(to, 40 << 20));
    let mut child = ExecChild::new(channel, MAX_UNREAD_BYTES, RESERVE).unwrap();
    let mut stderr = child.stderr().unwrap();
    stderr.read_exact(&mut [0; 100]).unwrap();
    drop(stderr);
    let mut text = String::new();
    child.stdout().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "out");
    assert!(child.wait().unwrap().success());
    agent.join().unwrap();
}
