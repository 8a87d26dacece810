//! `volume`: a volume of ours beside a disk of QEMU's with the same content, one in copies
//! of the machine that has it, and making one beside mke2fs.

use crate::context::{Context, SMALL, Side, run as run_ours};
use crate::fs::counted;
use crate::metric::{BothSides, Bound, Metric, Samples};
use crate::qemu::Session;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use supermachine::{Vm, VolumeSpec, VolumeStore};

const BENCH: &str = "volume";
const ROUNDS: usize = 5;
const MAKES: usize = 15;
const NAME: &str = "bench";
/// Where the guests have it.
const PLACE: &str = "/vol";
const VOLUME_MIB: u64 = 1024;
/// The file that is read and written: the host has all of it in memory.
const FILL: &str = "/bench/busybox dd if=/dev/zero of=/vol/file bs=1M count=256 2>/dev/null && \
                    /bench/busybox sync";
/// As `fio` names them: its `psync` engine with one job and `direct=1` does the same.
const PARTS: &[(&str, &str, u32, u32)] = &[
    ("random_read_4_kib", "rr", 4 << 10, 4000),
    ("random_write_4_kib", "rw", 4 << 10, 4000),
    ("sequential_read_1_mib", "sr", 1 << 20, 256),
    ("sequential_write_1_mib", "sw", 1 << 20, 256),
];
/// Of what is made and never filled.
const NEW_MIB: u64 = 4096;
const NEW: &str = "make_4_gib";

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let place = context.dir.join("volumes");
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    let place = fs::canonicalize(&place)?;
    let mut metrics = Vec::new();
    if context.wants(NEW) {
        metrics.push(make(context, &place)?);
    }
    let any = PARTS.iter().any(|(name, ..)| context.wants(name));
    if any {
        metrics.extend(read_and_write(context, &place)?);
    }
    fs::remove_dir_all(&place)?;
    Ok(metrics)
}

/// A new volume, and the same by the distribution's tool.
fn make(context: &Context, place: &Path) -> Result<Metric> {
    /// Half of what mke2fs takes.
    const MUST: f64 = 0.5;
    let store = VolumeStore::at(place);
    let (mut ours, mut peer) = (Samples::default(), Samples::default());
    for _ in 0..context.rounds.unwrap_or(MAKES) {
        let begun = Instant::now();
        store.create(NAME, NEW_MIB)?;
        ours.push(begun.elapsed().as_secs_f64() * 1e3);
        store.remove(NAME)?;
        let path = place.join("mke2fs.img");
        let begun = Instant::now();
        File::create(&path)?.set_len(NEW_MIB << 20)?;
        mke2fs(&path)?;
        // Both are there whatever happens to the host next.
        File::open(&path)?.sync_all()?;
        peer.push(begun.elapsed().as_secs_f64() * 1e3);
        fs::remove_file(&path)?;
    }
    let peer = Some(("mke2fs of e2fsprogs into a sparse file", &peer));
    Ok(Metric::new(
        BENCH,
        NEW,
        "ms",
        &ours,
        peer,
        Bound::Ratio(MUST),
    ))
}

