//! Sends 1 GiB (or the number of MiB given) through `cat` in a guest, by
//! `supermachine run -i`, and prints what it cost in time and memory:
//!
//! ```text
//! cargo build --release -p supermachine --bins
//! cargo run --release -p supermachine --example stdin_soak -- [MIB] [IMAGE]
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const MIB: usize = 1 << 20;

/// Largest resident set so far in KiB; 0 where there is no /proc.
fn peak_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// The worker is the tool's only child.
fn worker_of(pid: u32) -> Option<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Bytes whose place in the stream can be told: a counter in each word.
fn fill(chunk: &mut [u8], number: usize) {
    for (index, word) in chunk.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(number * MIB / 8 + index).to_le_bytes());
    }
}

fn copy(child: &mut Child, mib: usize) -> Result<(), Box<dyn Error>> {
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let mut stdout = child.stdout.take().ok_or("no stdout")?;
    let feeder = std::thread::spawn(move || -> std::io::Result<()> {
        let mut chunk = vec![0; MIB];
        for number in 0..mib {
            fill(&mut chunk, number);
            stdin.write_all(&chunk)?;
        }
        Ok(())
    });
    let (mut expected, mut chunk) = (vec![0; MIB], vec![0; MIB]);
    let mut peaks = (0, 0);
    for number in 0..mib {
        stdout.read_exact(&mut chunk)?;
        fill(&mut expected, number);
        if chunk != expected {
            return Err(format!("the copy differs in MiB {number}").into());
        }
        let worker = worker_of(child.id()).map_or(0, peak_kib);
        peaks = (peak_kib(child.id()), worker);
        if number == 0 || number + 1 == mib {
            println!(
                "after {:>4} MiB: tool {} KiB, worker {} KiB",
                number + 1,
                peaks.0,
                peaks.1
            );
        }
    }
    feeder.join().map_err(|_| "the feeder panicked")??;
    // Guest memory is part of the worker's.
    if peaks.0 > 64 << 10 || peaks.1 > (128 + 64) << 10 {
        return Err("memory is not bounded".into());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mib = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let image = arguments.next();
    let image = image.as_deref().unwrap_or("oci:target/demo/busybox");
    let own = std::env::current_exe()?;
    let tool = own
        .parent()
        .and_then(|dir| dir.parent())
        .ok_or("no target directory")?;
    let mut child = Command::new(tool.join("supermachine"))
        .args(["run", "-i", "--memory", "128", image, "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let begun = Instant::now();
    let result = copy(&mut child, mib);
    if result.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    result?;
    if !status.success() {
        return Err(format!("supermachine: {status}").into());
    }
    let seconds = begun.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = mib as f64 / seconds;
    println!("{mib} MiB in {seconds:.1} s, {rate:.0} MiB/s");
    Ok(())
}
