//! Runs one command, or a chain, between a connection and the guest.

mod ending;
mod hosts;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use exec_proto::{ExecLimits, ExecRequest, Failure, Reply};

use super::dialer::Post;
use super::durable::Held;
use super::failure;
use super::groups::Group;
use super::launch;
use super::link::{Link, OUTPUT_LIMIT, Received};
use super::output::{Output, To};
use super::stdin::Stdin;
use super::stream::Stream;
use super::{Agent, Stop, tree};
use crate::sys::{self, Outcome, Plan, Pty, Waited};

/// How long a command may run before its output is looked at and the first
/// frames leave. One that ends sooner costs a single wake-up and is
/// answered in a single packet; its pipes hold what it writes meanwhile.
pub(super) const QUIET: Duration = Duration::from_nanos(QUIET_NS);
const QUIET_NS: u64 = 4_000_000;
/// How long a killed tree may take to be gone before the answer leaves.
const KILL_WAIT: Duration = Duration::from_secs(2);

struct Child {
    pid: i32,
    pidfd: OwnedFd,
}

/// The commands' ends of pipes, kept until the last of a chain has started.
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

struct Command<'a> {
    agent: &'a Agent,
    plans: std::vec::IntoIter<Plan>,
    step: u32,
    tty: bool,
    size: (u16, u16),
    wants_stdin: bool,
    create_cwd: bool,
    stdin: Stdin,
    outputs: [Output; 2],
    ends: Option<Ends>,
    child: Option<Child>,
    group: Option<Group>,
    started_ns: u64,
    step_started_ns: u64,
    deadline_ns: Option<u64>,
    timed_out: bool,
    last: Waited,
    /// The program of the last step came to run.
    executed: bool,
    host_gone: bool,
    /// The host is let go once it has what is queued for it.
    parting: bool,
    /// Of its first command.
    argv: Vec<CString>,
    /// It is the agent's, and goes on without a host.
    held: Option<Held>,
    quiet_until: Option<u64>,
}

/// Where output goes: a durable command's is kept, for a host too.
fn to(held: &Option<Held>) -> To<'_> {
    held.as_ref()
        .map_or(To::Host, |held| To::Keep(&held.durable))
}

/// Runs `request` to its end and queues and sends everything about it. The
/// next connection is dialed when the command has been answered, or runs on
/// after the quiet time: no answer waits for it.
pub(super) fn run(
    agent: &Agent,
    link: &mut Link<'_>,
    request: ExecRequest,
    post: &Post<'_>,
) -> Result<(), Stop> {
    let is_durable = request.flags.durable;
    let mut command = Command::new(agent, request)?;
    match command.start_next() {
        Ok(pid) => {
            command.quiet_until = Some(sys::monotonic_ns().saturating_add(QUIET_NS));
            let pid = pid.unwrap_or_default();
            link.queue(&Reply::Started { pid });
            if is_durable {
                let id = command.become_durable()?;
                link.queue(&Reply::Durable { id });
            }
        }
        Err(Stop::Refused(failure)) if failure.kind.is_exec_status() => {
            link.queue(&Reply::Started { pid: 0 });
            if is_durable {
                let id = command.become_durable()?;
                link.queue(&Reply::Durable { id });
            }
            command.not_executed(link, &failure);
            command.wind_up(link);
        }
        Err(stop) => return Err(stop),
    }
    let result = command
        .serve(link, post)
        .and_then(|()| command.finish(link));
    // Before the tree of a command that lost its host is waited for.
    post.pass_on();
    result
}

fn resources(error: &io::Error) -> Stop {
    Stop::Refused(failure::resources(error, "command"))
}

/// A group for a command: without limits it may do without.
fn group_for(agent: &Agent, limits: &ExecLimits) -> Result<Option<Group>, Failure> {
    let pool = agent.groups.get();
    if *limits == ExecLimits::default() {
        return Ok(pool.and_then(|pool| pool.take().ok()));
    }
    let unlimited = |error: &io::Error| failure::not_permitted(error, "cannot limit the command");
    let Some(pool) = pool else {
        return Err(unlimited(&io::ErrorKind::Unsupported.into()));
    };
    match pool.take_limited(limits) {
        Ok(group) => Ok(Some(group)),
        Err(error) => Err(unlimited(&error)),
    }
}

impl<'a> Command<'a> {
    fn new(agent: &'a Agent, request: ExecRequest) -> Result<Self, Stop> {
        let flags = request.flags;
        let size = (request.winsize.cols, request.winsize.rows);
        let group = group_for(agent, &request.limits)?;
        let timeout_ms = request.timeout_ms;
        let plans = launch::plans(request, agent.places.own.as_fd())?.into_iter();
        let started_ns = sys::monotonic_ns();
        let mut command = Self {
            agent,
            plans,
            step: 0,
            tty: flags.tty,
            size,
            wants_stdin: flags.stdin,
            create_cwd: flags.create_cwd,
            stdin: Stdin::new(None, flags.tty),
            outputs: [
                Output::new(Stream::Stdout, None, flags.tty),
                Output::new(Stream::Stderr, None, false),
            ],
            ends: None,
            child: None,
            group,
            started_ns,
            step_started_ns: started_ns,
            deadline_ns: (timeout_ms != 0)
                .then(|| started_ns.saturating_add(timeout_ms.saturating_mul(1_000_000))),
            timed_out: false,
            last: Waited {
                outcome: Outcome::Code(0),
                peak_rss_kib: 0,
            },
            executed: true,
            host_gone: false,
            parting: false,
            argv: Vec::new(),
            held: None,
            quiet_until: None,
        };
        if !command.tty {
            command.open_pipes().map_err(|error| resources(&error))?;
        }
        Ok(command)
    }

