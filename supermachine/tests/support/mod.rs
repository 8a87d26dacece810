//! Runs the real executables in a sandbox of their own, kills what hangs, and
//! looks for what was left behind.
// Each test file uses a part of it.
#![allow(dead_code)]

pub mod disk;
pub mod pty;
pub mod shelf;

use oci_bake::{ImageBuilder, LayerBuilder};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use supermachine::{AssetPaths, Image, VmConfig};

/// Longer than any run here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How soon everything must be gone once the tool is, on a busy machine. What is
/// not ended at all stays for longer than this.
pub const GONE_WITHIN: Duration = Duration::from_secs(12);

/// A place for one test's sockets and files. When it is dropped, nothing may
/// be left in it and no process that was started with it may live.
pub struct Sandbox {
    runtime: PathBuf,
    pub files: PathBuf,
}

impl Sandbox {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Short, because socket paths must be.
        let base = std::env::temp_dir().join(format!("smt{}-{count}", std::process::id()));
        let (runtime, files) = (base.join("r"), base.join("f"));
        fs::create_dir_all(&runtime).unwrap();
        fs::create_dir_all(&files).unwrap();
        Self { runtime, files }
    }

    /// The tool with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supermachine"));
        command
            .args(arguments)
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .env("XDG_CACHE_HOME", cache())
            .env("XDG_STATE_HOME", self.files.join("state"))
            .env("SUPERMACHINE_SNAPSHOTS", self.files.join("s"))
            .env("SUPERMACHINE_VOLUMES", self.files.join("v"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `supermachine run IMAGE -- sh -c SCRIPT`, with more options.
    pub fn shell(&self, options: &[&str], script: &str) -> Command {
        let mut arguments = vec!["run"];
        arguments.extend_from_slice(options);
        arguments.extend_from_slice(&[busybox(), "--", "sh", "-c", script]);
        self.command(&arguments)
    }

    /// Runs the tool to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command(arguments).spawn().unwrap(), PATIENCE)
    }

    /// Runs a shell script in a guest to its end.
    pub fn run_shell(&self, options: &[&str], script: &str) -> Finished {
        finish(self.shell(options, script).spawn().unwrap(), PATIENCE)
    }

    /// Waits until all that was started with this sandbox is gone, for as long
    /// as workers may outlive whoever started them.
    pub fn await_no_process(&self) {
        let begun = std::time::Instant::now();
        while !self.processes().is_empty() {
            assert!(begun.elapsed() < GONE_WITHIN, "{:?}", self.processes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Processes that were started with this sandbox.
    pub fn processes(&self) -> Vec<u32> {
        let mark = format!("XDG_RUNTIME_DIR={}", self.runtime.display());
        // Without /proc there is nothing to see.
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| *pid != std::process::id())
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment
                    .split(|byte| *byte == 0)
                    .any(|v| v == mark.as_bytes())
            })
            .collect()
    }

    /// The worker process of the one running machine.
    pub fn worker(&self) -> u32 {
        let is_worker = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("supermachine-wo")
        };
        self.processes()
            .into_iter()
            .find(is_worker)
            .expect("a worker runs")
    }

    fn leftovers(&self) -> Vec<String> {
        let files = fs::read_dir(&self.runtime).into_iter().flatten().flatten();
        let files = files.map(|entry| entry.path().display().to_string());
        let processes = self.processes().into_iter().map(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("process {pid}: {}", String::from_utf8_lossy(&command))
        });
        files.chain(processes).collect()
    }

    /// Fails unless everything is gone, now or soon.
    pub fn assert_clean(&self) {
        let begun = Instant::now();
        loop {
            let leftovers = self.leftovers();
            if leftovers.is_empty() {
                return;
            }
            assert!(begun.elapsed() < GONE_WITHIN, "left behind: {leftovers:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A detached machine would outlive the test that failed.
            for pid in self.processes().into_iter().map(u32::cast_signed) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    // It may have ended by itself.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        } else {
            self.assert_clean();
        }
        let _ = fs::remove_dir_all(self.runtime.parent().unwrap());
    }
}

/// How a run of the tool ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Finished {
    /// The exit status; a signal is a failure.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails unless it ended with `code` and all of `words` on standard error.
    pub fn assert_refused(&self, code: i32, words: &[&str]) {
        let text = self.err();
        assert_eq!(self.code(), code, "{text}");
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        assert!(
            text.starts_with("supermachine: ") || text.starts_with("error: "),
            "{text}"
        );
        assert!(!text.contains("panicked at"), "{text}");
    }
}

