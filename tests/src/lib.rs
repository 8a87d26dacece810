//! Guests for tests: a machine of one of the images that `cargo xtask images`
//! makes, and checks that collect what went wrong in it.
//!
//! Nothing here skips: what is missing fails, with the command that makes it.
#![forbid(unsafe_code)]

pub mod loopback;
pub mod services;
pub mod suites;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use supermachine::{AssetPaths, Error, ExecBuilder, ExecOutcome, Image, Vm, VmConfig};

/// Limit of one command, in the guest. A hang fails; slowness must not.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(150);
/// How much longer the host waits before it calls the whole guest hung.
const HOST_GRACE: Duration = Duration::from_secs(30);
/// Limit of a boot.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// The target directory that the running executable was built into: the
/// nearest one above it with assets in it.
pub fn target_dir() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .find(|dir| dir.join("assets").is_dir())
        .map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
            Path::to_path_buf,
        )
}

/// A file or directory under the target directory.
///
/// # Panics
/// If it is not there; the message names the command that makes it.
pub fn required(path: &str, command: &str) -> PathBuf {
    let full = target_dir().join(path);
    assert!(
        full.exists(),
        "{} is missing; run `{command}` first",
        full.display()
    );
    full
}

/// A configuration with the assets and the release worker of this workspace.
///
/// # Panics
/// If one of them has not been built.
pub fn config() -> VmConfig {
    let worker = required(
        "release/supermachine-worker",
        "cargo build --release -p supermachine --bins",
    );
    required("assets/kernel", "cargo xtask assets");
    let assets = required("assets/init-oci", "cargo xtask assets");
    let assets = assets.parent().unwrap_or(Path::new("")).to_path_buf();
    VmConfig::new()
        .with_worker(worker)
        .with_assets(AssetPaths::from_dir(assets))
        .with_boot_timeout(BOOT_TIMEOUT)
}

/// Loads image `name`; `busybox` is the demo's.
///
/// # Panics
/// If it has not been made or is damaged.
pub fn image(name: &str) -> Image {
    let path = match name {
        "busybox" => "demo/busybox".to_owned(),
        name => format!("guest-images/{name}"),
    };
    let layout = required(&path, "cargo xtask images");
    Image::load(&format!("oci:{}", layout.display()))
        .unwrap_or_else(|error| panic!("image {name}: {error}"))
}

/// The static busybox that guests have, for machines that are not ours.
///
/// # Panics
/// If a machine of ours does not come up with it.
pub fn busybox() -> Vec<u8> {
    let vm = image("busybox").start(&config()).expect("a machine");
    vm.read_file("/bin/busybox").expect("busybox")
}

/// A running machine, and what went wrong in it so far.
pub struct Guest {
    name: String,
    vm: Arc<Vm>,
    failures: Vec<String>,
}