    fn open_pipes(&mut self) -> io::Result<()> {
        let (stdout_source, stdout) = sys::pipe()?;
        let (stderr_source, stderr) = sys::pipe()?;
        let stdin = if self.wants_stdin {
            let (source, target) = sys::pipe()?;
            sys::set_nonblocking(target.as_fd())?;
            self.stdin = Stdin::new(Some(target), false);
            Some(source)
        } else {
            None
        };
        self.outputs = [
            Output::new(Stream::Stdout, Some(stdout_source), false),
            Output::new(Stream::Stderr, Some(stderr_source), false),
        ];
        self.ends = Some(Ends {
            stdin,
            stdout,
            stderr,
        });
        Ok(())
    }

    /// A new terminal for the next command: the one before died with its
    /// session's leader.
    fn open_terminal(&mut self) -> io::Result<OwnedFd> {
        let places = &self.agent.places;
        let pty = Pty::open(
            (places.terminals.as_fd(), places.ptmx),
            self.size.0,
            self.size.1,
        )?;
        sys::set_nonblocking(pty.master.as_fd())?;
        if self.wants_stdin {
            let target = Some(pty.master.try_clone()?);
            if self.step == 0 {
                self.stdin = Stdin::new(target, true);
            } else {
                self.stdin.retarget(target);
            }
        }
        let [stdout, _] = &mut self.outputs;
        stdout.reopen(pty.master);
        Ok(pty.slave)
    }

    /// Starts the next command of the chain and gives its process id; `None`
    /// after the last.
    fn start_next(&mut self) -> Result<Option<u32>, Stop> {
        let Some(plan) = self.plans.next() else {
            return Ok(None);
        };
        let slave = if self.tty {
            Some(self.open_terminal().map_err(|error| resources(&error))?)
        } else {
            None
        };
        let null = self.agent.places.null.as_fd();
        let start = launch::Start {
            pool: self.agent.groups.get().map(|pool| &**pool),
            stdio: match (&slave, &self.ends) {
                (Some(slave), _) => [slave.as_fd(); 3],
                (None, Some(ends)) => [
                    ends.stdin.as_ref().map_or(null, AsFd::as_fd),
                    ends.stdout.as_fd(),
                    ends.stderr.as_fd(),
                ],
                (None, None) => [null; 3],
            },
            tty: self.tty,
            create_cwd: self.create_cwd,
        };
        let started = start.spawn(&plan, &mut self.group);
        let started = started.map_err(|error| launch::explain(&plan, error));
        if self.step == 0 {
            self.argv = plan.argv;
        }
        let (pid, pidfd) = started?;
        self.step_started_ns = if self.step == 0 {
            self.started_ns
        } else {
            sys::monotonic_ns()
        };
        let child = Child { pid, pidfd };
        let pid = u32::try_from(child.pid).unwrap_or_default();
        self.child = Some(child);
        if let Some(held) = &self.held {
            held.durable.set_pid(pid);
        }
        if self.plans.as_slice().is_empty() {
            self.ends = None;
        }
        Ok(Some(pid))
    }

    /// Moves bytes and waits until the command has ended and its output is queued.
    fn serve(&mut self, link: &mut Link<'_>, post: &Post<'_>) -> Result<(), Stop> {
        loop {
            self.serve_host(link)?;
            if self.child.is_none() && !self.outputs.iter().any(Output::is_open) {
                return Ok(());
            }
            let now = sys::monotonic_ns();
            self.check_deadline(now);
            self.stdin.repeat_end(now);
            self.send(link, now)?;
            if self.quiet_until.is_none() && self.child.is_some() {
                post.pass_on();
            }
            self.wait(link, now)?;
        }
    }

    fn check_deadline(&mut self, now: u64) {
        if self.deadline_ns.is_some_and(|deadline| now >= deadline) {
            self.deadline_ns = None;
            if self.child.is_some() {
                self.timed_out = true;
                self.kill_tree();
            }
        }
    }

    /// Sends what is queued unless it still waits for the command's end.
    fn send(&mut self, link: &mut Link<'_>, now: u64) -> Result<(), Stop> {
        if self.quiet_until.is_some_and(|until| now >= until) || self.child.is_none() {
            self.quiet_until = None;
        }
        if self.host_gone || link.pending() == 0 || self.quiet_until.is_some() {
            return Ok(());
        }
        // What is kept for the host is queued until it has all, or takes no more.
        while link.pending() > 0 {
            if link.send_some().is_err() {
                return self.lose_host();
            }
            if link.pending() > 0 {
                return Ok(());
            }
            self.deliver(link);
        }
        self.part_if_sent(link);
        Ok(())
    }

