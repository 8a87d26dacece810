//! What all benches share.

use crate::guest::Programs;
use crate::metric::{BothSides, Bound, Metric};
use crate::qemu::{Machine, Qemu};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supermachine::{AssetPaths, Engine, ExecOutcome, Image, OciImageBuilder, Vm, VmConfig};

/// The machine that most benches use, on both sides.
pub const SMALL: Machine = Machine {
    memory_mib: 256,
    vcpus: 1,
};

/// Which of the two to measure; for work on one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Only supermachine.
    Ours,
    /// Only the peer.
    Peer,
    /// Both in turns, which is the only way to get a ratio.
    Both,
}

/// Where everything is that a bench needs.
#[derive(Debug)]
pub struct Places<'a> {
    /// Scratch files.
    pub dir: &'a Path,
    /// Kernel and init, if not those found as usual.
    pub assets: Option<&'a Path>,
    /// Layout of an image with busybox.
    pub small: &'a Path,
    /// Layout of an image with python and node.
    pub large: &'a Path,
    /// Layout of an image with what `compute` runs.
    pub compute: &'a Path,
    /// Layout of an image with nginx.
    pub nginx: &'a Path,
    /// The peer's program.
    pub qemu: &'a Path,
    /// The registry's program.
    pub registry: Option<&'a Path>,
}

/// The packages for other languages, if they were built.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// The native part of the npm package.
    pub node: Option<PathBuf>,
    /// A directory for `PYTHONPATH`.
    pub python: Option<PathBuf>,
}

/// Files, programs and choices of one invocation.
#[derive(Debug)]
pub struct Context {
    /// The image of most benches: busybox.
    pub small: Image,
    /// The peer.
    pub qemu: Qemu,
    /// Guest programs.
    pub programs: Programs,
    /// How often to measure, instead of what each bench thinks is enough.
    pub rounds: Option<usize>,
    /// Only the parts whose name starts with this.
    pub only: Option<String>,
    /// Which of the two to measure.
    pub side: Side,
    /// The packages for other languages.
    pub bindings: Bindings,
    /// Scratch files.
    pub dir: PathBuf,
    small_layout: PathBuf,
    large: PathBuf,
    compute: PathBuf,
    nginx: PathBuf,
    registry: Option<PathBuf>,
    assets: AssetPaths,
}

impl Context {
    /// Builds guest programs, loads the small image and boots it once.
    pub fn prepare(places: &Places<'_>) -> Result<Self> {
        std::fs::create_dir_all(places.dir)?;
        let assets = match places.assets {
            Some(dir) => AssetPaths::from_dir(dir),
            None => AssetPaths::discover()?,
        };
        let small = load(places.small)?;
        let vm = small.start(&config(&assets, SMALL))?;
        let programs = Programs::prepare(places.dir, vm.read_file("/bin/busybox")?)?;
        vm.stop()?;
        let qemu = Qemu::prepare(places.qemu, &assets.kernel, &programs, places.dir)?;
        Ok(Self {
            small,
            qemu,
            programs,
            rounds: None,
            only: None,
            side: Side::Both,
            bindings: Bindings::default(),
            dir: places.dir.to_owned(),
            small_layout: places.small.to_owned(),
            large: places.large.to_owned(),
            compute: places.compute.to_owned(),
            nginx: places.nginx.to_owned(),
            registry: places.registry.map(Path::to_owned),
            assets,
        })
    }

    /// Layout of the small image.
    pub fn small_layout(&self) -> &Path {
        &self.small_layout
    }

    /// The guest's kernel.
    pub fn kernel(&self) -> &Path {
        &self.assets.kernel
    }

    /// The registry's program.
    pub fn registry(&self) -> Result<&Path> {
        let registry = self.registry.as_deref();
        registry.context("--registry says where docker-registry is")
    }

    /// The image with python and node.
    pub fn large(&self) -> Result<Image> {
        load(&self.large)
    }

    /// The image with what `compute` runs.
    pub fn compute(&self) -> Result<Image> {
        load(&self.compute)
    }

    /// The image with nginx.
    pub fn nginx(&self) -> Result<Image> {
        load(&self.nginx)
    }

