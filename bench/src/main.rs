//! Measures supermachine side by side with QEMU: `cargo xtask bench`.

#![forbid(unsafe_code)]

mod archive;
mod bindings;
mod boot;
mod census;
mod churn;
mod compute;
mod context;
mod copies;
mod crowd;
mod echo;
mod edits;
mod exec;
mod file;
mod fleet;
mod forkexec;
mod fs;
mod guest;
mod idle;
mod images;
mod inits;
mod layers;
mod metric;
mod net;
mod pairs;
mod passt;
mod podman;
mod process;
mod qemu;
mod read;
mod registry;
mod scale;
mod stream;
mod translate;
mod virtiofsd;
mod volume;

use anyhow::{Context as _, Result, bail};
use context::{Bindings, Context, Places, Side};
use metric::Metric;
use std::path::PathBuf;
use std::process::ExitCode;

/// A bench: its name and what runs.
type Bench = (&'static str, fn(&Context) -> Result<Vec<Metric>>);

const BENCHES: &[Bench] = &[
    ("boot", boot::run),
    ("churn", churn::run),
    ("forkexec", forkexec::run),
    ("compute", compute::run),
    ("census", census::run),
    ("translate", translate::run),
    ("scale", scale::run),
    ("exec", exec::run),
    ("stage_chain", exec::stage_chain),
    ("stream", stream::run),
    ("file", file::run),
    ("crowd", crowd::run),
    ("layer", layers::layer),
    ("layer_mem", layers::layer_mem),
    ("pull", images::pull),
    ("hit", images::hit),
    ("rebake", images::rebake),
    ("read", read::run),
    ("idle", idle::run),
    ("spawn", copies::spawn),
    ("mapped", copies::mapped),
    ("acquire", copies::acquire),
    ("reset", copies::reset),
    ("density", fleet::density),
    ("fork", fleet::fork),
    ("bake", copies::bake),
    ("cycles", fleet::cycles),
    ("reliability", fleet::reliability),
    ("net", net::run),
    ("net_in", net::inbound),
    ("fs", fs::run),
    ("volume", volume::run),
    ("bindings", bindings::run),
];

const USAGE: &str = "\
usage: bench [OPTIONS] [NAME…]
  NAME           boot, churn, forkexec, compute, census, translate, scale, exec,
                 stage_chain, stream, file, crowd, layer, layer_mem, pull, hit, rebake, read, idle,
                 spawn, mapped, acquire, reset, density, fork, bake, cycles,
                 reliability, net, net_in, fs, volume or bindings; all without one
  --json FILE    write the metrics there as well
  --dir DIR      where scratch files go
  --small DIR    OCI layout of an image with busybox
  --large DIR    OCI layout of an image with python and node
  --compute DIR  OCI layout of an image with what compute runs
  --nginx DIR    OCI layout of an image with nginx, for net_in
  --registry X   the program of Debian's docker-registry, for pull and hit
  --node FILE    the native part of the npm package, for bindings
  --python DIR   the Python package, for bindings
  --qemu FILE    the peer's program, instead of the one that is installed
  --assets DIR   kernel and init, instead of those found as usual
  --at COMMIT    what is measured, for the report
  --rounds N     measure this often instead of as often as is adequate
  --only PART    only the parts of a bench whose names start so
  --side SIDE    measure only ours, or only qemu
";

#[derive(Debug, Default)]
struct Arguments {
    names: Vec<String>,
    json: Option<PathBuf>,
    dir: PathBuf,
    small: PathBuf,
    large: PathBuf,
    compute: PathBuf,
    nginx: PathBuf,
    registry: Option<PathBuf>,
    bindings: Bindings,
    qemu: PathBuf,
    assets: Option<PathBuf>,
    at: String,
    rounds: Option<usize>,
    only: Option<String>,
    side: Option<Side>,
}

fn parse(words: impl IntoIterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        dir: "target/bench".into(),
        small: "target/demo/busybox".into(),
        large: "target/guest-images/bench".into(),
        compute: "target/guest-images/compute".into(),
        nginx: "target/guest-images/nginx".into(),
        qemu: "qemu-system-aarch64".into(),
        ..Arguments::default()
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--json" => arguments.json = Some(value()?.into()),
            "--dir" => arguments.dir = value()?.into(),
            "--small" => arguments.small = value()?.into(),
            "--large" => arguments.large = value()?.into(),
            "--compute" => arguments.compute = value()?.into(),
            "--nginx" => arguments.nginx = value()?.into(),
            "--node" => arguments.bindings.node = Some(value()?.into()),
            "--python" => arguments.bindings.python = Some(value()?.into()),
            "--registry" => arguments.registry = Some(value()?.into()),
            "--qemu" => arguments.qemu = value()?.into(),
            "--assets" => arguments.assets = Some(value()?.into()),
            "--at" => arguments.at = value()?,
            "--only" => arguments.only = Some(value()?),
            "--rounds" => match value()?.parse()? {
                0 => bail!("--rounds needs at least 1"),
                rounds => arguments.rounds = Some(rounds),
            },
            "--side" => {
                arguments.side = Some(match value()?.as_str() {
                    "ours" => Side::Ours,
                    "qemu" => Side::Peer,
                    other => bail!("--side is ours or qemu, not {other}"),
                });
            }
            name if BENCHES.iter().any(|(known, _)| *known == name) => {
                arguments.names.push(word);
            }
            _ => bail!("neither a bench nor an option: {word}\n{USAGE}"),
        }
    }
    if arguments.json.is_some() && arguments.side.is_some() {
        bail!("--json is for comparisons, and --side makes none");
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(file) = &arguments.json
        && file.exists()
    {
        // What an earlier run wrote must not pass for the result of a failed one.
        std::fs::remove_file(file).with_context(|| format!("cannot replace {}", file.display()))?;
    }
    let mut context = Context::prepare(&Places {
        dir: &arguments.dir,
        assets: arguments.assets.as_deref(),
        small: &arguments.small,
        large: &arguments.large,
        compute: &arguments.compute,
        nginx: &arguments.nginx,
        qemu: &arguments.qemu,
        registry: arguments.registry.as_deref(),
    })?;
    context.rounds = arguments.rounds;
    context.only.clone_from(&arguments.only);
    context.bindings.clone_from(&arguments.bindings);
    context.side = arguments.side.unwrap_or(Side::Both);
    let mut metrics = Vec::new();
    let mut failed = Vec::new();
    for (name, bench) in BENCHES {
        let wanted = arguments.names.is_empty() || arguments.names.iter().any(|n| n == name);
        if !wanted {
            continue;
        }
        eprintln!("bench {name}");
        // What the others measured is worth having although one fails.
        match bench(&context) {
            Ok(measured) => {
                eprint!("{}", metric::table(&measured));
                metrics.extend(measured);
            }
            Err(error) => {
                eprintln!("bench {name}: {error:#}");
                failed.push(*name);
            }
        }
    }
    print!("{}", metric::table(&metrics));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if let Some(file) = &arguments.json {
        let objects: Vec<_> = metrics.iter().map(|m| m.to_json(&arguments.at)).collect();
        let text = serde_json::to_string_pretty(&objects)?;
        std::fs::write(file, text + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let ran = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // Processes of a bench of its own.
        [echo::ARGUMENT] => echo::serve(),
        [layers::ARGUMENT, layout, place] => layers::serve(layout.as_ref(), place.as_ref()),
        _ => parse(words).and_then(|arguments| run(&arguments)),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn names_and_options_mix() {
        let arguments = parse(words("boot --json f --rounds 3 idle")).unwrap();
        assert_eq!(arguments.names, ["boot", "idle"]);
        assert_eq!(arguments.rounds, Some(3));
        assert_eq!(arguments.json, Some("f".into()));
    }

    #[test]
    fn unknown_benches_and_senseless_values_are_refused() {
        for bad in [
            "bot",
            "--rounds 0",
            "--side left",
            "--json",
            "--side ours --json f",
        ] {
            assert!(parse(words(bad)).is_err(), "{bad}");
        }
    }
}
