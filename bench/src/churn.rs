//! `churn`: `supermachine run --rm` of an image that was run before, the whole process
//! of the tool, from its start to its end.

use crate::context::{Context, SMALL};
use crate::metric::{Bound, Metric, Samples};
use crate::podman::Podman;
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 30;
/// Each machine of QEMU costs as much as ten of ours.
const ROUNDS_PER_PEER: usize = 3;
const MUST: f64 = 0.06;
/// Of what podman takes.
const MUST_OF_PODMAN: f64 = 0.5;

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let own = std::env::current_exe().context("which executable is this?")?;
    let tool = own.with_file_name("supermachine");
    if !tool.is_file() {
        bail!("{} is not there: build supermachine too", tool.display());
    }
    let image = format!("oci:{}", context.small_layout().display());
    let snapshots = context.dir.join("churn");
    // Bakes, and notes what is noted for the next.
    for _ in 0..3 {
        once(&tool, &image, &snapshots)?;
    }
    let podman = Podman::find(&context.dir.join("podman"))?;
    let (mut whole, mut init) = (Samples::default(), Samples::default());
    let mut containers = Samples::default();
    for round in 0..context.rounds.unwrap_or(ROUNDS) {
        whole.push(once(&tool, &image, &snapshots)?);
        if round % ROUNDS_PER_PEER == 0 {
            init.push(context.qemu.time_to_init(SMALL)?.as_secs_f64() * 1e3);
            if let Some(podman) = &podman {
                containers.push(podman.run()?);
            }
        }
    }
    let name = context.qemu.name(SMALL);
    let peer = Some((name.as_str(), &init));
    let bound = Bound::Ratio(MUST);
    let mut metrics = vec![Metric::new("churn", "run_rm", "ms", &whole, peer, bound)];
    if podman.is_some() {
        let peer = Some(("podman run --rm", &containers));
        let bound = Bound::Ratio(MUST_OF_PODMAN);
        metrics.push(Metric::new(
            "churn",
            "run_rm_of_podman",
            "ms",
            &whole,
            peer,
            bound,
        ));
    }
    Ok(metrics)
}

/// One run; what it took in milliseconds.
fn once(tool: &Path, image: &str, snapshots: &Path) -> Result<f64> {
    let begun = Instant::now();
    let out = Command::new(tool)
        .args(["run", "--rm", image, "echo", "hi"])
        .env("SUPERMACHINE_SNAPSHOTS", snapshots)
        .stdin(Stdio::null())
        .output()
        .context("cannot start the tool")?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    if !out.status.success() || out.stdout != b"hi\n" {
        bail!(
            "the tool: {}, {}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(took)
}
