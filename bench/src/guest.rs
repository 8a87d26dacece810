//! What runs in the guests besides what their image holds: programs of ours,
//! compiled here, and busybox, so that both machines have the same shell.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;
use supermachine::Vm;

/// Programs in `bench/guest`, each of one file.
const PROGRAMS: &[&str] = &[
    "marker",
    "timeit",
    "sysevents",
    "floats",
    "scale",
    "pour",
    "readall",
    "netload",
    "fsload",
];
/// Where they are in a guest, without the leading slash.
pub const GUEST_DIR: &str = "bench";

/// A static arm64 executable.
#[derive(Debug)]
pub struct Program {
    /// File name.
    pub name: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
}

/// Everything that goes into the guests' directory.
#[derive(Debug)]
pub struct Programs(Vec<Program>);

impl Programs {
    /// Compiles ours in `dir`; `busybox` is the executable of the image.
    pub fn prepare(dir: &Path, busybox: Vec<u8>) -> Result<Self> {
        let mut programs = vec![Program {
            name: "busybox",
            bytes: busybox,
        }];
        for name in PROGRAMS {
            let bytes = compile(name, &dir.join(name))?;
            programs.push(Program { name, bytes });
        }
        Ok(Self(programs))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Program> {
        self.0.iter()
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Result<&[u8]> {
        self.iter()
            .find(|program| program.name == name)
            .map(|program| program.bytes.as_slice())
            .with_context(|| format!("no guest program {name}"))
    }

    /// Puts all into a machine of ours.
    pub fn install(&self, vm: &Vm) -> Result<()> {
        for program in self.iter() {
            let path = format!("/{GUEST_DIR}/{}", program.name);
            let done = vm
                .exec_builder()
                .stage_file_mode(path, program.bytes.as_slice(), 0o755)
                .argv(["true"])
                .output()?;
            if !done.success() {
                bail!("{} could not be installed: {done:?}", program.name);
            }
        }
        Ok(())
    }
}

/// A static arm64 program out of one C file.
fn compile(name: &str, to: &Path) -> Result<Vec<u8>> {
    let compiler = if cfg!(target_arch = "aarch64") {
        "gcc"
    } else {
        "aarch64-linux-gnu-gcc"
    };
    compile_with(compiler, name, to)?;
    Ok(fs::read(to)?)
}

/// The same for this host, at `to`.
pub fn compile_for_host(name: &str, to: &Path) -> Result<()> {
    compile_with("gcc", name, to)
}

fn compile_with(compiler: &str, name: &str, to: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("guest")
        .join(format!("{name}.c"));
    let done = Command::new(compiler)
        .args(["-O2", "-static", "-s", "-o"])
        .arg(to)
        .arg(source)
        .args(["-lm", "-pthread"])
        .output()
        .with_context(|| format!("cannot run {compiler}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!(
            "{compiler} for {name}: {}: {}",
            done.status,
            said.trim_end()
        );
    }
    Ok(())
}