    fn wait(&mut self, link: &mut Link<'_>, now: u64) -> Result<(), Stop> {
        // Order: host, command's end, stdin, stdout, stderr, who calls. A negative
        // descriptor makes poll skip the entry.
        let skip = sys::Watch {
            fd: -1,
            events: 0,
            revents: 0,
        };
        let quiet = self.quiet_until.is_some();
        let sending = !self.host_gone && !quiet && link.pending() > 0;
        let listening = !quiet && (self.held.is_some() || link.pending() < OUTPUT_LIMIT);
        let host_events = if sending {
            sys::POLLIN | sys::POLLOUT
        } else {
            sys::POLLIN
        };
        let [stdout, stderr] = &self.outputs;
        let output = |output: &Output| {
            let watch = output.watch();
            watch
                .filter(|_| listening && self.has_room(output.stream()))
                .unwrap_or(skip)
        };
        let child = self.child.as_ref();
        let mut watches = [
            if self.host_gone {
                skip
            } else {
                super::watch(link.socket(), host_events)
            },
            child.map_or(skip, |c| super::watch(c.pidfd.as_fd(), sys::POLLIN)),
            self.stdin.watch().unwrap_or(skip),
            output(stdout),
            output(stderr),
            self.held.as_ref().map_or(skip, |held| held.durable.bell()),
        ];
        let next_end = self.stdin.next_end_ns().filter(|_| child.is_some());
        let until = [self.deadline_ns, self.quiet_until, next_end];
        let until = until.into_iter().flatten().min();
        let limit = until.map(|until| Duration::from_nanos(until.saturating_sub(now)));
        sys::poll(&mut watches, limit)?;
        let [host, ended, stdin, stdout, stderr, called] = watches.map(|watch| watch.revents);
        if stdin != 0 {
            self.stdin.handle(stdin);
        }
        for (events, output) in [stdout, stderr].into_iter().zip(&mut self.outputs) {
            if events != 0 {
                output.read_all(link, to(&self.held));
            }
        }
        if host & (sys::POLLIN | sys::POLLHUP | sys::POLLERR) != 0
            && link.receive(false) == Received::End
        {
            self.lose_host()?;
        }
        if called != 0 {
            self.take_caller(link);
        }
        if ended != 0 {
            self.collect(link)?;
        }
        Ok(())
    }

    /// The running command has ended: goes on with the chain or winds up.
    fn collect(&mut self, link: &mut Link<'_>) -> Result<(), Stop> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        let waited = match sys::wait_nonblocking(child.pid) {
            Ok(Some(waited)) => waited,
            Ok(None) => return Ok(()),
            // Cannot happen unless someone traces us; there is no status then.
            Err(_) => Waited {
                outcome: Outcome::Code(255),
                peak_rss_kib: 0,
            },
        };
        self.child = None;
        self.last = Waited {
            outcome: waited.outcome,
            peak_rss_kib: self.last.peak_rss_kib.max(waited.peak_rss_kib),
        };
        let [stdout, _] = &mut self.outputs;
        stdout.drain_terminal(link, to(&self.held));
        if waited.outcome == Outcome::Code(0)
            && !self.timed_out
            && !self.plans.as_slice().is_empty()
        {
            if !self.host_gone {
                let own = self.exited(waited, self.step_started_ns);
                link.queue(&Reply::Step(own));
            }
            self.step = self.step.saturating_add(1);
            match self.start_next() {
                Ok(_) => return Ok(()),
                Err(Stop::Refused(failure)) if failure.kind.is_exec_status() => {
                    self.not_executed(link, &failure);
                }
                Err(stop) => return Err(stop),
            }
        }
        self.wind_up(link);
        Ok(())
    }

    fn kill_tree(&self) {
        let killed = self.group.as_ref().is_some_and(|g| g.kill().is_ok());
        if let Some(child) = &self.child {
            if !killed {
                tree::kill_tree(child.pid);
            }
            // Also reaches a leader that was moved out of its group.
            sys::kill_group(child.pid, libc::SIGKILL);
        }
    }

    fn release_group(&mut self) {
        if let (Some(group), Some(pool)) = (self.group.take(), self.agent.groups.get()) {
            pool.give_back(group);
        }
    }
}

impl Drop for Command<'_> {
    /// Whatever ends a command early, host gone, breach or panic: nothing of it
    /// stays behind.
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            self.kill_tree();
            let mut ended = [super::watch(child.pidfd.as_fd(), sys::POLLIN)];
            let _ = sys::poll(&mut ended, Some(KILL_WAIT));
            let _ = sys::wait_nonblocking(child.pid);
            if let Some(group) = &self.group {
                group.wait_until_empty(KILL_WAIT);
            }
        }
        self.release_group();
        if let Some(held) = self.held.take() {
            self.agent.durable.forget(held.durable.id);
        }
    }
}
