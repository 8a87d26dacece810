//! What a worker has of the process that started it: nothing it does not need.

mod support;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use supermachine::Vm;
use support::shelf::*;
use support::*;

#[cfg(target_os = "linux")]
#[test]
fn worker_has_neither_open_files_nor_secrets_of_its_embedder() {
    let _alone = alone();
    // As a library does that knows nothing of close-on-exec.
    let secret = fs::File::open("/etc/passwd").unwrap();
    fcntl_setfd(&secret, FdFlags::empty()).unwrap();
    let vm = Vm::start(&library_image(), &library_config()).unwrap();
    let proc = format!("/proc/{}", worker_of(&vm));
    let open: Vec<_> = fs::read_dir(format!("{proc}/fd"))
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .collect();
    assert!(
        !open.iter().any(|file| file.ends_with("passwd")),
        "{open:?}"
    );
    let environment = fs::read(format!("{proc}/environ")).unwrap();
    let names: Vec<_> = environment
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            String::from_utf8_lossy(entry.split(|b| *b == b'=').next().unwrap()).into_owned()
        })
        .collect();
    // Cargo gives tests plenty.
    assert!(std::env::vars_os().any(|(name, _)| name == "CARGO_PKG_NAME"));
    for name in &names {
        assert!(!name.starts_with("CARGO") && name != "HOME", "{names:?}");
    }
}

/// What the descriptors of a process are of, by kind.
#[cfg(target_os = "linux")]
fn open_files(process: u32, kind: &str) -> BTreeSet<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    descriptors
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter(|file| file.to_string_lossy().contains(kind))
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn forked_workers_have_their_disks_and_no_connection_of_another() {
    let _alone = alone();
    let parent = Vm::start(&library_image(), &library_config()).unwrap();
    let children = parent.fork(3).unwrap();
    let workers: Vec<u32> = children.iter().chain([&parent]).map(worker_of).collect();
    let disks = open_files(workers[0], ".squashfs");
    assert!(!disks.is_empty());
    for (n, worker) in workers.iter().enumerate() {
        assert_eq!(open_files(*worker, ".squashfs"), disks, "{n}");
        let own = open_files(*worker, "socket:");
        assert!(!own.is_empty(), "{n}");
        for other in &workers[n + 1..] {
            let shared: Vec<_> = open_files(*other, "socket:")
                .intersection(&own)
                .cloned()
                .collect();
            assert!(shared.is_empty(), "{n}: {shared:?}");
        }
    }
}

#[test]
fn dropping_a_machine_that_hangs_takes_no_second() {
    let _alone = alone();
    let before = left_behind();
    let vm = Vm::start(&library_image(), &library_config()).unwrap();
    signal(worker_of(&vm), Signal::STOP);
    let begun = Instant::now();
    drop(vm);
    let took = begun.elapsed();
    // Half a second is the promise, 15 s is what its worker has to end by itself;
    // the rest is for a host that is busy.
    assert!(took < Duration::from_secs(8), "{took:?}");
    while left_behind() != before && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(left_behind(), before);
}
