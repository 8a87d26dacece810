//! `cargo xtask test`: everything that must hold, in the order that fails
//! fastest; `cargo xtask test quick`: what of it needs no guest.

use crate::init_build::Toolchain;
use crate::packages::{self, IMAGE_TOOLS, QEMU};
use crate::{
    assets, check, deny, examples, guest_image, handlers, macos, mcp, node, outside, process,
    python, registry, tests_run, workspace,
};
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::process::Command;
use std::time::Instant;

/// One step: its name and what runs.
type Step = (&'static str, fn() -> Result<()>);

/// What comes before the tests: what fails fastest, and what they need.
const BEFORE: &[Step] = &[
    ("setup", setup),
    ("format", format),
    ("check", || check::run(&[])),
    ("licences", deny::run),
    ("clippy", clippy),
    ("features", features),
    ("fuzz targets", fuzz_targets),
    ("docs", docs),
    ("packages", packaged),
    ("release", release),
    ("handlers", || handlers::run(&[])),
];

const TESTS: &[Step] = &[
    ("unit and integration tests", tests),
    ("examples", run_examples),
    ("node", node::test),
    ("python", python::test),
    ("mcp", mcp::test),
];

/// What is done beside the tests, which mostly wait: each of these builds into a
/// target directory of its own.
const BESIDE: &[Step] = &[
    ("overflow checks", overflow_checks),
    ("arm64 loader", arm64_loader),
    ("macos", || macos::run(&[])),
    ("outside", outside_program),
];

/// What `quick` runs: no packages, no guest, no release build.
const QUICK: &[Step] = &[
    ("format", format),
    ("check", || check::run(&[])),
    ("clippy", clippy),
    ("docs", docs),
    ("tests without a guest", quick_tests),
];

/// Crates whose integration tests need neither a guest nor QEMU.
const GUESTLESS: &[&str] = &[
    "supermachine-broker",
    "supermachine-devices",
    "supermachine-exec-proto",
    "supermachine-hvf",
    "supermachine-kernel",
    "supermachine-net",
    "supermachine-oci-bake",
    "supermachine-oci-pull",
    "supermachine-pool",
    "supermachine-snapshot",
];

pub fn run(arguments: &[String]) -> Result<()> {
    let wanted = match arguments {
        [only] if only == "quick" => return all(QUICK),
        [] => return whole(),
        named => named,
    };
    let steps = || BEFORE.iter().chain(TESTS).chain(BESIDE);
    if let Some(unknown) = wanted
        .iter()
        .find(|word| !steps().any(|(name, _)| name.starts_with(word.as_str())))
    {
        let names: Vec<&str> = steps().map(|(name, _)| *name).collect();
        bail!("no step {unknown}; there are quick, {}", names.join(", "));
    }
    all(steps().filter(|(name, _)| wanted.iter().any(|word| name.starts_with(word.as_str()))))
}

/// All steps. Those of [`BESIDE`] run in a process of their own, with their output
/// in a file, and are waited for whatever the tests say.
fn whole() -> Result<()> {
    all(BEFORE)?;
    let log = workspace::target_dir()?.join("beside-tests.log");
    std::fs::write(&log, "").with_context(|| log.display().to_string())?;
    let own = std::env::current_exe().context("which executable is this?")?;
    let result = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let names = BESIDE.iter().map(|(name, _)| name);
            // The tests come first wherever both want a processor.
            let mut command = Command::new("nice");
            command.args(["-n", "19"]).arg(&own).arg("test").args(names);
            process::logged(&mut command, &log)
        });
        let tests = all(TESTS);
        let beside = beside.join();
        tests.and(beside.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    for line in std::fs::read_to_string(&log)?.lines() {
        if line.starts_with("== ") {
            eprintln!("{line}");
        }
    }
    result
}

fn all<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Result<()> {
    for (name, step) in steps {
        eprintln!("== {name}");
        let start = Instant::now();
        step().with_context(|| format!("step {name}"))?;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("== {name}: {seconds:.0} s{}", free_disk());
    }
    Ok(())
}

/// What the disk of the target directory still has: a full one shows as errors of
/// compilers and tests that say little.
fn free_disk() -> String {
    let free = || {
        let mut df = Command::new("df");
        df.args(["--output=avail", "-BG"])
            .arg(workspace::target_dir().ok()?);
        Some(
            process::output(&mut df)
                .ok()?
                .lines()
                .last()?
                .trim()
                .to_owned(),
        )
    };
    free().map_or_else(String::new, |free| format!(", {free} of disk free"))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(workspace::root());
    command
}

fn setup() -> Result<()> {
    packages::ensure(&[
        &packages::kernel(),
        &packages::guest_rust(),
        &QEMU,
        &IMAGE_TOOLS,
    ])?;
    let assets = assets::ensure()?;
    eprintln!("kernel: {}", assets.kernel.display());
    eprintln!("init-oci: {}", assets.init_oci.display());
    for name in guest_image::names() {
        eprintln!("image: {}", guest_image::ensure(name)?.display());
    }
    eprintln!("image: {}", guest_image::busybox()?.display());
    eprintln!("registry: {}", registry::ensure()?.display());
    Ok(())
}

/// What is checked beside the defaults, which the release build has.
const FEATURES: &str = "supermachine/tokio";

