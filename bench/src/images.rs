//! Images: `pull`, `hit` and `rebake`.

use crate::archive::{Archive, Files};
use crate::context::{Context, SMALL, text};
use crate::metric::{BothSides, Bound, Metric, Samples};
use crate::registry::Registry;
use anyhow::{Context as _, Result, bail};
use oci_bake::ImageBuilder;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use supermachine::Image;

/// Layers of 16 MiB.
const LAYERS: u64 = 5;
const LAYER: Files = Files {
    count: 800,
    bytes: (16 << 20) / 800,
    seed: 0,
};

/// From a registry into squashfs files, by a copy from there to a directory.
pub fn pull(context: &Context) -> Result<Vec<Metric>> {
    const ROUNDS: usize = 5;
    const MUST: f64 = 1.3;
    let layout = context.dir.join("pull-layout");
    if !layout.join("index.json").is_file() {
        let layers = (0..LAYERS).map(|seed| Archive::new(Files { seed, ..LAYER }));
        layers
            .fold(ImageBuilder::new(), ImageBuilder::layer_tar)
            .write_layout(&layout)?;
    }
    let place = context.dir.join("pull");
    let registry = Registry::start(context.registry()?, &place)?;
    let name = format!("{}/bench/layers:v1", registry.host);
    let remote = format!("docker://{name}");
    skopeo(&[&format!("oci:{}", layout.display()), &remote])?;
    let mut both = BothSides::default();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        let cache = empty(place.join("cache"))?;
        let begun = Instant::now();
        let image = Image::load_with_cache(&name, &cache)?;
        let ours = milliseconds(begun);
        if image.layers().len() as u64 != LAYERS {
            bail!("{} layers instead of {LAYERS}", image.layers().len());
        }
        let copy = empty(place.join("copy"))?;
        let begun = Instant::now();
        skopeo(&[&remote, &format!("dir:{}", copy.display())])?;
        both.push(Some(ours), Some(milliseconds(begun)));
    }
    drop(registry);
    fs::remove_dir_all(&place)?;
    let peer = Some(("skopeo copy to a directory", &both.peer));
    let bound = Bound::Ratio(MUST);
    let metric = Metric::new("pull", "5_layers_80_mib", "ms", &both.ours, peer, bound);
    Ok(vec![metric])
}

fn skopeo(from_to: &[&str]) -> Result<()> {
    let out = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy"])
        .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
        .args(from_to)
        .output()
        .context("cannot run skopeo")?;
    match out.status.success() {
        true => Ok(()),
        false => bail!("skopeo: {}", String::from_utf8_lossy(&out.stderr)),
    }
}

/// An image that is baked already: until machines of it can be had.
pub fn hit(context: &Context) -> Result<Vec<Metric>> {
    const ROUNDS: usize = 50;
    const ROUNDS_PER_PEER: usize = 10;
    const MUST: f64 = 0.01;
    let place = context.dir.join("hit");
    let registry = Registry::start(context.registry()?, &place)?;
    let name = format!("{}/bench/busybox:v1", registry.host);
    let layout = format!("oci:{}", context.small_layout().display());
    skopeo(&[&layout, &format!("docker://{name}")])?;
    let cache = empty(place.join("cache"))?;
    let build = || {
        let baker = context.baker_named(&name, "bench-hit", SMALL);
        baker.layer_cache(&cache).build()
    };
    let baked = build()?;
    // What is here needs no registry.
    drop(registry);
    let (mut hits, mut init) = (Samples::default(), Samples::default());
    for round in 0..context.rounds.unwrap_or(ROUNDS) {
        let begun = Instant::now();
        let image = build()?;
        hits.push(milliseconds(begun));
        if image.snapshot_path() != baked.snapshot_path() {
            bail!("the image was baked again");
        }
        if round % ROUNDS_PER_PEER == 0 {
            init.push(context.qemu.time_to_init(SMALL)?.as_secs_f64() * 1e3);
        }
    }
    drop(baked.start(&context.copies())?);
    fs::remove_dir_all(&place)?;
    let name = context.qemu.name(SMALL);
    let peer = Some((name.as_str(), &init));
    let bound = Bound::Ratio(MUST);
    Ok(vec![Metric::new("hit", "ready", "ms", &hits, peer, bound)])
}

/// The same image with another variable: layers stay, the machine is new.
pub fn rebake(context: &Context) -> Result<Vec<Metric>> {
    const ROUNDS: usize = 20;
    const MUST: f64 = 1.3;
    let mut both = BothSides::default();
    let own = format!("{}-{:?}", std::process::id(), Instant::now());
    context.baker("bench-rebake", SMALL).build()?;
    let layers = context.small.layers();
    let written = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let times = || {
        layers
            .iter()
            .map(|path| written(path))
            .collect::<std::io::Result<Vec<_>>>()
    };
    let before = times()?;
    for round in 0..context.rounds.unwrap_or(ROUNDS) {
        let baker = context.baker("bench-rebake", SMALL);
        let baker = baker.env("ROUND", format!("{own}-{round}"));
        let begun = Instant::now();
        let image = baker.build()?;
        let ours = milliseconds(begun);
        if image.layers() != layers || times()? != before {
            bail!("layers were built anew");
        }
        let begun = Instant::now();
        let vm = context.start(&context.small, SMALL)?;
        text("true", vm.exec(["true"])?)?;
        both.push(Some(ours), Some(milliseconds(begun)));
    }
    let peer = Some(("cold boot", &both.peer));
    let bound = Bound::Ratio(MUST);
    let metric = Metric::new("rebake", "other_variable", "ms", &both.ours, peer, bound);
    Ok(vec![metric])
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// An empty directory at `path`.
fn empty(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}
