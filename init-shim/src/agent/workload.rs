//! The machine's one workload: started by a host, outliving its connection,
//! its latest output kept for whoever asks.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exec_proto::{
    ErrorKind, ExecRequest, ExitStatus, Exited, Failure, WORKLOAD_TAIL_BYTES, WorkloadReport,
    WorkloadState,
};

use super::failure::{self, bad_request};
use super::groups::{Group, GroupPool};
use super::launch::{self, exit_status};
use super::ring::Ring;
use super::{Agent, tree};
use crate::sys::{self, Outcome, Plan, SpawnError, Waited};

/// Bytes read from a pipe at once.
const READ_BYTES: usize = 16 * 1024;
/// Most that is taken from a pipe when the workload has ended: more than a
/// pipe holds, so only a background writer can reach it.
const LAST_BYTES: usize = 256 * 1024;
/// Stack of the thread that attends to it.
const STACK_BYTES: usize = 128 * 1024;

#[derive(Debug, Default)]
enum Phase {
    #[default]
    NotStarted,
    /// Claimed by a request that has not got a process yet.
    Starting,
    Running {
        pid: i32,
        started_ns: u64,
    },
    Exited(Exited),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Holds all it started, for as long as the machine lives.
    group: Option<Group>,
    output: Ring,
}

impl Default for State {
    fn default() -> Self {
        Self {
            phase: Phase::default(),
            group: None,
            output: Ring::new(WORKLOAD_TAIL_BYTES, 0),
        }
    }
}

/// The workload, whatever has become of it.
#[derive(Debug, Default)]
pub(super) struct Workload {
    state: Mutex<State>,
}

fn resources(error: &io::Error) -> Failure {
    failure::resources(error, "workload")
}

/// What the attending thread starts with.
struct Launch {
    plan: Plan,
    create_cwd: bool,
    pool: Option<Arc<GroupPool>>,
    null: OwnedFd,
    sources: [OwnedFd; 2],
    targets: [OwnedFd; 2],
}

impl Workload {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, once in a machine's life. One that could not be started may
    /// be tried again.
    pub(super) fn start(
        self: &Arc<Self>,
        agent: &Agent,
        request: ExecRequest,
    ) -> Result<WorkloadReport, Failure> {
        {
            let mut state = self.lock();
            if !matches!(state.phase, Phase::NotStarted) {
                return Err(bad_request("the workload has been started already"));
            }
            state.phase = Phase::Starting;
        }
        let result = self.launch(agent, request);
        if result.is_err() {
            self.lock().phase = Phase::NotStarted;
        }
        result.map(|()| self.report(0))
    }

