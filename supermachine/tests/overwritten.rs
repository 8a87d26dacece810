//! Files of a snapshot that are written to under the machines that run on them:
//! those machines may fail, and nothing else.

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use supermachine::{Error, Image, Vm, VmConfig};
use support::shelf::*;
use support::*;

/// How long a copy may take to be one.
const RESTORE: Duration = Duration::from_secs(3);
/// How long the guest may take for a command that reads much memory.
const COMMAND: Duration = Duration::from_secs(5);
/// Command, ten seconds until its host gives up, and a look at the worker.
const LATEST: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug)]
enum Damage {
    Overwritten,
    Truncated,
}

impl Damage {
    fn of(self, path: &Path) {
        let mut file = fs::File::options().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        match self {
            Self::Truncated => file.set_len(0).unwrap(),
            Self::Overwritten => {
                let piece = noise(1 << 20, 7);
                for at in (0..length).step_by(piece.len()) {
                    let rest = usize::try_from(length - at).unwrap();
                    file.write_all(&piece[..piece.len().min(rest)]).unwrap();
                }
            }
        }
    }
}

fn config() -> VmConfig {
    library_config().with_restore_timeout(RESTORE)
}

/// Makes a guest use memory it has not used yet. If that fails, the error is of a kind
/// that says so.
fn use_up(vm: &Vm, what: &str) {
    let begun = Instant::now();
    let outcome = vm
        .exec_builder()
        .argv([
            "sh",
            "-c",
            "find / -xdev | md5sum; md5sum /bin/busybox; ps; mount; dmesg | tail",
        ])
        .timeout(COMMAND)
        .output();
    if let Err(error) = outcome {
        let is_told = matches!(
            error,
            Error::Ended { .. }
                | Error::Connection { .. }
                | Error::Protocol(_)
                | Error::Exec { .. }
                | Error::Timeout { .. }
                | Error::Worker { .. }
        );
        assert!(
            is_told && !error.to_string().is_empty(),
            "{what}: {error:?}"
        );
    }
    assert!(begun.elapsed() < LATEST, "{what}: {:?}", begun.elapsed());
}

#[test]
fn files_written_to_under_running_copies_end_those_copies_at_most() {
    let _alone = alone();
    // With a base of its own, which snapshots in one directory share.
    let elsewhere = Shelf::new("elsewhere");
    let other = Vm::start(&elsewhere.bake(), &config()).unwrap();
    let before = left_behind();
    for file in ["mem.bin", "base.bin"] {
        for damage in [Damage::Overwritten, Damage::Truncated] {
            let what = format!("{file} {damage:?}");
            let shelf = Shelf::new("written");
            let image = shelf.bake();
            let pool = image.pool().vm_config(config()).max(1).prestart(0);
            let pool = pool.build().unwrap();
            let victims = [0, 1].map(|_| Vm::start(&image, &config()).unwrap());
            drop(pool.acquire().unwrap());
            damage.of(&image.snapshot_path().unwrap().join(file));

            victims.iter().for_each(|vm| use_up(vm, &what));
            drop(victims);
            // A lease is reset to what is there no more.
            match pool.acquire() {
                Ok(vm) => use_up(&vm, &what),
                Err(error) => assert!(matches!(error, Error::Pool(_)), "{what}: {error:?}"),
            }
            pool.shutdown_within(Duration::ZERO);
            drop(pool);
            let again = Image::from_snapshot_with(image.snapshot_path().unwrap(), &config())
                .and_then(|image| Vm::start(&image, &config()));
            match again {
                // What it has used so far was in memory the guest does not need.
                Ok(vm) => use_up(&vm, &what),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("bake"), "{what}: {error:?}");
                }
            }
            assert_eq!(sh(&other, "echo fine"), "fine", "{what}");
            // With the machine that was baked.
            drop(image);
            let begun = Instant::now();
            while left_behind() != before && begun.elapsed() < LATEST {
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(left_behind(), before, "{what}");
        }
    }
}
