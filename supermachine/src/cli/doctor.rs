//! `supermachine doctor`.

use super::output::{print, print_json};
use crate::error::with_causes;
use crate::pool::DEFAULT_POOL_MAX;
use crate::{AssetPaths, Error};
use serde::Serialize;
use vmm_core::backend::table::TableEngine;
use vmm_core::hypervisor::Hypervisor;

#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What this host has.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    host: Host,
    engines: Vec<EngineReport>,
    /// What many busy machines come to.
    load: String,
    watches: Watches,
    assets: Assets,
}

#[derive(Serialize)]
struct Host {
    os: &'static str,
    arch: &'static str,
    cpus: usize,
}

#[derive(Serialize)]
struct EngineReport {
    name: &'static str,
    works: bool,
    detail: String,
    /// How it executes code, if that is its own work: compile or interpret.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    /// Why nothing is compiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier_detail: Option<String>,
}

/// How many mounts can have their guests told of the host's edits.
#[derive(Serialize)]
struct Watches {
    /// Mounts at once (`fs.inotify.max_user_instances`), if there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    mounts: Option<u64>,
    /// Their directories in all (`fs.inotify.max_user_watches`).
    #[serde(skip_serializing_if = "Option::is_none")]
    directories: Option<u64>,
    detail: String,
}

#[derive(Serialize)]
struct Assets {
    found: bool,
    kernel: Option<String>,
    init: Option<String>,
    recipe: String,
    detail: String,
}

/// Prints the report; status 0 if a guest can be run, else 1.
pub fn run(arguments: &Arguments) -> Result<u8, Error> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        host: Host {
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            cpus,
        },
        load: load(cpus),
        watches: watches(crate::host::watch_limits()),
        engines: vec![hvf(), kvm(), soft()],
        assets: assets(),
    };
    if arguments.json {
        print_json(&report, true)?;
    } else {
        print(&text(&report))?;
    }
    let usable = report.engines.iter().any(|engine| engine.works) && report.assets.found;
    Ok(u8::from(!usable))
}

fn text(report: &Report) -> String {
    let Host { os, arch, cpus } = &report.host;
    let mut lines = vec![
        format!(
            "supermachine {} on {os} {arch}, {cpus} CPUs",
            report.version
        ),
        "engines:".to_owned(),
    ];
    for engine in &report.engines {
        let works = if engine.works { "works" } else { "no" };
        lines.push(format!("  {:<5} {works:<6} {}", engine.name, engine.detail));
        match (engine.tier, &engine.tier_detail) {
            (Some(_), Some(reason)) => {
                lines.push(format!("               interprets all code: {reason}"));
            }
            (Some(_), None) => {
                lines.push("               compiles code that runs often".to_owned());
            }
            (None, _) => {}
        }
    }
    lines.push(format!("load:\n  {}", report.load));
    lines.push(format!("watched mounts:\n  {}", report.watches.detail));
    let recipe = &report.assets.recipe;
    lines.push(format!("guest kernel and init (recipe {recipe}):"));
    match (&report.assets.kernel, &report.assets.init) {
        (Some(kernel), Some(init)) => lines.push(format!("  {kernel}\n  {init}")),
        _ => lines.push(format!("  {}", report.assets.detail)),
    }
    lines.join("\n") + "\n"
}

/// A pool's default is eight machines, whatever the host has; not all compute at once.
fn load(cpus: usize) -> String {
    let crowd = DEFAULT_POOL_MAX;
    let times = crowd.div_ceil(cpus.max(1));
    let words = format!(
        "a busy vCPU of the software engine takes a CPU of the host: {cpus} of them run at full \
         speed at once"
    );
    match times {
        0 | 1 => words,
        times => format!(
            "{words}, so of a pool's machines that many compute at once unless \
             PoolBuilder::max_computing says otherwise. What takes 1 s in one takes {times} s \
             in each of {crowd} that `run` has started: allow for it in time limits"
        ),
    }
}

/// What guests are told of the host's edits takes from what a user's programs may have.
fn watches(limits: Option<(u64, u64)>) -> Watches {
    let detail = match limits {
        None => "the host sets no limit".to_owned(),
        Some((mounts, directories)) => format!(
            "this user's programs may watch {directories} directories \
             (fs.inotify.max_user_watches) by {mounts} instances \
             (fs.inotify.max_user_instances); a mount takes one instance, and a watch for each \
             directory that its guest looks at, 8192 at most. Beyond the limits a guest is not \
             told what the host edits, and sees it when it looks anew, a second later: raise \
             them with `sysctl`, or leave mounts out with `-v HOST:GUEST:nowatch`"
        ),
    };
    Watches {
        mounts: limits.map(|(mounts, _)| mounts),
        directories: limits.map(|(_, directories)| directories),
        detail,
    }
}

fn describe(engine: &TableEngine) -> Result<String, String> {
    let capabilities = engine.capabilities().map_err(|error| error.to_string())?;
    Ok(format!(
        "up to {} vCPUs, {}-bit guest physical addresses",
        capabilities.max_vcpus, capabilities.default_ipa_bits
    ))
}

fn report(name: &'static str, result: Result<String, String>) -> EngineReport {
    EngineReport {
        name,
        works: result.is_ok(),
        detail: result.unwrap_or_else(|reason| reason),
        tier: None,
        tier_detail: None,
    }
}

fn hvf() -> EngineReport {
    let result = TableEngine::system()
        .map_err(|error| error.to_string())
        .and_then(|engine| describe(&engine));
    report("hvf", result)
}

fn soft() -> EngineReport {
    let refusal = softhv::jit::probe().err();
    EngineReport {
        tier: Some(if refusal.is_some() {
            "interpret"
        } else {
            "compile"
        }),
        tier_detail: refusal.map(|reason| with_causes(&reason)),
        ..report("soft", describe(&TableEngine::new(softhv::api())))
    }
}

/// Guests do not run on KVM yet; what it could do is told all the same.
fn kvm() -> EngineReport {
    let detail = vmm_core::backend::kvm_probe::probe().to_string();
    EngineReport {
        name: "kvm",
        works: false,
        detail,
        tier: None,
        tier_detail: None,
    }
}

fn assets() -> Assets {
    let recipe = kernel::recipe_hash();
    match AssetPaths::discover() {
        Ok(paths) => Assets {
            found: true,
            kernel: Some(paths.kernel.display().to_string()),
            init: Some(paths.init_oci.display().to_string()),
            recipe,
            detail: String::new(),
        },
        Err(error) => Assets {
            found: false,
            kernel: None,
            init: None,
            recipe,
            detail: error.to_string(),
        },
    }
}
