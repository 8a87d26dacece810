//! Streams: any length, bounded memory, ends at either side.

use crate::sandbox::{Running, Sandbox, peak_kib, run_with_input, shell_arguments};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What the executable itself may need, in KiB: no part of a stream's length.
const OWN_MEMORY_KIB: u64 = 48 * 1024;
/// What a worker may need over the guest's memory, in KiB.
const WORKER_MEMORY_KIB: u64 = 160 * 1024;

/// Bytes that do not repeat soon, by xorshift64 (Marsaglia 2003).
struct Noise {
    state: u64,
    left: u64,
}

impl Noise {
    fn new(bytes: u64) -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            left: bytes,
        }
    }

    fn sha256(bytes: u64) -> Vec<u8> {
        let mut hash = Sha256::new();
        let mut noise = Self::new(bytes);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = noise.read(&mut buffer).expect("noise does not fail");
            if count == 0 {
                return hash.finalize().to_vec();
            }
            hash.update(&buffer[..count]);
        }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for byte in &mut buffer[..count] {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            *byte = self.state.to_le_bytes()[3];
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Sends `bytes` through `cat` in a guest and checks what comes back, and what
/// memory that took.
fn cat(bytes: u64) {
    const GUEST_MIB: u64 = 128;
    let sandbox = Sandbox::new();
    let memory = GUEST_MIB.to_string();
    let mut command = sandbox.command(&shell_arguments(&["-i", "--memory", &memory], "cat"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Running::start_with_stdout(command);
    let mut stdout = child.take_stdout();
    let fed = child.feed(Noise::new(bytes));
    let mut hash = Sha256::new();
    let mut total = 0;
    let mut worker_kib = 0;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = stdout.read(&mut buffer).expect("a pipe");
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        total += count as u64;
        if total % (4 * MIB) < count as u64 {
            for pid in sandbox.processes() {
                if pid != child.id() {
                    worker_kib = worker_kib.max(peak_kib(pid));
                }
            }
        }
    }
    let outcome = child.wait();
    outcome.exited(0);
    assert!(fed.join().expect("no panic"), "not all input was taken");
    assert_eq!(total, bytes);
    assert_eq!(hash.finalize().to_vec(), Noise::sha256(bytes));
    let own = child.most_memory_kib();
    assert!(own < OWN_MEMORY_KIB, "supermachine had {own} KiB resident");
    let most = GUEST_MIB * 1024 + WORKER_MEMORY_KIB;
    assert!(worker_kib > 0, "no worker was seen");
    assert!(
        worker_kib < most,
        "the worker had {worker_kib} KiB resident"
    );
    sandbox.assert_empty();
}

#[test]
fn long_streams_need_no_memory() {
    // Half as much again as the guest has memory.
    cat(192 * MIB);
}

#[test]
fn output_after_the_input_ended_still_arrives() {
    let sandbox = Sandbox::new();
    let script = "cat >/dev/null; sleep 1; seq 1 50000 | tail -n 1";
    run_with_input(&sandbox, &shell_arguments(&["-i"], script), b"x").printed("50000\n");
    sandbox.assert_empty();
}

#[test]
fn a_reader_that_stopped_holds_the_command_up_without_cost() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&shell_arguments(&["--memory", "128"], "yes"));
    command.stdout(Stdio::piped());
    let mut child = Running::start_with_stdout(command);
    let mut stdout = child.take_stdout();
    let mut some = vec![0; 1 << 20];
    stdout.read_exact(&mut some).expect("a megabyte");
    assert!(some.chunks_exact(2).all(|pair| pair == b"y\n"));
    // Nobody reads now, and the guest writes as much as it may.
    std::thread::sleep(Duration::from_secs(3));
    for pid in sandbox.processes() {
        let most = if pid == child.id() {
            OWN_MEMORY_KIB
        } else {
            128 * 1024 + WORKER_MEMORY_KIB
        };
        let peak = peak_kib(pid);
        assert!(peak < most, "process {pid} had {peak} KiB resident");
    }
    // Nobody ever will: what a shell reports of a command in a broken pipe.
    drop(stdout);
    child.wait().exited(128 + 13);
    sandbox.assert_empty();
}

#[test]
fn output_larger_than_any_buffer_is_complete() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.shell(&[], "seq 1 400000; seq 1 1000 >&2");
    outcome.exited(0);
    let expected: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    assert!(outcome.stdout == expected.as_bytes(), "output is damaged");
    assert_eq!(outcome.stderr.lines().count(), 1000);
    sandbox.assert_empty();
}
