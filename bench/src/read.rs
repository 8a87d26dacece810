//! `read`: a guest reads all files of an image, from squashfs as layers are, and from
//! ext4 on disks of the same kind.

use crate::context::{Context, SMALL};
use crate::metric::{BothSides, Bound, Metric};
use crate::qemu::initrd;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vmm_core::MachineSpec;
use vmm_core::backend::table::TableEngine;
use vmm_core::machine::{ExitReason, Machine};

const ROUNDS: usize = 5;
/// At least 0.8 times as fast.
const MUST: f64 = 1.0 / 0.8;
const PATIENCE: Duration = Duration::from_secs(300);
/// Of an ext4 file system beside its files.
const ROOM_MIB: u64 = 64;

/// PID 1: mounts each disk afresh, so that nothing of it is in memory, and reads it.
/// The first half of the disks is squashfs, the second ext4.
const INIT: &str = r#"#!/bench/busybox sh
b=/bench/busybox
$b mount -t devtmpfs dev /dev
$b mount -t sysfs sys /sys
$b mount -t proc proc /proc
set -- $($b ls /sys/block | $b grep ^vd)
half=$(($# / 2)); round=0
while [ $round -lt @ROUNDS@ ]; do
    at=0
    for disk; do
        type=squashfs; [ $at -ge $half ] && type=ext4
        $b mount -t $type -o ro /dev/$disk /root || echo "@@failed mount $disk"
        echo 3 > /proc/sys/vm/drop_caches
        echo "@@disk $type $(/bench/timeit /bench/readall /root | $b tr '\n' ' ')"
        $b umount /root || echo "@@failed umount"
        at=$((at + 1))
    done
    round=$((round + 1))
done
$b poweroff -f
"#;

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let place = context.dir.join("read");
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    let image = context.large()?;
    // One that only has directories tells nothing.
    let mut disks: Vec<PathBuf> = Vec::new();
    for layer in image.layers() {
        if fs::metadata(layer)?.len() > 1 << 20 {
            disks.push(layer.clone());
        }
    }
    for (at, layer) in disks.clone().iter().enumerate() {
        disks.push(as_ext4(layer, &place.join(at.to_string()))?);
    }
    let rounds = context.rounds.unwrap_or(ROUNDS);
    let console = boot(context, &place, &disks, rounds)?;
    fs::remove_dir_all(&place)?;
    let both = times(&console, disks.len(), rounds)?;
    let peer = Some(("ext4 on virtio-blk of this machine", &both.peer));
    let bound = Bound::Ratio(MUST);
    let metric = Metric::new("read", "all_files_cold", "ms", &both.ours, peer, bound);
    Ok(vec![metric])
}

/// What a squashfs file has, as an ext4 file system.
fn as_ext4(squashfs: &Path, to: &Path) -> Result<PathBuf> {
    let files = to.with_extension("files");
    let ext4 = to.with_extension("ext4");
    let mut unpack = Command::new("unsquashfs");
    ran(unpack
        .args(["-quiet", "-no-progress", "-dest"])
        .args([&files, squashfs]))?;
    let mib = (fs::metadata(squashfs)?.len() >> 20) + ROOM_MIB;
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-m", "0", "-d"])
        .args([&files, &ext4]);
    // Where Debian has it, which is not in every user's path.
    let path = std::env::var("PATH").unwrap_or_default();
    ran(make
        .arg(format!("{mib}M"))
        .env("PATH", format!("{path}:/usr/sbin")))?;
    fs::remove_dir_all(&files)?;
    Ok(ext4)
}

fn ran(command: &mut Command) -> Result<()> {
    let out = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    match out.status.success() {
        true => Ok(()),
        false => bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr)),
    }
}

/// What a machine with these disks writes to its console.
fn boot(context: &Context, place: &Path, disks: &[PathBuf], rounds: usize) -> Result<String> {
    let programs = &context.programs;
    let init = INIT.replace("@ROUNDS@", &rounds.to_string());
    let mut files = Vec::new();
    for name in ["busybox", "timeit", "readall"] {
        files.push((name, programs.get(name)?));
    }
    let archive = place.join("initrd.cpio");
    fs::write(&archive, initrd(init.as_bytes(), &files)?)?;
    let base = kernel::BASE_COMMAND_LINE;
    let spec = MachineSpec {
        initrd: Some(archive.into()),
        cmdline: format!("{base} console=ttyAMA0 quiet"),
        memory_bytes: (SMALL.memory_mib as u64) << 20,
        disks: disks.iter().map(|disk| disk.clone().into()).collect(),
        ..MachineSpec::new(context.kernel())
    };
    let console = Console::default();
    let shown = Some(Box::new(console.clone()) as Box<dyn Write + Send>);
    let machine = Machine::start(&TableEngine::new(softhv::api()), &spec, shown)?;
    let ended = machine.wait_timeout(PATIENCE);
    drop(machine);
    let said = console.text();
    match ended {
        Some(ExitReason::PowerOff) => Ok(said),
        ended => bail!("the machine: {ended:?}, {said}"),
    }
}

/// Milliseconds of each round, for all disks of a kind.
fn times(console: &str, disks: usize, rounds: usize) -> Result<BothSides> {
    let mut read = Vec::new();
    for line in console.lines() {
        if line.contains("@@failed") {
            bail!("in the guest: {line}");
        }
        let Some((_, rest)) = line.split_once("@@disk ") else {
            continue;
        };
        let (kind, rest) = rest.split_once(' ').context("no kind")?;
        let (content, time) = rest.split_once("@@ns ").context("no time")?;
        let ms = time.trim().parse::<f64>()? / 1e6;
        read.push((kind.to_owned(), content.to_owned(), ms));
    }
    if read.len() != disks * rounds {
        bail!(
            "{} disks were read in {rounds} rounds: {console}",
            read.len()
        );
    }
    let mut both = BothSides::default();
    for round in read.chunks(disks) {
        let (squashfs, ext4) = round.split_at(disks / 2);
        for ((_, ours, _), (_, theirs, _)) in squashfs.iter().zip(ext4) {
            if ours != theirs {
                bail!("squashfs has {ours}, ext4 {theirs}");
            }
        }
        let sum = |disks: &[(String, String, f64)]| disks.iter().map(|(_, _, ms)| ms).sum();
        both.push(Some(sum(squashfs)), Some(sum(ext4)));
    }
    Ok(both)
}

/// Keeps what a machine writes.
#[derive(Clone, Debug, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Console {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_of_a_kind_are_added_and_others_must_have_the_same() {
        let line = |kind: &str, files: u32, ns: u32| {
            format!("noise @@disk {kind} {files} files, 9 bytes @@ns {ns} \r\n")
        };
        let console = [
            line("squashfs", 1, 1_000_000),
            line("squashfs", 2, 2_000_000),
            line("ext4", 1, 3_000_000),
            line("ext4", 2, 4_000_000),
        ]
        .concat();
        let both = times(&console, 4, 1).unwrap();
        assert_eq!(both.ours.values(), [3.0]);
        assert_eq!(both.peer.values(), [7.0]);
        assert!(times(&console, 4, 2).is_err());
        assert!(times(&console.replace("ext4 2", "ext4 3"), 4, 1).is_err());
        assert!(times(&format!("{console}@@failed mount vda\n"), 4, 1).is_err());
    }
}
