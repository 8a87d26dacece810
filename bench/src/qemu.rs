//! The peer: QEMU's system emulation with its own translator.

use crate::guest::{GUEST_DIR, Programs};
use anyhow::{Context, Result, bail};
use kernel::initrd::Archive;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The machine it is measured with, as its name in reports says.
const MACHINE: &[&str] = &["-M", "virt,gic-version=3", "-cpu", "cortex-a76"];
/// No device but the console, which is to QEMU's advantage.
const DEVICES: &[&str] = &[
    "-nodefaults",
    "-display",
    "none",
    "-monitor",
    "none",
    "-serial",
    "stdio",
    "-no-reboot",
];
/// Longest wait for anything the peer is to do.
const TIMEOUT: Duration = Duration::from_secs(900);
/// What /init prints when a machine is up.
const UP: &str = "@@init";
/// What ends the output of a command, before its exit status.
const DONE: &str = "@@done ";

/// PID 1 of a machine with disks: mounts them as init-shim would, then runs the
/// lines it reads from its console. Output goes through a file, because programs
/// write otherwise to a terminal.
const SERVE: &str = r#"#!/bench/busybox sh
b=/bench/busybox
$b mount -t devtmpfs dev /dev
$b mount -t sysfs sys /sys
for disk in /sys/block/vd*; do
    layer=$($b cat $disk/serial)
    case $layer in layer*) ;; *) continue ;; esac
    $b mkdir /layers/$layer
    $b mount -t squashfs -o ro /dev/${disk##*/} /layers/$layer
done
lower=
for layer in $($b ls /layers | $b sort -r); do lower=$lower:/layers/$layer; done
$b mount -t tmpfs tmpfs /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=${lower#:},upperdir=/upper/files,workdir=/upper/work overlay /root
for dir in bench dev proc sys tmp; do $b mkdir -p /root/$dir; done
$b mount -t devtmpfs dev /root/dev
$b mount -t proc proc /root/proc
$b mount -t sysfs sys /root/sys
$b cp /bench/* /root/bench
$b stty -echo -onlcr
exec $b chroot /root /bench/busybox sh -c '
export PATH=/usr/bin:/bin HOME=/root
echo @@init
while IFS= read -r line; do
    eval "$line" </dev/null >/tmp/output 2>&1; status=$?
    /bench/busybox cat /tmp/output; echo "@@done $status"
done'
"#;

/// QEMU as installed here, and the files it boots from.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    version: String,
    kernel: PathBuf,
    marker_initrd: PathBuf,
    serve_initrd: PathBuf,
}

/// How a machine is made.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Guest memory.
    pub memory_mib: usize,
    /// Virtual CPUs.
    pub vcpus: u32,
}

impl Qemu {
    /// Prepares initial file systems in `dir`.
    pub fn prepare(program: &Path, kernel: &Path, programs: &Programs, dir: &Path) -> Result<Self> {
        let said = Command::new(program)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = said
            .split_whitespace()
            .skip_while(|word| *word != "version")
            .nth(1)
            .with_context(|| format!("{} --version says no version", program.display()))?
            .to_owned();
        let busybox = programs.get("busybox")?;
        let marker = initrd(programs.get("marker")?, &[("busybox", busybox)])?;
        let all: Vec<_> = programs
            .iter()
            .map(|program| (program.name, program.bytes.as_slice()))
            .collect();
        let serve = initrd(SERVE.as_bytes(), &all)?;
        let write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
            let path = dir.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        Ok(Self {
            program: program.to_owned(),
            version,
            kernel: kernel.to_owned(),
            marker_initrd: write("qemu-marker.cpio", &marker)?,
            serve_initrd: write("qemu-serve.cpio", &serve)?,
        })
    }

    /// Name in reports: version and flags.
    pub fn name(&self, machine: Machine) -> String {
        format!(
            "QEMU {} TCG {} -smp {} -m {} {}",
            self.version,
            MACHINE.join(" "),
            machine.vcpus,
            machine.memory_mib,
            DEVICES.join(" ")
        )
    }

    /// Starts a machine that only says when init is reached, and returns how
    /// long that took from the start of the process.
    pub fn time_to_init(&self, machine: Machine) -> Result<Duration> {
        let begun = Instant::now();
        let mut session = self.spawn(machine, &self.marker_initrd, &[], &[])?;
        let reached = session.wait_for_up()?;
        Ok(reached - begun)
    }

    /// Starts a machine whose root file system is the squashfs files of
    /// `layers`, bottom first.
    pub fn start(&self, machine: Machine, layers: &[PathBuf]) -> Result<Session> {
        self.start_with(machine, layers, &[])
    }

    /// As [`Qemu::start`], with a serial port of virtio whose other side is a socket.
    pub fn start_with_port(
        &self,
        machine: Machine,
        layers: &[PathBuf],
        socket: &Path,
    ) -> Result<Session> {
        let end = format!(
            "socket,id=port,path={},server=on,wait=off",
            socket.display()
        );
        let more = [
            "-device",
            "virtio-serial-device",
            "-chardev",
            &end,
            "-device",
            "virtserialport,chardev=port",
        ];
        self.start_with(machine, layers, &more)
    }

    /// As [`Qemu::start`], with more options.
    pub fn start_with(
        &self,
        machine: Machine,
        layers: &[PathBuf],
        more: &[&str],
    ) -> Result<Session> {
        let mut session = self.spawn(machine, &self.serve_initrd, layers, more)?;
        session.wait_for_up()?;
        Ok(session)
    }

    fn spawn(
        &self,
        machine: Machine,
        initrd: &Path,
        layers: &[PathBuf],
        more: &[&str],
    ) -> Result<Session> {
        let mut command = Command::new(&self.program);
        command
            .args(MACHINE)
            .args(["-smp", &machine.vcpus.to_string()])
            .args(["-m", &machine.memory_mib.to_string()])
            .args(DEVICES)
            .args(more)
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(initrd)
            .arg("-append")
            .arg(format!("{} console=ttyAMA0", kernel::BASE_COMMAND_LINE));
        for (index, layer) in layers.iter().enumerate() {
            let file = layer.display();
            let drive = format!("file={file},format=raw,if=none,id=d{index},readonly=on");
            // The order in which Linux finds them is not that of the options.
            let device = format!("virtio-blk-device,drive=d{index},serial=layer{index:03}");
            command.args(["-drive", &drive, "-device", &device]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, lines) = channel();
        if let Some(stdout) = stdout {
            // Ends with the process, whose end of the pipe this reads.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).split(b'\n') {
                    let Ok(line) = line else { break };
                    let text = String::from_utf8_lossy(&line)
                        .trim_end_matches('\r')
                        .to_owned();
                    if sender.send((Instant::now(), text)).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Session {
            child,
            stdin,
            lines,
        })
    }
}

/// An initial file system with this PID 1 and these programs.
pub fn initrd(init: &[u8], programs: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for name in ["dev", "proc", "sys", "layers", "upper", "root", GUEST_DIR] {
        archive.directory(name, 0o755)?;
    }
    archive.character_device("dev/console", 0o600, 5, 1)?;
    for (name, bytes) in programs {
        archive.file(&format!("{GUEST_DIR}/{name}"), 0o755, bytes)?;
    }
    archive.file("init", 0o755, init)?;
    Ok(archive.finish())
}

/// A running machine of QEMU's. Dropping it ends it.
#[derive(Debug)]
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
}

impl Session {
    /// The QEMU process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a shell command and returns what it wrote.
    pub fn run(&mut self, command: &str) -> Result<String> {
        let stdin = self.stdin.as_mut().context("QEMU has no console")?;
        writeln!(stdin, "{command}").context("QEMU's console")?;
        let mut output = String::new();
        loop {
            let (_, line) = self.line()?;
            match line.strip_prefix(DONE) {
                Some("0") => return Ok(output),
                Some(status) => bail!("under QEMU, {command:?} exited with {status}: {output}"),
                None => {
                    output.push_str(&line);
                    output.push('\n');
                }
            }
        }
    }

    fn wait_for_up(&mut self) -> Result<Instant> {
        loop {
            let (at, line) = self.line()?;
            if line == UP {
                return Ok(at);
            }
        }
    }

    fn line(&mut self) -> Result<(Instant, String)> {
        match self.lines.recv_timeout(TIMEOUT) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("QEMU said nothing for {TIMEOUT:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("QEMU ended: {:?}", self.child.wait()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
