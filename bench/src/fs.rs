//! `fs`: a directory of the host in a guest, beside the distribution's virtiofsd under
//! QEMU: the same kernel, the same program, the same directory, in turns.

use crate::context::{Context, SMALL, Side, run as run_ours};
use crate::edits;
use crate::metric::{BothSides, Bound, Metric};
use crate::qemu::Session;
use crate::virtiofsd::{TAG, Virtiofsd};
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use supermachine::{DaxPolicy, MountSpec, Vm};

const BENCH: &str = "fs";
const ROUNDS: usize = 5;
/// Where the guests have it.
const PLACE: &str = "/share";
/// As many as virtiofsd can do where nobody may have more than 20,000 files open, as it
/// has each of them open that its guest knows.
const FILES: u32 = 18_000;
const DIRECTORIES: u32 = 360;
/// What is in each of them: as short as many sources are.
const FILE_BYTES: usize = 500;
const CHURN: u32 = 5_000;
const LARGE_MIB: u32 = 512;
/// Forgets what the guest knows of the mount.
const AFRESH: &str = "/bench/busybox umount /share; /bench/busybox mount -t virtiofs share /share";

/// Which machine of ours does it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    Mount,
    /// A mount whose files are mapped, through a window of the usual size.
    MappedFiles,
}

/// What the guest does: its name, what to do first, the words for the program, how
/// many it must say there were, and how often ours may take what the peer takes.
struct Part {
    name: &'static str,
    before: &'static str,
    words: String,
    count: u64,
    must: f64,
    has: Has,
}

fn parts() -> [Part; 5] {
    let nothing = ":";
    let part = |name, before, words, count, must| Part {
        name,
        before,
        words,
        count,
        must,
        has: Has::Mount,
    };
    let walk = format!("walk {PLACE}/tree");
    [
        part(
            "walk_cold_18000",
            AFRESH,
            walk.clone(),
            FILES.into(),
            1.0 / 1.3,
        ),
        // Right after the cold one.
        part("walk_warm_18000", nothing, walk, FILES.into(), 1.0 / 1.5),
        part(
            "churn_5000",
            AFRESH,
            format!("churn {PLACE}/@SIDE@ {CHURN}"),
            CHURN.into(),
            1.0 / 1.2,
        ),
        part(
            "read_512_mib",
            AFRESH,
            format!("stream {PLACE}/large"),
            u64::from(LARGE_MIB) << 20,
            1.0,
        ),
        // The part before has left all of the file in the host's memory.
        Part {
            has: Has::MappedFiles,
            ..part(
                "dax_512_mib",
                AFRESH,
                format!("stream {PLACE}/large"),
                u64::from(LARGE_MIB) << 20,
                1.0 / 2.0,
            )
        },
    ]
}

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let shared = fill(&context.dir.join("fs"))?;
    let parts: Vec<Part> = parts()
        .into_iter()
        .filter(|part| context.wants(part.name))
        .collect();
    let hears = |has| has == Has::Mount && context.wants(edits::NAME);
    let start = |has| match context.side {
        Side::Peer => Ok(None),
        _ if !hears(has) && parts.iter().all(|part| part.has != has) => Ok(None),
        _ => start_ours(context, &shared, has).map(Some),
    };
    let (plain, mapped) = (start(Has::Mount)?, start(Has::MappedFiles)?);
    let daemon = Virtiofsd::start(&shared)?;
    let mut peer = match context.side {
        Side::Ours => None,
        _ => Some(start_peer(context, &daemon)?),
    };
    let mut values: Vec<BothSides> = parts.iter().map(|_| BothSides::default()).collect();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        for (part, values) in parts.iter().zip(&mut values) {
            let vm = match part.has {
                Has::Mount => &plain,
                Has::MappedFiles => &mapped,
            };
            let ours = vm.as_ref().map(|vm| run_ours(vm, &part.command("ours")));
            let peer = peer.as_mut().map(|peer| peer.run(&part.command("peer")));
            let ours = ours.transpose()?.map(|said| part.milliseconds(&said));
            let peer = peer.transpose()?.map(|said| part.milliseconds(&said));
            let (ours, peer) = (ours.transpose()?, peer.transpose()?);
            eprintln!(
                "  {}: ours {}, peer {}",
                part.name,
                shown(ours),
                shown(peer)
            );
            values.push(ours, peer);
        }
    }
    let name = format!("{}, {}", context.qemu.name(SMALL), daemon.name());
    drop((mapped, peer, daemon));
    let heard = match &plain {
        Some(vm) if context.wants(edits::NAME) => Some(edits::measure(vm, &shared, PLACE)?),
        _ => None,
    };
    drop(plain);
    fs::remove_dir_all(&shared)?;
    let metrics = parts.iter().zip(&values).map(|(part, values)| {
        let (ours, peer, bound) = match context.side {
            Side::Ours => (&values.ours, None, Bound::Part),
            Side::Peer => (&values.peer, None, Bound::Part),
            Side::Both => {
                let peer = Some((name.as_str(), &values.peer));
                (&values.ours, peer, Bound::Ratio(part.must))
            }
        };
        Metric::new(BENCH, part.name, "ms", ours, peer, bound)
    });
    let heard = heard.map(|samples| {
        let bound = Bound::Median(edits::MUST_MS);
        Metric::new(BENCH, edits::NAME, "ms", &samples, None, bound)
    });
    Ok(metrics.chain(heard).collect())
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