fn drain(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Waits for a process and collects its output. One that takes longer than
/// `patience` is killed and the test fails.
pub fn finish(mut child: Child, patience: Duration) -> Finished {
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait(&mut child, patience);
    Finished {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// As [`finish`], without the output.
pub fn wait(child: &mut Child, patience: Duration) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > patience {
            let _ = child.kill();
            panic!("still running after {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As [`finish`], with something to read.
pub fn finish_with_input(mut child: Child, input: Vec<u8>) -> Finished {
    let mut stdin = child.stdin.take().expect("a piped stdin");
    let feeder = std::thread::spawn(move || {
        // The command may close its input early.
        let _ = stdin.write_all(&input);
    });
    let finished = finish(child, PATIENCE);
    feeder.join().unwrap();
    finished
}

/// Arguments to bake `image` with a warm-up, another snapshot for each.
pub fn bake_with(warmup: &str) -> [&str; 8] {
    let reference = busybox();
    [
        "bake", "--quiet", "--name", "image", "--warmup", warmup, "--json", reference,
    ]
}

/// Sends a signal by its name's number.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Stops a process, and waits until none of its threads runs any more.
pub fn stop(pid: u32) {
    signal(pid, rustix::process::Signal::STOP);
    let begun = std::time::Instant::now();
    let is_stopped = |task: std::fs::DirEntry| {
        // The state comes behind the name, which may contain anything.
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ")
            .next()
            .is_none_or(|rest| !rest.starts_with(['R', 'S', 'D']))
    };
    // Without /proc there is nothing to see.
    let tasks = || {
        std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
    };
    while !tasks().flatten().all(is_stopped) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{pid} runs on");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads until `wanted` has appeared.
pub fn read_until(from: &mut impl Read, wanted: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).contains(wanted) {
        let count = from.read(&mut byte).unwrap_or(0);
        assert!(
            count > 0,
            "no {wanted:?} in: {}",
            String::from_utf8_lossy(&text)
        );
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Layers baked by one test serve the next.
pub fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

/// The image of `cargo xtask demo`.
fn busybox_dir() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let found = executable
        .ancestors()
        .map(|dir| dir.join("demo/busybox"))
        .find(|dir| dir.join("oci-layout").is_file());
    found.expect("run `cargo xtask demo` once: it makes the guest and the image of these tests")
}

pub fn busybox() -> &'static str {
    static REFERENCE: OnceLock<String> = OnceLock::new();
    REFERENCE.get_or_init(|| format!("oci:{}", busybox_dir().display()))
}

/// The uncompressed layer of the busybox image.
fn busybox_layer() -> Vec<u8> {
    let blobs = busybox_dir().join("blobs/sha256");
    let largest = fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap())
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap();
    let mut tar = Vec::new();
    let blob = fs::File::open(largest.path()).unwrap();
    flate2::read::GzDecoder::new(blob)
        .read_to_end(&mut tar)
        .unwrap();
    tar
}

/// Writes an image of busybox and one more layer; returns its reference.
pub fn image(dir: &Path, builder: ImageBuilder, layer: LayerBuilder) -> String {
    let layer = ["sh", "id", "pwd", "cat", "sleep"]
        .iter()
        .fold(layer, |layer, name| {
            layer.symlink(&format!("bin/{name}"), "busybox")
        });
    builder
        .layer_tar(std::io::Cursor::new(busybox_layer()))
        .layer(layer)
        .write_layout(dir)
        .unwrap();
    format!("oci:{}", dir.display())
}

/// The busybox image, for library tests.
pub fn library_image() -> Image {
    Image::load_with_cache(busybox(), cache().join("supermachine/images")).unwrap()
}

/// A configuration that finds the worker under test.
pub fn library_config() -> VmConfig {
    VmConfig::new()
        .with_assets(AssetPaths::discover().expect("run `cargo xtask assets` first"))
        .with_worker(env!("CARGO_BIN_EXE_supermachine-worker"))
}

/// Reproducible bytes without a pattern (xorshift64*).
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    out.truncate(bytes);
    out
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A field of /proc/PID/status in KiB; 0 without /proc.
pub fn status_kib(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
