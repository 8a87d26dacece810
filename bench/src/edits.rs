//! How long it takes until a program in an idle guest hears, by inotify, of a file that the
//! host has written.
//!
//! The guest answers by making a file, which the host looks for: the time has that in it.

use crate::context::run;
use crate::metric::Samples;
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use supermachine::Vm;

pub const NAME: &str = "host_edit_heard";
/// Most that the median may be.
pub const MUST_MS: f64 = 100.0;
const EDITS: usize = 50;
/// Between two edits, in which the machine has nothing to do.
const REST: Duration = Duration::from_millis(150);
/// How often the host looks for the answer.
const LOOK: Duration = Duration::from_micros(200);
/// Longest wait for one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures it in a directory of what the guest has at `place`.
pub fn measure(vm: &Vm, shared: &Path, place: &str) -> Result<Samples> {
    let dir = shared.join("edited");
    fs::create_dir_all(dir.join("answers"))?;
    thread::scope(|scope| {
        let guest =
            scope.spawn(|| run(vm, &format!("/bench/fsload answer {place}/edited {EDITS}")));
        let mut samples = Samples::default();
        wait_for(&dir, "ready")?;
        for n in 0..EDITS {
            thread::sleep(REST);
            let name = format!("edit-{n}");
            let begun = Instant::now();
            fs::write(dir.join(&name), "edited")?;
            wait_for(&dir, &name)?;
            samples.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        match guest.join() {
            Ok(said) => said.map(|_| samples),
            Err(_) => bail!("the guest's command panicked"),
        }
    })
}

fn wait_for(dir: &Path, name: &str) -> Result<()> {
    let answer = dir.join("answers").join(name);
    let begun = Instant::now();
    while !answer.exists() {
        if begun.elapsed() > PATIENCE {
            bail!("the guest has not heard of {name}");
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