impl Part {
    fn command(&self, side: &str) -> String {
        let words = self.words.replace("@SIDE@", side);
        format!("{} && /bench/fsload {words}", self.before)
    }

    /// The time that the program says, if it has done what it was to do.
    fn milliseconds(&self, said: &str) -> Result<f64> {
        let (count, time) = counted(said)?;
        if count != self.count {
            bail!("{}: {count} instead of {}", self.name, self.count);
        }
        Ok(time)
    }
}

/// How many there were, and milliseconds, of what `fsload` prints.
pub fn counted(said: &str) -> Result<(u64, f64)> {
    let both = said.trim().split_once(' ');
    let (count, time) = both.with_context(|| format!("fsload says {said:?}"))?;
    Ok((count.parse()?, time.parse::<f64>()? / 1e6))
}

/// A directory with the files that guests look at and read.
fn fill(shared: &Path) -> Result<PathBuf> {
    if shared.exists() {
        fs::remove_dir_all(shared)?;
    }
    for side in ["ours", "peer"] {
        fs::create_dir_all(shared.join(side))?;
    }
    let content = [b'x'; FILE_BYTES];
    for directory in 0..DIRECTORIES {
        // As trees of sources have it: some directories deep, some wide.
        let parent = format!("tree/a{}/b{}/c{directory}", directory % 8, directory % 40);
        let parent = shared.join(parent);
        fs::create_dir_all(&parent)?;
        for file in 0..FILES / DIRECTORIES {
            fs::write(parent.join(format!("source-{file}.c")), content)?;
        }
    }
    let mut large = File::create(shared.join("large"))?;
    let mib: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    for _ in 0..LARGE_MIB {
        large.write_all(&mib)?;
    }
    // Nothing is to be written out while it is measured.
    large.sync_all()?;
    Ok(fs::canonicalize(shared)?)
}

fn start_ours(context: &Context, shared: &Path, has: Has) -> Result<Vm> {
    let mount = MountSpec::new(shared, TAG);
    let mount = match has {
        Has::Mount => mount,
        Has::MappedFiles => mount.with_dax(DaxPolicy::Always),
    };
    let config = context.config(SMALL).with_mount(mount);
    let vm = context.small.start(&config)?;
    context.programs.install(&vm)?;
    run_ours(&vm, &mounted())?;
    Ok(vm)
}

fn start_peer(context: &Context, daemon: &Virtiofsd) -> Result<Session> {
    let options = daemon.options(SMALL.memory_mib);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let layers = context.small.layers();
    let mut session = context.qemu.start_with(SMALL, layers, &options)?;
    session.run(&mounted())?;
    Ok(session)
}

fn mounted() -> String {
    format!("/bench/busybox mkdir -p {PLACE} && /bench/busybox mount -t virtiofs {TAG} {PLACE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_only_what_is_complete() {
        let [part, ..] = parts();
        assert_eq!(part.milliseconds("18000 1500000\n").unwrap(), 1.5);
        for bad in ["17999 1500000", "18000", "18000 soon", ""] {
            assert!(part.milliseconds(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_commands_name_the_place_and_the_tag() {
        assert!(AFRESH.ends_with(&format!("-t virtiofs {TAG} {PLACE}")));
        let [_, _, churn, ..] = parts();
        assert!(churn.command("ours").ends_with("churn /share/ours 5000"));
    }
}
