//! A private place to run the executable in, and what is left of it after.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use supermachine_tests::required;

/// Limit of one run of the executable. A hang fails; slowness must not.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(120);
/// How long processes may take to vanish after the one that was waited for.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The reference of the demo's image.
///
/// # Panics
/// If it has not been made.
pub fn busybox() -> String {
    format!("oci:{}", busybox_layout().display())
}

/// Directory of the demo's image.
pub fn busybox_layout() -> PathBuf {
    required("demo/busybox", "cargo xtask images")
}

/// Directories for sockets and temporary files that only one test uses, so
/// that it can tell what was left there.
pub struct Sandbox {
    root: tempfile::TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("smt")
            .tempdir()
            .expect("a temporary directory");
        for name in ["run", "tmp"] {
            fs::create_dir(root.path().join(name)).expect("a directory");
        }
        Self { root }
    }

    /// A sandbox whose cache has the guest kernel and init but no layers.
    pub fn with_empty_cache() -> Self {
        let sandbox = Self::new();
        let assets = kernel::assets_dir().expect("a cache directory");
        let cache = sandbox.path("cache/supermachine");
        fs::create_dir_all(&cache).expect("a directory");
        let name = assets.file_name().expect("a name");
        std::os::unix::fs::symlink(&assets, cache.join(name)).expect("a link");
        sandbox
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The executable with these arguments, set to run in here.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let executable = required(
            "release/supermachine",
            "cargo build --release -p supermachine --bins",
        );
        let mut command = Command::new(executable);
        command
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("TMPDIR", self.path("tmp"))
            .env("SUPERMACHINE_SNAPSHOTS", self.path("snapshots"))
            .env_remove("SHELL")
            .stdin(Stdio::null());
        let cache = self.path("cache");
        if cache.is_dir() {
            command.env("XDG_CACHE_HOME", cache);
        }
        command
    }

    /// Runs to the end without standard input.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Outcome {
        Running::start(self.command(arguments)).finish()
    }

    /// `supermachine run` of a shell script in the demo's image.
    pub fn shell(&self, options: &[&str], script: &str) -> Outcome {
        self.run(&shell_arguments(options, script))
    }

    /// # Panics
    /// If a process of this sandbox lives, or a file is left.
    pub fn assert_empty(&self) {
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        loop {
            let processes = self.processes();
            let mut files = Vec::new();
            for name in ["run", "tmp"] {
                list(&self.path(name), &mut files);
            }
            if processes.is_empty() && files.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left behind: processes {processes:?}, files {files:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processes that were started in here: their environment says so.
    pub fn processes(&self) -> Vec<u32> {
        let mark = self.path("run").into_os_string().into_encoded_bytes();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.windows(mark.len()).any(|part| part == mark) {
                found.push(pid);
            }
        }
        found
    }
}

/// The arguments that run a shell script in the demo's image.
pub fn shell_arguments(options: &[&str], script: &str) -> Vec<String> {
    let image = busybox();
    ["run"]
        .iter()
        .chain(options)
        .chain(&[image.as_str(), "--", "sh", "-c", script])
        .map(|&word| word.to_owned())
        .collect()
}

fn list(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        into.push(entry.path());
        list(&entry.path(), into);
    }
}

/// What a run of the executable came to.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    /// # Panics
    /// Unless it exited with this status.
    #[track_caller]
    pub fn exited(&self, status: i32) -> &Self {
        assert_eq!(
            self.status.code(),
            Some(status),
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }

    /// # Panics
    /// Unless it exited with 0, wrote this, and nothing to standard error.
    #[track_caller]
    pub fn printed(&self, expected: &str) {
        self.exited(0);
        assert_eq!(String::from_utf8_lossy(&self.stdout), expected);
        assert_eq!(self.stderr, "");
    }

    /// # Panics
    /// Unless it exited with `status`, without output, and with a message on
    /// standard error that has all of `words`.
    #[track_caller]
    pub fn refused(&self, status: i32, words: &[&str]) {
        self.exited(status);
        assert_eq!(self.stdout, b"", "output in spite of an error");
        for word in words {
            assert!(
                self.stderr.contains(word),
                "no {word:?} in: {}",
                self.stderr
            );
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// A started executable; killed when dropped before its end.
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    most_memory: u64,
}

impl Running {
    /// Starts it with its output collected.
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut running = Self::start_with_stdout(command);
        running.stdout = running.child.stdout.take().map(collect);
        running
    }

    /// Starts it with standard output as `command` has it.
    pub fn start_with_stdout(mut command: Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("supermachine starts");
        let stderr = child.stderr.take().map(collect);
        Self {
            child,
            stdout: None,
            stderr,
            most_memory: 0,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, if that is a pipe that is not collected.
    pub fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("a piped stdout")
    }

    /// Feeds standard input from a thread of its own, then closes it. The
    /// thread tells whether all was taken.
    pub fn feed(&mut self, mut input: impl Read + Send + 'static) -> JoinHandle<bool> {
        let mut stdin = self.child.stdin.take().expect("a piped stdin");
        std::thread::spawn(move || std::io::copy(&mut input, &mut stdin).is_ok())
    }

    /// Most memory the executable itself had resident, in KiB, as far as
    /// [`Running::finish`] saw.
    pub fn most_memory_kib(&self) -> u64 {
        self.most_memory
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If that takes longer than [`RUN_TIMEOUT`].
    pub fn wait(&mut self) -> Outcome {
        let deadline = Instant::now() + RUN_TIMEOUT;
        let status = loop {
            self.most_memory = self.most_memory.max(peak_kib(self.child.id()));
            if let Some(status) = self.child.try_wait().expect("a child to wait for") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let stderr = self.stderr.take().map(join).unwrap_or_default();
                panic!(
                    "supermachine hangs; its standard error: {}",
                    String::from_utf8_lossy(&stderr)
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let stderr = self.stderr.take().map(join).unwrap_or_default();
        Outcome {
            status,
            stdout: self.stdout.take().map(join).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// As [`Running::wait`], at the end of its use.
    pub fn finish(mut self) -> Outcome {
        self.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    })
}

fn join(thread: JoinHandle<Vec<u8>>) -> Vec<u8> {
    thread.join().expect("a reader does not panic")
}

/// Largest resident set of a process so far, in KiB; 0 once it has ended.
pub fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Runs `arguments` with `input` on standard input.
pub fn run_with_input(sandbox: &Sandbox, arguments: &[String], input: &[u8]) -> Outcome {
    let mut command = sandbox.command(arguments);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let writer = running.feed(std::io::Cursor::new(input.to_vec()));
    let outcome = running.finish();
    // The command may end without having read it all.
    writer.join().expect("a writer does not panic");
    outcome
}
