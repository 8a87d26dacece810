//! `layer` and `layer_mem`: a layer's blob becomes a squashfs file.

use crate::archive::{Archive, Files};
use crate::context::Context;
use crate::metric::{BothSides, Bound, Metric, Samples};
use anyhow::{Context as _, Result, bail};
use oci_bake::{BakeOptions, ImageBuilder, Reference, Store, bake};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The argument that makes this program bake one image, and say what it needed.
pub const ARGUMENT: &str = "--bake-once";
const MIB: usize = 1 << 20;
/// About an image's: 20,000 files of 26 KiB.
const LAYER: Files = Files {
    count: 20_000,
    bytes: 500 * MIB / 20_000,
    seed: 11,
};
const WIDE: Files = Files {
    count: 100_000,
    bytes: 1024 * MIB / 100_000,
    seed: 12,
};
const ROUNDS: usize = 3;
/// As fast.
const MUST: f64 = 1.0;
const MUST_MIB: f64 = 128.0;

/// A gzip layer into squashfs, by the tools that would be used otherwise.
pub fn layer(context: &Context) -> Result<Vec<Metric>> {
    let layout = layout(&context.dir, "layer-500", LAYER)?;
    let blob = largest_blob(&layout)?;
    let place = context.dir.join("layer-made");
    let mut both = BothSides::default();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        reset(&place)?;
        let begun = Instant::now();
        bake_once(&layout, &place)?;
        let ours = milliseconds(begun);
        reset(&place)?;
        let begun = Instant::now();
        // Data uncompressed, as ours is, and on the disk at the end, as ours is.
        let script = "gzip -dc \"$1\" | sqfstar -quiet -no-progress -processors 2 \
             -noI -noD -noF -noX -no-fragments \"$2\" && sync \"$2\"";
        let squashfs = place.join("peer.squashfs");
        let out = Command::new("sh")
            .args(["-c", script, "sh"])
            .args([&blob, &squashfs])
            .output()
            .context("cannot run sqfstar")?;
        if !out.status.success() {
            bail!("sqfstar: {}", String::from_utf8_lossy(&out.stderr));
        }
        both.push(Some(ours), Some(milliseconds(begun)));
    }
    reset(&place)?;
    let peer = Some(("gzip -dc | sqfstar, 2 processors", &both.peer));
    let bound = Bound::Ratio(MUST);
    let metric = Metric::new("layer", "500_mib_gzip", "ms", &both.ours, peer, bound);
    Ok(vec![metric])
}

/// The most memory that a process has which bakes one large layer.
pub fn layer_mem(context: &Context) -> Result<Vec<Metric>> {
    let layout = layout(&context.dir, "layer-wide", WIDE)?;
    let place = context.dir.join("layer-made");
    reset(&place)?;
    let out = Command::new(std::env::current_exe().context("which executable is this?")?)
        .arg(ARGUMENT)
        .args([&layout, &place])
        .output()?;
    reset(&place)?;
    let said = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        bail!("the bake: {}", String::from_utf8_lossy(&out.stderr));
    }
    let mut peak = Samples::default();
    peak.push(said.trim().parse::<f64>()? / 1024.0);
    let bound = Bound::Median(MUST_MIB);
    let name = "peak_1_gib_100000_files";
    Ok(vec![Metric::new(
        "layer_mem",
        name,
        "MiB",
        &peak,
        None,
        bound,
    )])
}

/// What `ARGUMENT` does: prints the most memory it had, in KiB.
pub fn serve(layout: &Path, place: &Path) -> Result<()> {
    bake_once(layout, place)?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("the system does not tell the most memory")?;
    println!("{peak}");
    Ok(())
}

fn bake_once(layout: &Path, place: &Path) -> Result<()> {
    let reference = Reference::parse(&format!("oci:{}", layout.display()))?;
    let baked = bake(&reference, &BakeOptions::default(), &Store::open(place)?)?;
    match baked.layers.len() {
        1 => Ok(()),
        count => bail!("{count} layers"),
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// An empty directory.
fn reset(place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    Ok(fs::create_dir_all(place)?)
}

/// The layout of an image with one layer of these files, which is made once.
fn layout(dir: &Path, name: &str, files: Files) -> Result<PathBuf> {
    let made = dir.join(name);
    if !made.join("index.json").is_file() {
        eprintln!("making an image for it");
        ImageBuilder::new()
            .layer_tar(Archive::new(files))
            .write_layout(&made)?;
    }
    Ok(made)
}

/// The layer: config and manifest are small.
fn largest_blob(layout: &Path) -> Result<PathBuf> {
    let blobs = fs::read_dir(layout.join("blobs/sha256"))?;
    let sized = blobs.map(|entry| {
        let entry = entry?;
        Ok((entry.metadata()?.len(), entry.path()))
    });
    let largest = sized
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .max();
    Ok(largest.context("no blobs")?.1)
}