fn format() -> Result<()> {
    process::shown(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    process::shown(&mut cargo(&[
        "clippy",
        "--workspace",
        "--features",
        FEATURES,
        "--all-targets",
        "--locked",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}

fn docs() -> Result<()> {
    process::shown(
        cargo(&["doc", "--workspace", "--features", FEATURES])
            .args(["--no-deps", "--locked", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// That each library can be packaged for publication. Packages are not built:
/// `cargo xtask check` holds that no crate needs files outside its own.
fn packaged() -> Result<()> {
    let mut package = cargo(&["package", "--locked", "--quiet", "--no-verify"]);
    // A change that is being tested is not committed yet.
    package.arg("--allow-dirty");
    for name in workspace::published()? {
        package.args(["-p", &name]);
    }
    process::shown(&mut package)
}

/// A program that depends on the packages as they are now.
fn outside_program() -> Result<()> {
    packaged()?;
    release()?;
    outside::run()
}

/// The executables that guest tests start.
pub fn release() -> Result<()> {
    process::shown(&mut cargo(&[
        "build",
        "--release",
        "--locked",
        "--quiet",
        "-p",
        "supermachine",
        "-p",
        "supermachine-fsd",
        "--bins",
    ]))
}

/// Runs one of the programs of `supermachine-tests`, which start those executables.
pub fn program(name: &str, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
    release()?;
    let mut run = cargo(&["run", "--release", "--locked", "--quiet"]);
    run.args(["-p", "supermachine-tests", "--bin", name, "--"]);
    process::shown(run.args(words))
}

fn tests() -> Result<()> {
    let mut all = cargo(&["test", "--workspace", "--features", FEATURES]);
    all.args(["--locked", "--no-fail-fast"]);
    tests_run::run(all)
}

/// Every example, of the build that tests use.
fn run_examples() -> Result<()> {
    process::shown(&mut cargo(&[
        "build",
        "--workspace",
        "--features",
        FEATURES,
        "--examples",
        "--bins",
        "--locked",
        "--quiet",
    ]))?;
    examples::run()
}

/// The engine as a crate outside this workspace compiles it for debugging: what a
/// guest does must not end in a panic there. Some optimisation, for speed; the
/// profiles of this workspace leave the checks out.
fn overflow_checks() -> Result<()> {
    let mut tests = cargo(&["test", "--locked", "--no-fail-fast", "--target-dir"]);
    tests.arg(workspace::target_dir()?.join("checked"));
    for setting in [
        "opt-level=1",
        "debug-assertions=true",
        "overflow-checks=true",
    ] {
        let profile = "profile.dev.package.supermachine-softhv";
        tests.args(["--config", &format!("{profile}.{setting}")]);
    }
    tests.args(["-p", "supermachine-softhv", "--lib"]);
    for streams in [
        "a64_streams",
        "oracle_streams",
        "simd_corners",
        "shootdown",
        "interrupts",
        "system",
    ] {
        tests.args(["--test", streams]);
    }
    tests_run::run(tests)
}

fn quick_tests() -> Result<()> {
    process::shown(&mut cargo(&[
        "test",
        "--workspace",
        "--lib",
        "--locked",
        "--quiet",
    ]))?;
    let mut rest = cargo(&["test", "--locked", "--quiet", "--tests"]);
    for name in GUESTLESS {
        rest.args(["-p", name]);
    }
    process::shown(&mut rest)
}

/// Crates whose features are each of use without the others.
const SEPARABLE: &[(&str, &[&str])] = &[(
    "supermachine-devices",
    &[
        "blk",
        "vsock",
        "balloon",
        "mem",
        "net",
        "rng",
        "pl011",
        "pl031",
        "reactor",
        "serde",
        "vm-superio",
        "testing",
        "fuzzing",
    ],
)];

/// Each library as somebody takes it who wants as little of it as possible; and the guest's
/// kernel and init in a program, which needs them built.
fn features() -> Result<()> {
    process::shown(
        cargo(&["test", "--locked", "--quiet", "-p", "supermachine-kernel"])
            .args(["--lib", "--features", "bundled", "bundled"])
            .env(
                "SUPERMACHINE_BUNDLE",
                workspace::target_dir()?.join("assets"),
            ),
    )?;
    for name in workspace::published()? {
        process::shown(
            cargo(&["check", "--locked", "--quiet", "--no-default-features"]).args(["-p", &name]),
        )?;
    }
    for (name, features) in SEPARABLE {
        for feature in std::iter::once(&"").chain(*features) {
            process::shown(
                cargo(&["clippy", "--locked", "--quiet", "--no-default-features"])
                    .args(["-p", name, "--features", feature])
                    .args(["--", "-D", "warnings"]),
            )?;
        }
    }
    Ok(())
}

/// That the targets of cargo-fuzz are what the crates offer, without the nightly
/// and the C++ compiler that running them takes: nothing is linked here, so
/// libFuzzer itself need not be there.
fn fuzz_targets() -> Result<()> {
    let root = workspace::root();
    // The versions that the workspace has: it is one of its own.
    std::fs::copy(root.join("Cargo.lock"), root.join("fuzz/Cargo.lock"))
        .context("cannot copy Cargo.lock")?;
    process::shown(
        cargo(&[
            "check",
            "--quiet",
            "--bins",
            "--manifest-path",
            "fuzz/Cargo.toml",
        ])
        .env("CARGO_TARGET_DIR", root.join("target/fuzz"))
        .env("CUSTOM_LIBFUZZER_PATH", "/nonexistent/libfuzzer.a"),
    )
}

/// linux-loader's own loader, which ours is compared with, is there on arm64
/// only; an arm64 host has done this among its other tests.
fn arm64_loader() -> Result<()> {
    if workspace::host_is_arm64() {
        return Ok(());
    }
    let toolchain = Toolchain::find()?;
    let (mut cargo, _) = toolchain.cargo("test", "arm64")?;
    process::shown(
        cargo
            .env(toolchain.runner_variable(), "qemu-aarch64")
            .args(["--quiet", "--package", "supermachine-vmm-core"])
            .args(["--no-default-features", "--test", "linux_loader"]),
    )
}