impl Guest {
    /// Boots image `name`.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn boot(name: &str, vcpus: u32, memory_mib: usize) -> Self {
        let config = config().with_vcpus(vcpus).with_memory_mib(memory_mib);
        let vm = image(name)
            .start(&config)
            .unwrap_or_else(|error| panic!("booting {name} with {vcpus} vCPUs: {error}"));
        Self {
            name: format!("{name}, {vcpus} vCPUs"),
            vm: Arc::new(vm),
            failures: Vec::new(),
        }
    }

    /// The machine.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Runs a command, with [`COMMAND_TIMEOUT`] unless `build` says otherwise.
    ///
    /// # Panics
    /// If the guest hangs, with the end of its console.
    pub fn run(
        &self,
        build: impl for<'vm> FnOnce(ExecBuilder<'vm>) -> ExecBuilder<'vm> + Send + 'static,
    ) -> Result<ExecOutcome, Error> {
        let (sender, receiver) = mpsc::channel();
        let vm = self.vm.clone();
        std::thread::spawn(move || {
            let builder = vm.exec_builder().cwd("/tmp").timeout(COMMAND_TIMEOUT);
            let result = build(builder).output();
            // The machine must not outlive the test through this thread.
            drop(vm);
            let _ = sender.send(result);
        });
        receiver
            .recv_timeout(COMMAND_TIMEOUT + HOST_GRACE)
            .unwrap_or_else(|_| {
                let console = match self.vm.status() {
                    Ok(status) => status.console,
                    Err(error) => error.to_string(),
                };
                panic!("{}: the guest hangs; its console:\n{console}", self.name)
            })
    }

    /// A check that fails with a description.
    pub fn check(&mut self, name: &str, check: impl FnOnce(&Self) -> Result<(), String>) {
        if let Err(failure) = check(self) {
            eprintln!("{}: {name}: {failure}", self.name);
            self.failures.push(format!("{name}: {failure}"));
        }
    }

    /// Runs a shell script: exit status 0, and exactly this output.
    pub fn shell(&mut self, name: &str, script: &str, expected: &str) {
        self.program(name, &["bash"], "sh", script, expected);
    }

    /// Runs `source`, staged as a file, by `interpreter`: exit status 0, and
    /// exactly this output.
    pub fn program(
        &mut self,
        name: &str,
        interpreter: &[&str],
        extension: &str,
        source: &str,
        expected: &str,
    ) {
        self.check(name, |guest| {
            let stdout = guest.stdout_of(name, interpreter, extension, source, &[])?;
            same(&stdout, expected)
        });
    }

    /// What `source` prints, fed with `stdin`; anything but success is an
    /// error with what it wrote to standard error.
    pub fn stdout_of(
        &self,
        name: &str,
        interpreter: &[&str],
        extension: &str,
        source: &str,
        stdin: &[u8],
    ) -> Result<String, String> {
        let path = format!("/tmp/{}.{extension}", name.replace([' ', '/'], "-"));
        let argv: Vec<String> = interpreter
            .iter()
            .map(|&word| word.to_owned())
            .chain([path.clone()])
            .collect();
        let (source, stdin) = (source.as_bytes().to_vec(), stdin.to_vec());
        let outcome = self
            .run(|builder| builder.stage_file(path, source).stdin(stdin).argv(argv))
            .map_err(|error| error.to_string())?;
        succeeded(&outcome)
    }

    /// Ends the machine.
    ///
    /// # Panics
    /// If a check failed, with all that did.
    pub fn finish(self) {
        // Dropping the last reference stops the machine and waits for it.
        drop(self.vm);
        assert!(
            self.failures.is_empty(),
            "{}: {} checks failed:\n{}",
            self.name,
            self.failures.len(),
            self.failures.join("\n")
        );
    }
}

/// What a shell command prints in a running machine.
///
/// # Panics
/// If it fails in any way.
pub fn sh(vm: &Vm, script: &str) -> String {
    sh_within(vm, script, COMMAND_TIMEOUT)
}

/// The same of one that may take so long.
///
/// # Panics
/// If it fails.
pub fn sh_within(vm: &Vm, script: &str, limit: Duration) -> String {
    let outcome = vm
        .exec_builder()
        .argv(["sh", "-c", script])
        .timeout(limit)
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    succeeded(&outcome).unwrap_or_else(|error| panic!("{script}: {error}"))
}

/// The output of a command that exited with 0.
pub fn succeeded(outcome: &ExecOutcome) -> Result<String, String> {
    let stdout = String::from_utf8_lossy(&outcome.stdout).into_owned();
    if outcome.success() {
        return Ok(stdout);
    }
    Err(format!(
        "{:?} timed_out={}\nstdout: {}\nstderr: {}",
        outcome.status.code.or(outcome.status.signal),
        outcome.timed_out,
        end_of(&stdout),
        end_of(&String::from_utf8_lossy(&outcome.stderr))
    ))
}

/// Whether a text is the expected one; if not, the first line that differs.
pub fn same(actual: &str, expected: &str) -> Result<(), String> {
    if actual == expected {
        return Ok(());
    }
    let (mut ours, mut theirs) = (actual.lines(), expected.lines());
    let mut line = 1;
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return Err(format!("line ends differ in:\n{}", end_of(actual))),
            (a, e) if a != e => {
                return Err(format!(
                    "line {line} is {:?}, must be {:?}",
                    a.unwrap_or("<absent>"),
                    e.unwrap_or("<absent>")
                ));
            }
            _ => line += 1,
        }
    }
}

/// The last two thousand characters.
fn end_of(text: &str) -> &str {
    let start = text.len().saturating_sub(2000);
    let start = (start..text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(start);
    &text[start..]
}

/// Runs a program of the host, which must succeed.
///
/// # Panics
/// If it is not there, or fails.
pub fn run(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (`cargo xtask test` installs it)"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_differing_line_is_named() {
        assert_eq!(same("a\nb\n", "a\nb\n"), Ok(()));
        let error = same("a\nx\n", "a\nb\n").unwrap_err();
        assert_eq!(error, r#"line 2 is "x", must be "b""#);
        let error = same("a\n", "a\nb\n").unwrap_err();
        assert_eq!(error, r#"line 2 is "<absent>", must be "b""#);
    }

    #[test]
    fn missing_line_end_is_a_difference() {
        assert!(same("a", "a\n").is_err());
    }
}
