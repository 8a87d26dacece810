//! An agent in this process and a blocking client for it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use exec_proto::client::{Event, Session};
use exec_proto::{ExecFlags, ExecRequest, Exited, Failure};
use init_shim::agent::groups::{GroupPool, Rules};
use init_shim::agent::{Agent, Buffers, Greeting, serve};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// An agent, and the groups to clean up after it.
pub struct TestAgent {
    pub agent: Arc<Agent>,
    groups: Option<PathBuf>,
}

impl std::ops::Deref for TestAgent {
    type Target = Arc<Agent>;

    fn deref(&self) -> &Arc<Agent> {
        &self.agent
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        let Some(dir) = &self.groups else { return };
        // A process killed by the test may need a moment to leave its group.
        for _ in 0..100 {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(entry.path());
            }
            if std::fs::remove_dir(dir).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// An agent without control groups.
pub fn plain_agent() -> TestAgent {
    TestAgent {
        agent: Arc::new(Agent::new(None, false).unwrap()),
        groups: None,
    }
}

/// An agent with control groups if this machine lets us make some.
pub fn agent_with_groups() -> Option<TestAgent> {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let dir = Path::new(root).join(format!("sm-test-{}-{serial}", std::process::id()));
        if Path::new(root).join("cgroup.procs").exists()
            && std::fs::create_dir(&dir).is_ok()
            && let Ok(pool) = GroupPool::new(&dir, Rules::default())
        {
            return Some(TestAgent {
                agent: Arc::new(Agent::new(Some(pool), false).unwrap()),
                groups: Some(dir),
            });
        }
    }
    None
}

/// What a command did.
#[derive(Debug, Default)]
pub struct Ran {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exited: Option<Exited>,
    pub failure: Option<Failure>,
}

impl Ran {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub fn code(&self) -> u8 {
        self.exited
            .unwrap_or_else(|| panic!("no exit: {self:?}"))
            .status
            .shell_status()
    }
}

pub struct Client {
    pub session: Session,
    pub stream: UnixStream,
    server: Option<JoinHandle<()>>,
}

impl Client {
    pub fn new(agent: &Arc<Agent>) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let agent = Arc::clone(agent);
        let server = thread::spawn(move || {
            let socket = OwnedFd::from(theirs);
            serve(&agent, socket, &Greeting::Hello, &mut Buffers::default());
        });
        Self {
            session: Session::new(),
            stream: ours,
            server: Some(server),
        }
    }

    pub fn send(&mut self) {
        while !self.session.outgoing().is_empty() {
            let count = self.stream.write(self.session.outgoing()).unwrap();
            self.session.sent(count);
        }
    }

    /// The next event; `None` when the agent closed.
    pub fn event(&mut self) -> Option<Event> {
        self.send();
        loop {
            if let Some(event) = self.session.next_event().unwrap() {
                return Some(event);
            }
            let mut buffer = [0; 16384];
            match self.stream.read(&mut buffer).unwrap() {
                0 => return None,
                count => self.session.feed(&buffer[..count]),
            }
        }
    }

    /// Runs to the end, collecting everything.
    pub fn finish(&mut self) -> Ran {
        let mut ran = Ran::default();
        while let Some(event) = self.event() {
            match event {
                Event::Stdout(data) => ran.stdout.extend(data),
                Event::Stderr(data) => ran.stderr.extend(data),
                Event::Exited(exited) => {
                    ran.exited = Some(exited);
                    break;
                }
                Event::Failed(failure) => {
                    ran.failure = Some(failure);
                    break;
                }
                _ => {}
            }
        }
        ran
    }

    pub fn run(&mut self, request: &ExecRequest) -> Ran {
        self.session.exec(request).unwrap();
        self.finish()
    }

    /// Waits for output that contains `needle`.
    pub fn wait_for_output(&mut self, needle: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(needle) {
            match self.event() {
                Some(Event::Stdout(data)) => seen.push_str(&String::from_utf8_lossy(&data)),
                Some(Event::Hello(_) | Event::Started { .. }) => {}
                other => panic!("{other:?} after {seen:?}, waiting for {needle:?}"),
            }
        }
        seen
    }

    /// Hangs up; the agent may be busy for longer than this.
    pub fn hang_up_without_waiting(self) {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Hangs up and waits until the agent has cleaned up.
    pub fn hang_up(mut self) {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
        self.server.take().unwrap().join().unwrap();
    }
}

/// Runs one request on a connection of its own.
pub fn run(agent: &Arc<Agent>, request: &ExecRequest) -> Ran {
    let mut client = Client::new(agent);
    let ran = client.run(request);
    client.hang_up();
    ran
}

/// A request for a shell script, with the test's own `PATH`.
pub fn sh(script: &str) -> ExecRequest {
    ExecRequest {
        env: vec![b"PATH=/usr/bin:/bin".to_vec()],
        ..ExecRequest::new(["sh", "-c", script])
    }
}

pub fn with_stdin(request: ExecRequest) -> ExecRequest {
    let flags = ExecFlags {
        stdin: true,
        ..request.flags
    };
    ExecRequest { flags, ..request }
}

/// A fresh directory.
pub fn scratch(name: &str) -> PathBuf {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("sm-agent-{}-{serial}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
