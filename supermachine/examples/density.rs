//! Prints what idle machines of a pool cost in memory (Linux).
//!
//! `cargo run --release -p supermachine --example density -- oci:DIR [MACHINES [SECONDS]]`

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use supermachine::Image;

fn main() -> Result<(), supermachine::Error> {
    let mut arguments = std::env::args().skip(1);
    let reference = arguments.next().unwrap_or_default();
    let machines = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(10);
    let settling = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(4);
    let image = Image::builder(reference).build()?;
    let pool = image
        .pool()
        .min(machines)
        .max(machines)
        .prestart(0)
        .build()?;
    while pool.stats().idle < machines {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(settling));
    let own = std::process::id().to_string();
    let mut total = 0;
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if !status.lines().any(|line| line == format!("PPid:\t{own}")) {
            continue;
        }
        let maps = std::fs::read_to_string(entry.path().join("smaps")).unwrap_or_default();
        let mut by_name: BTreeMap<String, u64> = BTreeMap::new();
        let mut name = String::new();
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if first.contains('-') && !first.ends_with(':') {
                name = line
                    .split_whitespace()
                    .nth(5)
                    .unwrap_or("anonymous")
                    .to_owned();
                if name == "anonymous" {
                    name = format!("anonymous {first}");
                }
            } else if first.starts_with("Private_") {
                let kib: u64 = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
                *by_name.entry(name.clone()).or_default() += kib;
            }
        }
        let sum: u64 = by_name.values().sum();
        if sum < 6000 && total > 0 && std::env::var_os("SHOWN").is_none() {
            let mut sorted: Vec<_> = by_name.iter().filter(|(_, kib)| **kib > 8).collect();
            sorted.sort_by_key(|(_, kib)| std::cmp::Reverse(**kib));
            for (name, kib) in sorted {
                println!("{kib:6} KiB  {name}");
            }
        }
        println!("worker {:?}: {sum} KiB private", entry.file_name());
        total += sum;
    }
    println!("together {total} KiB for {machines} machines");
    // All different ones, as each is held.
    let mut held = Vec::new();
    let mut answered = Vec::new();
    for _ in 0..machines.min(20) {
        let begun = Instant::now();
        let vm = pool.acquire()?;
        vm.exec(["true"])?;
        answered.push(begun.elapsed());
        held.push(vm);
    }
    answered.sort();
    println!("idle to first reply: {answered:?}");
    Ok(())
}
