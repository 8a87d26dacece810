//! A guest of QEMU's whose directory is served by vhost-user.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kernel::initrd::Archive;

use super::{Kit, MEMORY_MIB, PROGRAMS, Program};
use crate::required;

/// Where Debian has it: with QEMU up to 12, in a package of that name since.
const VIRTIOFSD: [&str; 2] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
const QEMU: &str = "qemu-system-aarch64";
/// Longest wait for a socket, and for a guest to be up.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the guest says when it is up.
const UP: &str = "@@up";
/// What it says after a command, before its exit status.
const DONE: &str = "@@done ";

/// PID 1: makes the image's tree of its layers, mounts the directory in it, and runs the
/// lines that it reads from its console there. What they write goes through a file, as
/// programs write otherwise to a terminal.
const INIT: &str = r#"#!/suite/busybox sh
/suite/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
stty -echo -onlcr
mkdir -p /tmp/upper /tmp/work
lower=
n=0
while layer=$(grep -lx "layer$n" /sys/block/vd*/serial); do
    disk=${layer#/sys/block/}
    mkdir -p /layers/$n
    mount -t squashfs -o ro "/dev/${disk%/serial}" /layers/$n
    lower=/layers/$n${lower:+:$lower}
    n=$((n + 1))
done
mount -t overlay -o "lowerdir=$lower,upperdir=/tmp/upper,workdir=/tmp/work" root /root
cd /root
mkdir -p dev proc sys tmp share suite
mount --bind /suite suite
mount --bind /dev dev
mount --bind /proc proc
mount --bind /sys sys
mkdir -p dev/shm
mount -t tmpfs shm dev/shm
mount -t tmpfs tmp tmp
cp /etc/passwd /etc/group etc
ifconfig lo up
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
/bin/mount -t virtiofs share share && echo @@up
while IFS= read -r line; do
    chroot /root /bin/sh -c "$line" </dev/null >/tmp/output 2>&1; status=$?
    /bin/cat /tmp/output; echo "@@done $status"
done
"#;

/// Whether this host has QEMU and a virtiofsd; if not, what to install.
///
/// # Errors
/// The text for the user.
pub fn is_here() -> Result<(), String> {
    let asked = Command::new(QEMU).arg("--version").output();
    let has_peer = VIRTIOFSD.iter().any(|place| Path::new(place).exists());
    match asked.is_ok_and(|output| output.status.success()) && has_peer {
        true => Ok(()),
        false => Err(format!(
            "no {QEMU} or no virtiofsd: install Debian's qemu-system-arm and qemu-system-common"
        )),
    }
}

/// A process that serves a directory to one guest. Dropping it ends it.
pub struct Daemon {
    child: Child,
    place: tempfile::TempDir,
}

impl Daemon {
    /// Ours, with owners and kinds of files recorded.
    ///
    /// # Errors
    /// A text of what failed.
    pub fn ours(shared: &Path) -> Result<Self, String> {
        let program = required(
            "release/supermachine-fsd",
            "cargo build --release -p supermachine-fsd",
        );
        Self::start(|socket| {
            let mut command = Command::new(program);
            command.arg("--socket").arg(socket);
            command.arg("--shared").arg(shared);
            command.args(["--owner", "recorded", "--once"]);
            command
        })
    }

    /// The distribution's, with what it caches by default.
    ///
    /// # Errors
    /// A text of what failed.
    pub fn distribution(shared: &Path) -> Result<Self, String> {
        is_here()?;
        let program = VIRTIOFSD.iter().find(|place| Path::new(place).exists());
        let program = program.ok_or("no virtiofsd")?;
        Self::start(|socket| {
            let mut command = Command::new(program);
            command.arg("-f");
            command.arg(format!("--socket-path={}", socket.display()));
            let source = format!("source={}", shared.display());
            command.args(["-o", &source, "-o", "cache=auto", "-o", "log_level=err"]);
            command.args(["-o", "xattr"]);
            command
        })
    }

    fn start(command: impl FnOnce(&Path) -> Command) -> Result<Self, String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let socket = place.path().join("socket");
        let mut command = command(&socket);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("{command:?}: {error}"))?;
        let mut daemon = Self { child, place };
        let begun = Instant::now();
        while !socket.exists() {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                return Err(format!("{command:?} ended with {status}"));
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{command:?} makes no socket"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("socket")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A guest with the directory mounted. Dropping it ends it.
pub struct Machine {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    // Ends after the guest.
    _daemon: Daemon,
}

impl Machine {
    /// Boots one with this kit, and files.
    ///
    /// # Errors
    /// A text of what failed.
    pub fn start(daemon: Daemon, kit: &Kit, files: &[(&str, &str)]) -> Result<Self, String> {
        let initrd = daemon.place.path().join("initrd");
        let bytes = archive(&kit.programs, files).map_err(|error| error.to_string())?;
        fs::write(&initrd, bytes).map_err(|error| error.to_string())?;
        let kernel = required("assets/kernel", "cargo xtask assets");
        let size = format!("{MEMORY_MIB}M");
        let memory = format!("memory-backend-memfd,id=ram,size={size},share=on");
        let socket = format!("socket,id=fs,path={}", daemon.socket().display());
        let mut command = Command::new(QEMU);
        command
            .args(["-M", "virt,gic-version=3,memory-backend=ram"])
            .args(["-cpu", "cortex-a76", "-m", &size, "-object", &memory])
            .args(["-nodefaults", "-display", "none", "-monitor", "none"])
            .args(["-serial", "stdio", "-no-reboot"])
            .args(["-global", "virtio-mmio.force-legacy=false"])
            .args(["-chardev", &socket])
            .args(["-device", "vhost-user-fs-device,chardev=fs,tag=share"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-append", "console=ttyAMA0 quiet"])
            .args(disks(&kit.layers))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("{QEMU}: {error}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, lines) = channel();
        // Ends with the process, whose end of the pipe this reads.
        std::thread::spawn(move || {
            for line in stdout
                .into_iter()
                .flat_map(|out| BufReader::new(out).split(b'\n'))
            {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line);
                if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                    break;
                }
            }
        });
        let mut machine = Self {
            child,
            stdin,
            lines,
            _daemon: daemon,
        };
        machine.until(|line| line == UP, Instant::now() + PATIENCE)?;
        Ok(machine)
    }

    /// What a command line of the shell writes, with its exit status as the last line.
    ///
    /// # Errors
    /// A text, if it does not come to an end.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<String, String> {
        let stdin = self.stdin.as_mut().ok_or("QEMU has no console")?;
        writeln!(stdin, "{command}").map_err(|error| format!("QEMU's console: {error}"))?;
        let deadline = Instant::now() + limit;
        let (mut lines, done) = self.until(|line| line.starts_with(DONE), deadline)?;
        lines.push(done.trim_start_matches(DONE).to_owned());
        Ok(lines.join("\n") + "\n")
    }

    /// The lines before the one that is waited for, and that one.
    fn until(
        &mut self,
        is_last: impl Fn(&str) -> bool,
        deadline: Instant,
    ) -> Result<(Vec<String>, String), String> {
        let mut before: Vec<String> = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if is_last(&line) => return Ok((before, line)),
                Ok(line) => before.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("QEMU's guest hangs after: {before:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("QEMU ended after: {before:?}"));
                }
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A read-only disk for each layer. The guest knows them by their serial numbers, as it
/// finds them in no order.
fn disks(layers: &[PathBuf]) -> Vec<String> {
    let mut words = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        // A comma in a value is written twice.
        let file = layer.display().to_string().replace(',', ",,");
        let drive = format!("if=none,id=layer{number},format=raw,readonly=on,file={file}");
        let device = format!("virtio-blk-device,drive=layer{number},serial=layer{number}");
        words.extend(["-drive".to_owned(), drive, "-device".to_owned(), device]);
    }
    words
}

fn archive(
    programs: &[Program],
    files: &[(&str, &str)],
) -> Result<Vec<u8>, kernel::initrd::InitrdError> {
    let mut archive = Archive::new();
    let suite = &PROGRAMS[1..];
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", suite] {
        archive.directory(name, 0o755)?;
    }
    archive.character_device("dev/console", 0o600, 5, 1)?;
    for (name, bytes) in programs {
        archive.file(&format!("{suite}/{name}"), 0o755, bytes)?;
    }
    for (name, text) in files {
        archive.file(name, 0o644, text.as_bytes())?;
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    Ok(archive.finish())
}