    /// Whether a part of a bench is to run.
    pub fn wants(&self, part: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| part.starts_with(only.as_str()))
    }

    /// The metrics of a bench that consists of `parts`, and their geometric
    /// mean, which the bound is for. A bench of one side or of some parts has
    /// no mean.
    pub fn metrics(
        &self,
        bench: &'static str,
        unit: &'static str,
        parts: &[&str],
        values: &BTreeMap<&str, BothSides>,
        machine: Machine,
        bound: Bound,
    ) -> Result<Vec<Metric>> {
        let part = |_: &str| Bound::Part;
        self.metrics_of(bench, unit, parts, values, machine, (&part, bound))
    }

    /// The same with a bound for each part, which holds where both sides are measured.
    pub fn metrics_of(
        &self,
        bench: &'static str,
        unit: &'static str,
        parts: &[&str],
        values: &BTreeMap<&str, BothSides>,
        machine: Machine,
        (of_part, bound): (&dyn Fn(&str) -> Bound, Bound),
    ) -> Result<Vec<Metric>> {
        let name = self.qemu.name(machine);
        let mut metrics = Vec::new();
        let mut measured = Vec::new();
        for part in parts {
            let both = values
                .get(part)
                .with_context(|| format!("{part} was not measured"))?;
            let (ours, peer) = match self.side {
                Side::Peer => (&both.peer, None),
                Side::Ours => (&both.ours, None),
                Side::Both => (&both.ours, Some((name.as_str(), &both.peer))),
            };
            let of_part = peer.map_or(Bound::Part, |_| of_part(part));
            metrics.push(Metric::new(bench, *part, unit, ours, peer, of_part));
            measured.push((both.ours.clone(), both.peer.clone()));
        }
        if self.side == Side::Both && self.only.is_none() {
            metrics.push(Metric::geometric_mean(bench, &name, &measured, bound));
        }
        Ok(metrics)
    }

    /// What bakes the small image into a snapshot of this name.
    pub fn baker(&self, name: &str, machine: Machine) -> OciImageBuilder {
        self.baker_of(&self.small_layout, name, machine)
    }

    /// What bakes the image with python and node.
    pub fn large_baker(&self, name: &str, machine: Machine) -> OciImageBuilder {
        self.baker_of(&self.large, name, machine)
    }

    fn baker_of(&self, layout: &Path, name: &str, machine: Machine) -> OciImageBuilder {
        self.baker_named(&format!("oci:{}", layout.display()), name, machine)
    }

    /// What bakes the image of this reference.
    pub fn baker_named(&self, reference: &str, name: &str, machine: Machine) -> OciImageBuilder {
        Image::builder(reference)
            .name(name)
            .vm_config(self.config(machine))
            .snapshots_dir(self.dir.join("snapshots"))
    }

    /// The configuration of copies.
    pub fn copies(&self) -> VmConfig {
        VmConfig::new()
            .with_engine(Engine::Soft)
            .with_assets(self.assets.clone())
    }

    /// The configuration of machines of ours that boot.
    pub fn config(&self, machine: Machine) -> VmConfig {
        config(&self.assets, machine)
    }

    /// Boots a machine of ours.
    pub fn start(&self, image: &Image, machine: Machine) -> Result<Vm> {
        Ok(image.start(&self.config(machine))?)
    }
}

fn load(layout: &Path) -> Result<Image> {
    let reference = format!("oci:{}", layout.display());
    Image::load(&reference).with_context(|| format!("cannot load {reference}"))
}

fn config(assets: &AssetPaths, machine: Machine) -> VmConfig {
    VmConfig::new()
        .with_engine(Engine::Soft)
        .with_assets(assets.clone())
        .with_memory_mib(machine.memory_mib)
        .with_vcpus(machine.vcpus)
}

/// Longer than any command takes that is measured.
const LONGEST_COMMAND: Duration = Duration::from_secs(900);

/// Runs a shell command in a machine of ours and returns what it wrote.
pub fn run(vm: &Vm, command: &str) -> Result<String> {
    let outcome = vm
        .exec_builder()
        .argv(["/bench/busybox", "sh", "-c", command])
        .timeout(LONGEST_COMMAND)
        .output()?;
    text(command, outcome)
}

/// The output of a command that must have succeeded.
pub fn text(command: &str, outcome: ExecOutcome) -> Result<String> {
    let stdout = String::from_utf8_lossy(&outcome.stdout).into_owned();
    if !outcome.success() {
        bail!(
            "{command:?} ended with {:?}: {stdout}{}",
            outcome.status,
            String::from_utf8_lossy(&outcome.stderr)
        );
    }
    Ok(stdout)
}