    fn launch(self: &Arc<Self>, agent: &Agent, request: ExecRequest) -> Result<(), Failure> {
        let create_cwd = request.flags.create_cwd;
        let mut plans = launch::plans(request, agent.places.own.as_fd())?;
        let plan = plans
            .pop()
            .ok_or_else(|| bad_request("a workload without a program"))?;
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (source, target) = sys::pipe()?;
            sys::set_nonblocking(source.as_fd())?;
            Ok((source, target))
        };
        let (stdout_source, stdout) = pipe().map_err(|error| resources(&error))?;
        let (stderr_source, stderr) = pipe().map_err(|error| resources(&error))?;
        let null = agent.places.null.try_clone();
        let launch = Launch {
            plan,
            create_cwd,
            pool: agent.groups.get().cloned(),
            null: null.map_err(|error| resources(&error))?.into(),
            sources: [stdout_source, stderr_source],
            targets: [stdout, stderr],
        };
        // The process is the child of a thread that stays until its end, so
        // that PID 1's search for orphans leaves it alone.
        let (answer, started) = sync_channel(1);
        let workload = Arc::clone(self);
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || workload.attend(launch, &answer))
            .map_err(|error| resources(&error))?;
        started.recv().unwrap_or_else(|_| {
            Err(Failure {
                kind: ErrorKind::Internal,
                errno: 0,
                message: "the workload's thread ended early".to_owned(),
            })
        })
    }

    /// The life of the attending thread.
    fn attend(&self, launch: Launch, answer: &SyncSender<Result<(), Failure>>) {
        let Launch {
            plan,
            create_cwd,
            pool,
            null,
            sources,
            targets,
        } = launch;
        let started_ns = sys::monotonic_ns();
        let mut group = pool.as_ref().and_then(|pool| pool.take().ok());
        let [stdout, stderr] = &targets;
        let start = launch::Start {
            pool: pool.as_deref(),
            stdio: [null.as_fd(), stdout.as_fd(), stderr.as_fd()],
            tty: false,
            create_cwd,
        };
        let spawned: Result<(i32, OwnedFd), SpawnError> = start.spawn(&plan, &mut group);
        let (pid, pidfd) = match spawned {
            Ok(child) => child,
            Err(error) => {
                if let (Some(group), Some(pool)) = (group, &pool) {
                    pool.give_back(group);
                }
                // The receiver may be gone, with its machine.
                let _ = answer.send(Err(launch::explain(&plan, error)));
                return;
            }
        };
        {
            let mut state = self.lock();
            state.phase = Phase::Running { pid, started_ns };
            state.group = group;
        }
        let _ = answer.send(Ok(()));
        drop((targets, null, plan));
        self.follow(pid, started_ns, pidfd, sources.map(Some));
    }

    /// Collects output until nobody can write any more, and the end between.
    fn follow(&self, pid: i32, started_ns: u64, pidfd: OwnedFd, mut sources: [Option<OwnedFd>; 2]) {
        let mut buffer = vec![0; READ_BYTES];
        let mut pidfd = Some(pidfd);
        let watch = |fd: Option<&OwnedFd>| {
            fd.map_or(
                sys::Watch {
                    fd: -1,
                    events: 0,
                    revents: 0,
                },
                |fd| super::watch(fd.as_fd(), sys::POLLIN),
            )
        };
        while pidfd.is_some() || sources.iter().any(Option::is_some) {
            let [stdout, stderr] = &sources;
            let mut watches = [
                watch(pidfd.as_ref()),
                watch(stdout.as_ref()),
                watch(stderr.as_ref()),
            ];
            if sys::poll(&mut watches, None).is_err() {
                // Without memory for a poll there may be some later.
                std::thread::sleep(std::time::Duration::from_millis(50));
                continue;
            }
            let [ended, ready @ ..] = watches.map(|watch| watch.revents != 0);
            for (source, ready) in sources.iter_mut().zip(ready) {
                if ready {
                    self.take_output(source, &mut buffer);
                }
            }
            if ended {
                // What it wrote before its end is in the pipes by now.
                for source in &mut sources {
                    let mut taken = 0;
                    while taken < LAST_BYTES {
                        match self.take_output(source, &mut buffer) {
                            0 => break,
                            count => taken += count,
                        }
                    }
                }
                if self.collect(pid, started_ns) {
                    pidfd = None;
                }
            }
        }
    }

    /// Reads once, without waiting; the end closes the source.
    fn take_output(&self, source: &mut Option<OwnedFd>, buffer: &mut [u8]) -> usize {
        let Some(open) = source else {
            return 0;
        };
        match sys::read(open.as_fd(), buffer) {
            Ok(0) => *source = None,
            Ok(count) => {
                let data = buffer.get(..count).unwrap_or_default();
                self.lock().output.push(data);
                return count;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                _ => *source = None,
            },
        }
        0
    }

    /// Reaps the process; true once it is done.
    fn collect(&self, pid: i32, started_ns: u64) -> bool {
        // Under the lock: no signal may go to a number that is free again.
        let mut state = self.lock();
        let waited = match sys::wait_nonblocking(pid) {
            Ok(None) => return false,
            Ok(Some(waited)) => waited,
            // Cannot happen unless someone traces us; there is no status then.
            Err(_) => Waited {
                outcome: Outcome::Code(255),
                peak_rss_kib: 0,
            },
        };
        state.phase = Phase::Exited(Exited {
            status: exit_status(waited.outcome),
            duration_ns: sys::monotonic_ns().saturating_sub(started_ns),
            peak_rss_kib: waited.peak_rss_kib,
            timed_out: false,
            oom: false,
            executed: true,
            step: 0,
        });
        true
    }

    /// Signals its process group; 9 ends all that it ever started.
    pub(super) fn signal(&self, number: i32) -> Result<(), Failure> {
        let state = self.lock();
        let pid = match state.phase {
            Phase::NotStarted | Phase::Starting => {
                return Err(bad_request("no workload has been started"));
            }
            Phase::Running { pid, .. } => Some(pid),
            Phase::Exited(_) => None,
        };
        if number != libc::SIGKILL {
            if let Some(pid) = pid {
                sys::kill_group(pid, number);
            }
            return Ok(());
        }
        let killed = state.group.as_ref().is_some_and(|g| g.kill().is_ok());
        if let Some(pid) = pid {
            if !killed {
                tree::kill_tree(pid);
            }
            // Also reaches a leader that was moved out of its group.
            sys::kill_group(pid, number);
        }
        Ok(())
    }

    /// State and at most `tail_bytes` of output.
    pub(super) fn report(&self, tail_bytes: u32) -> WorkloadReport {
        let state = self.lock();
        WorkloadReport {
            state: match &state.phase {
                Phase::NotStarted | Phase::Starting => WorkloadState::NotStarted,
                Phase::Running { pid, started_ns } => WorkloadState::Running {
                    pid: u32::try_from(*pid).unwrap_or_default(),
                    for_ns: sys::monotonic_ns().saturating_sub(*started_ns),
                },
                Phase::Exited(exited) => WorkloadState::Exited(*exited),
            },
            output_bytes: state.output.total(),
            tail: state
                .output
                .tail(usize::try_from(tail_bytes).unwrap_or(usize::MAX)),
        }
    }

    /// How it ended, if nothing of it is left that could still do its work. A
    /// process that exits with 0 and leaves others behind went to the
    /// background, as servers do.
    pub(super) fn end(&self) -> Option<ExitStatus> {
        let state = self.lock();
        let Phase::Exited(exited) = &state.phase else {
            return None;
        };
        let lives_on = exited.status == ExitStatus::Code(0)
            && state.group.as_ref().is_some_and(|group| !group.is_empty());
        (!lives_on).then_some(exited.status)
    }
}
