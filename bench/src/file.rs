//! `file`: a file there and back, and many small ones.

use crate::context::{Context, SMALL, text};
use crate::metric::{Bound, Metric, Samples};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use supermachine::Vm;

const ROUNDS: usize = 15;
const TREES: usize = 5;
const BYTES: usize = 4 << 20;
const MUST: f64 = 0.1;
const FILES: usize = 5_000;
const DIRECTORIES: usize = 50;
/// By `tar` in the guest, which has the archive there already.
const MUST_TREE: f64 = 2.0;
const PLACE: &str = "/srv/tree";

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let vm = context.start(&context.small, SMALL)?;
    let content: Vec<u8> = (0..BYTES).map(|at| (at >> 3).to_le_bytes()[0]).collect();
    let (mut both, mut init) = (Samples::default(), Samples::default());
    for round in 0..context.rounds.unwrap_or(ROUNDS) {
        let begun = Instant::now();
        vm.write_file("/srv/file", &content)?;
        let back = vm.read_file("/srv/file")?;
        both.push(milliseconds(begun));
        if back != content {
            bail!("another file came back");
        }
        if round % 5 == 0 {
            init.push(context.qemu.time_to_init(SMALL)?.as_secs_f64() * 1e3);
        }
    }
    let name = context.qemu.name(SMALL);
    let peer = Some((name.as_str(), &init));
    let bound = Bound::Ratio(MUST);
    let mut metrics = vec![Metric::new(
        "file",
        "write_read_4_mib",
        "ms",
        &both,
        peer,
        bound,
    )];
    let (copies, tars) = trees(context, &vm)?;
    let peer = Some(("tar -xf in the guest", &tars));
    let bound = Bound::Ratio(MUST_TREE);
    metrics.push(Metric::new(
        "file",
        "copy_in_5000_files",
        "ms",
        &copies,
        peer,
        bound,
    ));
    Ok(metrics)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Small files, from the host and out of an archive that the guest has.
fn trees(context: &Context, vm: &Vm) -> Result<(Samples, Samples)> {
    let source = small_files(&context.dir)?;
    let run = |command: &str| text(command, vm.exec(["sh", "-c", command])?);
    let clear = format!("rm -rf {PLACE}");
    let count = format!("find {PLACE} -type f | wc -l");
    let check = || match run(&count)?.trim().parse::<usize>() {
        Ok(FILES) => Ok(()),
        found => bail!("{found:?} files instead of {FILES}"),
    };
    let (mut copies, mut tars) = (Samples::default(), Samples::default());
    // The first makes the archive, and does not count.
    for round in 0..=context.rounds.unwrap_or(TREES) {
        run(&clear)?;
        let begun = Instant::now();
        vm.copy_in(&source, PLACE)?;
        let copied = milliseconds(begun);
        check()?;
        if round == 0 {
            run("tar -cf /srv/tree.tar -C /srv tree")?;
            continue;
        }
        copies.push(copied);
        run(&clear)?;
        let begun = Instant::now();
        run("tar -xf /srv/tree.tar -C /srv")?;
        tars.push(milliseconds(begun));
        check()?;
    }
    Ok((copies, tars))
}

/// A directory of small files.
fn small_files(dir: &Path) -> Result<PathBuf> {
    let source = dir.join("small-files");
    // What an earlier run left.
    let _ = fs::remove_dir_all(&source);
    for at in 0..FILES {
        let directory = source.join(format!("d{}", at % DIRECTORIES));
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("file-{at}"));
        // Up to 4 KiB, 2 on average.
        let content = vec![b'x'; at * 37 % 4096];
        fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    Ok(source)
}
