//! The distribution's virtiofsd, which `fs` measures ours beside.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where Debian has it: with QEMU up to 12, in a package of that name since.
const PLACES: &[&str] = &["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
/// Longest wait for its socket.
const PATIENCE: Duration = Duration::from_secs(30);
/// By which the guest mounts it.
pub const TAG: &str = "share";

/// A virtiofsd for one guest. Dropping it ends it.
#[derive(Debug)]
pub struct Virtiofsd {
    child: Child,
    socket: PathBuf,
    name: String,
}

impl Virtiofsd {
    /// Starts it, with what it caches by default: what either side changes, the other
    /// sees within a second, as with ours.
    pub fn start(directory: &Path) -> Result<Self> {
        let program = PLACES.iter().find(|place| Path::new(place).exists());
        let program = program.with_context(|| {
            format!("no virtiofsd in {PLACES:?}: install Debian's qemu-system-common or virtiofsd")
        })?;
        let name = format!("supermachine-bench-{}-fs.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&socket);
        let child = Command::new(program)
            .arg("-f")
            .arg(format!("--socket-path={}", socket.display()))
            .arg("-o")
            .arg(format!("source={}", directory.display()))
            .args(["-o", "cache=auto", "-o", "log_level=err"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let mut started = Self {
            child,
            socket,
            name: version(program)?,
        };
        let begun = Instant::now();
        while !started.socket.exists() {
            if let Some(status) = started.child.try_wait()? {
                bail!("{program} ended: {status}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("{program} makes no socket");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(started)
    }

    /// What reports call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What QEMU is told of it. It sees the guest's memory, which must be shared then.
    pub fn options(&self, memory_mib: usize) -> [String; 10] {
        [
            "-machine".into(),
            "memory-backend=ram".into(),
            "-object".into(),
            format!("memory-backend-memfd,id=ram,size={memory_mib}M,share=on"),
            "-global".into(),
            "virtio-mmio.force-legacy=false".into(),
            "-chardev".into(),
            format!("socket,id=fs,path={}", self.socket.display()),
            "-device".into(),
            format!("vhost-user-fs-device,chardev=fs,tag={TAG}"),
        ]
    }
}

/// What the program says first of itself.
fn version(program: &str) -> Result<String> {
    let said = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = text.lines().next().unwrap_or_default();
    let number = line
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
    match number {
        Some(number) => Ok(format!("virtiofsd {number} cache=auto")),
        None => bail!("{program} --version says no version"),
    }
}

impl Drop for Virtiofsd {
    fn drop(&mut self) {
        // All fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
