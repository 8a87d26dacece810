//! Snapshots of a test, and what their copies are asked.

use super::{GONE_WITHIN, busybox, cache, library_config};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use supermachine::{Image, OciImageBuilder, Vm};

/// Snapshots of one test, removed at its end.
pub struct Shelf(pub PathBuf);

impl Shelf {
    pub fn new(test: &str) -> Self {
        let name = format!("{test}-{}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }

    pub fn builder(&self) -> OciImageBuilder {
        Image::builder(busybox())
            .name("image")
            .vm_config(library_config())
            .layer_cache(cache().join("supermachine/images"))
            .snapshots_dir(&self.0)
    }

    pub fn bake(&self) -> Image {
        self.builder().build().unwrap()
    }

    /// Everything that is no snapshot.
    pub fn litter(&self) -> Vec<PathBuf> {
        let image = self.0.join("image");
        let entries = [self.0.clone(), image];
        let entries = entries
            .iter()
            .flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
        let paths = entries.flatten().map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "tmp"))
            .collect()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn copy(image: &Image) -> Vm {
    Vm::start(image, &library_config()).unwrap()
}

pub fn sh(vm: &Vm, script: &str) -> String {
    let out = vm
        .exec_builder()
        .argv(["sh", "-c", script])
        .timeout(Duration::from_secs(60))
        .output()
        .unwrap();
    assert!(out.success(), "{script}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}

pub fn unix_ms() -> i128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i128::try_from(since.unwrap().as_millis()).unwrap()
}

/// By how much the guest's wall clock is off.
pub fn clock_error_ms(vm: &Vm) -> i128 {
    let before = unix_ms();
    // busybox has no fraction of a second but in /proc/driver/rtc's kin.
    let guest: i128 = sh(vm, "adjtimex | awk '/tv_sec/ {s=$2} /tv_usec/ {u=$2} END {print s*1000+int(u/1000)}' 2>/dev/null || date +%s000").parse().unwrap_or_default();
    let after = unix_ms();
    if guest < before {
        before - guest
    } else {
        (guest - after).max(0)
    }
}

pub fn worker_of(vm: &Vm) -> u32 {
    let dir = vm.exec_path().parent().unwrap().to_owned();
    let all = supermachine::running::list();
    let id = dir.file_name().unwrap().to_str().unwrap().to_owned();
    let found = all
        .iter()
        .find(|running| id.ends_with(&running.id))
        .unwrap();
    found.description.worker_pid
}

/// Of two tests in one process that look for what is left behind, each would
/// see what the other one still uses.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runtime directories and workers of this process.
pub fn left_behind() -> Vec<PathBuf> {
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = base.filter(|dir| dir.is_dir());
    let ours = format!("supermachine-{}-", std::process::id());
    let entries = fs::read_dir(base.unwrap_or_else(std::env::temp_dir)).unwrap();
    let dirs = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(&ours));
        is_ours.then(|| entry.path())
    });
    let workers = workers().into_iter();
    dirs.chain(workers.map(|pid| PathBuf::from(format!("/proc/{pid}"))))
        .collect()
}

/// Waits until nothing is left but what was there `before`: a machine's end may take
/// a busy host longer than its owner waits for it.
pub fn await_end_of_others(before: &[PathBuf], left: impl Fn() -> Vec<PathBuf>) {
    let begun = Instant::now();
    let mut there = left();
    while there != before && begun.elapsed() < GONE_WITHIN {
        std::thread::sleep(Duration::from_millis(20));
        there = left();
    }
    assert_eq!(there, before);
}

/// Worker processes this process has started and that are not gone.
pub fn workers() -> Vec<u32> {
    // Without /proc there is nothing to see.
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let children = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("children")).ok()?;
        let numbers = text.split_whitespace().map(|word| word.parse().unwrap());
        Some(numbers.collect::<Vec<u32>>())
    });
    children.flatten().collect()
}
