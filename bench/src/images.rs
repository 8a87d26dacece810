//! Images: `pull`, `hit` and `rebake`.

use crate::archive::{Archive, Files};
use crate::context::{Context, SMALL, text};
use crate::metric::{BothSides, Bound, Metric, Samples};
use crate::registry::Registry;
use anyhow::{Context as _, Result, bail};
use oci_bake::ImageBuilder;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use supermachine::{Image, OciImageBuilder};

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

/// The same image with another variable, and with another content of a file that is put
/// into it: its layers stay, the machine is new.
pub fn rebake(context: &Context) -> Result<Vec<Metric>> {
    const ROUNDS: usize = 20;
    const MUST: f64 = 1.3;
    let own = format!("{}-{:?}", std::process::id(), Instant::now());
    let added = context.dir.join("rebake-added");
    let (mut variables, mut files) = (Samples::default(), Samples::default());
    let mut boots = Samples::default();
    for round in 0..=context.rounds.unwrap_or(ROUNDS) {
        let other = format!("{own}-{round}");
        let variable = context.baker("bench-rebake", SMALL).env("ROUND", &other);
        let variable = rebaked(context, variable)?;
        fs::write(&added, &other)?;
        let file = context.baker("bench-rebake-file", SMALL);
        let file = rebaked(context, file.extra_file(&added, "/added"))?;
        let begun = Instant::now();
        let vm = context.start(&context.small, SMALL)?;
        text("true", vm.exec(["true"])?)?;
        let boot = milliseconds(begun);
        // There was nothing to bake again before the first.
        if round > 0 {
            variables.push(variable);
            files.push(file);
            boots.push(boot);
        }
    }
    let metric = |name, ours| {
        let peer = Some(("cold boot", &boots));
        Metric::new("rebake", name, "ms", ours, peer, Bound::Ratio(MUST))
    };
    Ok(vec![
        metric("other_variable", &variables),
        metric("other_file", &files),
    ])
}

/// Milliseconds of a bake that finds the layers of the small image, and leaves them as
/// they are.
fn rebaked(context: &Context, baker: OciImageBuilder) -> Result<f64> {
    // A snapshot has links to them.
    let inodes = |image: &Image| {
        let layers = image.layers().iter();
        let inodes = layers.map(|layer| Ok(fs::metadata(layer)?.ino()));
        inodes.collect::<std::io::Result<Vec<_>>>()
    };
    let before = inodes(&context.small)?;
    let begun = Instant::now();
    let image = baker.build()?;
    let took = milliseconds(begun);
    if !inodes(&image)?.starts_with(&before) {
        bail!("layers were built anew");
    }
    Ok(took)
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