fn mke2fs(path: &Path) -> Result<()> {
    // Where Debian has it, which is not in every user's path.
    let searched = std::env::var("PATH").unwrap_or_default();
    let done = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4"])
        .arg(path)
        .env("PATH", format!("{searched}:/usr/sbin"))
        .output()
        .context("cannot run mke2fs")?;
    if !done.status.success() {
        bail!("mke2fs: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

fn read_and_write(context: &Context, place: &Path) -> Result<Vec<Metric>> {
    let store = VolumeStore::at(place.join("ours"));
    store.create(NAME, VOLUME_MIB)?;
    // What both are to begin with.
    let copy = place.join("peer.img");
    fs::copy(store.inspect(NAME)?.path, &copy).context("cannot copy the volume")?;
    let ours = match context.side {
        Side::Peer => None,
        _ => Some(start_ours(context, &place.join("ours"))?),
    };
    // What copies of it begin with.
    let taken = match &ours {
        Some(vm) => Some(vm.snapshot(place.join("taken"))?),
        None => None,
    };
    let copies = context.copies().with_volumes_dir(place.join("ours"));
    let mut peer = match context.side {
        Side::Ours => None,
        _ => Some(start_peer(context, &copy)?),
    };
    let name = context.qemu.name(SMALL);
    let mut metrics = Vec::new();
    for (part, how, bytes, count) in PARTS {
        if !context.wants(part) {
            continue;
        }
        let command = format!("/bench/fsload disk {PLACE}/file {how} {bytes} {count}");
        let mut values = BothSides::default();
        let mut of_copies = Samples::default();
        for _ in 0..context.rounds.unwrap_or(ROUNDS) {
            let ours = ours.as_ref().map(|vm| run_ours(vm, &command)).transpose()?;
            let peer = peer.as_mut().map(|peer| peer.run(&command)).transpose()?;
            let ours = ours.map(|said| each(&said, *count)).transpose()?;
            let peer = peer.map(|said| each(&said, *count)).transpose()?;
            eprintln!("  {part}: ours {ours:.1?}, peer {peer:.1?}");
            values.push(ours, peer);
            if let Some(taken) = &taken {
                // A new one each time: what is written was the base's before.
                let said = run_ours(&taken.start(&copies)?, &command)?;
                of_copies.push(each(&said, *count)?);
            }
        }
        let (ours, peer, bound) = match context.side {
            Side::Ours => (&values.ours, None, Bound::Part),
            Side::Peer => (&values.peer, None, Bound::Part),
            Side::Both => {
                let peer = Some((name.as_str(), &values.peer));
                (&values.ours, peer, Bound::Ratio(1.0))
            }
        };
        metrics.push(Metric::new(BENCH, *part, "µs", ours, peer, bound));
        if taken.is_some() {
            let name = format!("{part}_over_a_base");
            metrics.push(Metric::new(
                BENCH,
                name,
                "µs",
                &of_copies,
                peer,
                Bound::Part,
            ));
        }
    }
    Ok(metrics)
}

/// Microseconds of one.
fn each(said: &str, count: u32) -> Result<f64> {
    match counted(said)? {
        (done, time) if done == u64::from(count) => Ok(time * 1e3 / f64::from(count)),
        (done, _) => bail!("{done} instead of {count}"),
    }
}

fn start_ours(context: &Context, store: &Path) -> Result<Vm> {
    let volume = VolumeSpec::new(NAME, PLACE).with_size_mib(VOLUME_MIB);
    let config = context.config(SMALL).with_volume(volume);
    let vm = context.small.start(&config.with_volumes_dir(store))?;
    context.programs.install(&vm)?;
    run_ours(&vm, FILL)?;
    Ok(vm)
}

fn start_peer(context: &Context, image: &Path) -> Result<Session> {
    let drive = format!("file={},format=raw,if=none,id=volume", image.display());
    let options = [
        "-drive",
        &drive,
        "-device",
        "virtio-blk-device,drive=volume,serial=volume",
    ];
    let layers = context.small.layers();
    let mut session = context.qemu.start_with(SMALL, layers, &options)?;
    session.run(
        "/bench/busybox mkdir -p /vol && for disk in /sys/block/vd*; do \
         [ \"$(/bench/busybox cat $disk/serial)\" = volume ] && \
         /bench/busybox mount -t ext4 /dev/${disk##*/} /vol; done; \
         /bench/busybox grep -q ' /vol ext4 ' /proc/mounts",
    )?;
    session.run(FILL)?;
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_MIB: u64 = 256;

    #[test]
    fn the_file_is_as_long_as_what_is_read_in_a_row() {
        assert!(FILL.contains(&format!("count={FILE_MIB} ")));
        for (name, how, bytes, count) in PARTS {
            let in_a_row = u64::from(*bytes) * u64::from(*count);
            assert!(how.starts_with('r') || in_a_row == FILE_MIB << 20, "{name}");
        }
    }

    #[test]
    fn time_is_of_one_and_only_if_all_were_done() {
        assert_eq!(each("4 8000", 4).unwrap(), 2.0);
        assert!(each("3 8000", 4).is_err());
    }
}
