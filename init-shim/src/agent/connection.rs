//! What happens on one connection: greeting, control requests, commands.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use exec_proto::{
    AgentReady, CAP_TREE_KILL, ErrorKind, Failure, Hello, MAX_FILE_BYTES, MAX_STAGED_BYTES, Reply,
    Request,
};

use super::command;
use super::dialer::{Greeting, Post};
use super::failure::{bad_request, breach};
use super::files::{Reading, Writing, guest_path};
use super::link::{Buffers, Link, OUTPUT_LIMIT, Received};
use super::{Agent, Stop, entry, listener, resume};
use crate::sys;

/// How long a failed connection may take to be closed by the host.
const LINGER: Duration = Duration::from_secs(1);

/// How long a host may take from its connection to its first request. The
/// agent's own call waits for as long as it takes.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(60);

/// What a finished request asks of the connection's loop.
enum After {
    GoOn,
    PowerOff,
}

/// Serves one connection to its end. Never panics for anything the peer or the
/// guest does.
pub fn serve(agent: &Agent, socket: OwnedFd, greeting: &Greeting, buffers: &mut Buffers) {
    serve_at(agent, socket, greeting, buffers, &Post::none());
}

/// As [`serve`]; gives up `post` once the host uses the connection.
pub(super) fn serve_at(
    agent: &Agent,
    socket: OwnedFd,
    greeting: &Greeting,
    buffers: &mut Buffers,
    post: &Post<'_>,
) {
    let mut link = Link::new(socket, buffers);
    let hello = Hello::new(if agent.groups.get().is_some() {
        CAP_TREE_KILL
    } else {
        0
    });
    match greeting {
        Greeting::Hello => link.queue(&Reply::Hello(hello)),
        Greeting::Ready {
            started_ns,
            ready_ns,
        } => {
            link.queue(&Reply::Ready(AgentReady {
                hello,
                started_ns: *started_ns,
                ready_ns: *ready_ns,
                kernel_release: sys::kernel_release(),
            }));
            if link.send_some().is_err() {
                return;
            }
        }
    }
    let mut connection = Connection {
        agent,
        link,
        writing: None,
        post,
    };
    match connection.run() {
        Ok(After::GoOn) | Err(Stop::Gone) => {}
        Ok(After::PowerOff) => {
            connection.link.close_gently(LINGER);
            sys::kill_everything();
            sys::sync_all();
            sys::power_off();
        }
        Err(Stop::Refused(failure)) => {
            post.pass_on();
            connection.link.queue(&Reply::Error(failure));
            connection.link.close_gently(LINGER);
        }
    }
}

/// Turns one connection away because no worker can serve it.
pub(super) fn refuse(socket: OwnedFd, failure: Failure, buffers: &mut Buffers) {
    let mut link = Link::new(socket, buffers);
    link.queue(&Reply::Hello(Hello::new(0)));
    link.queue(&Reply::Error(failure));
    // Without waiting: this runs where the next connection is accepted.
    if link.send_some().is_ok() {
        sys::shutdown_write(link.socket());
    }
}

struct Connection<'a> {
    agent: &'a Agent,
    link: Link<'a>,
    writing: Option<Incoming>,
    post: &'a Post<'a>,
}

struct Incoming {
    file: Writing,
    ack: bool,
}

impl Connection<'_> {
    fn run(&mut self) -> Result<After, Stop> {
        // The host speaks first; our hello waits to share a packet with the
        // answer.
        let mut heard = false;
        loop {
            while let Some(request) = self.link.parser.next_request().map_err(|e| breach(&e))? {
                if self.writing.is_some() && !matches!(request, Request::FileChunk(_)) {
                    return Err(bad_request("another request inside a file").into());
                }
                let request = match request {
                    Request::Exec(exec) => {
                        command::run(self.agent, &mut self.link, exec, self.post)?;
                        continue;
                    }
                    Request::StartWorkload(exec) => {
                        let report = self.agent.workload.start(self.agent, exec)?;
                        self.link.queue(&Reply::Workload(report));
                        continue;
                    }
                    Request::Attach { id, from } => {
                        // The call may go on for as long as a command.
                        self.post.pass_on();
                        self.agent.durable.attach(&mut self.link, id, from)?;
                        continue;
                    }
                    Request::Dial { transport, port } => {
                        // The call goes on for as long as the connection.
                        self.post.pass_on();
                        self.agent.inbound.serve(&mut self.link, transport, port)?;
                        return Err(Stop::Gone);
                    }
                    Request::AwaitListener { port, timeout_ms } => {
                        self.post.pass_on();
                        self.link.flush()?;
                        listener::wait(&self.link, &self.agent.workload, port, timeout_ms)?;
                        self.link.queue(&Reply::Done);
                        continue;
                    }
                    request => request,
                };
                if !is_quick(&request) {
                    self.post.pass_on();
                }
                let reply = control(self.agent, &mut self.writing, &request)?;
                let powers_off = request == Request::Shutdown;
                if let Request::ReadFile(path) = request {
                    let path = path.to_vec();
                    self.send_file(&path)?;
                }
                if let Some(reply) = reply {
                    self.link.queue(&reply);
                }
                if powers_off {
                    return Ok(After::PowerOff);
                }
                // A host that asks without reading must not grow our buffer.
                if self.link.pending() > OUTPUT_LIMIT {
                    self.link.flush()?;
                }
            }
            if heard {
                self.link.flush()?;
                // A command on the heels of a quick request goes first.
                if self.post.is_held() && !self.link.wait_for_input(command::QUIET)? {
                    self.post.pass_on();
                }
            }
            if !heard && !self.post.is_held() && !self.link.wait_for_input(self.agent.patience)? {
                return Ok(After::GoOn);
            }
            if self.link.receive(true) == Received::End {
                if heard {
                    self.post.pass_on();
                }
                return Ok(After::GoOn);
            }
            if !heard {
                self.post.in_use();
            }
            heard = true;
        }
    }

    fn send_file(&mut self, path: &[u8]) -> Result<(), Stop> {
        let mut file = Reading::open(guest_path(path), MAX_FILE_BYTES)?;
        loop {
            let len = file.next(&mut self.link.buffers.chunk)?;
            let last = len == 0;
            self.link
                .queue_chunk(len, |data| Reply::FileData { last, data });
            if last {
                return Ok(());
            }
            if self.link.pending() > OUTPUT_LIMIT {
                self.link.flush()?;
            }
        }
    }
}

/// Requests that are over sooner than another thread would be awake.
fn is_quick(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::Hello(_)
            | Request::Ping(_)
            | Request::SetTime(_)
            | Request::Reseed(_)
            | Request::Resume(_)
            | Request::Release
            | Request::WorkloadSignal(_)
            | Request::WorkloadStatus { .. }
            | Request::ListExecs
    )
}

/// Does what a request asks, except for commands and file reads, and gives the
/// answer it deserves.
fn control(
    agent: &Agent,
    writing: &mut Option<Incoming>,
    request: &Request<'_>,
) -> Result<Option<Reply<'static>>, Failure> {
    let done = |result: std::io::Result<()>, what: &str| match result {
        Ok(()) => Ok(Some(Reply::Done)),
        Err(error) => Err(Failure {
            kind: ErrorKind::NotPermitted,
            errno: error.raw_os_error().unwrap_or(0),
            message: format!("{what}: {error}"),
        }),
    };
    match request {
        Request::FileChunk(chunk) => {
            let mut incoming = match (writing.take(), chunk.first) {
                (None, true) => {
                    let limit = if chunk.ack {
                        MAX_FILE_BYTES
                    } else {
                        MAX_STAGED_BYTES
                    };
                    Incoming {
                        file: Writing::begin(guest_path(chunk.path), chunk.mode, limit)?,
                        ack: chunk.ack,
                    }
                }
                (Some(incoming), false) => incoming,
                (None, false) => return Err(bad_request("a file without a beginning")),
                (Some(_), true) => return Err(bad_request("a file inside a file")),
            };
            incoming.file.append(chunk.data)?;
            if !chunk.last {
                *writing = Some(incoming);
                return Ok(None);
            }
            let ack = incoming.ack;
            let bytes = incoming.file.finish()?;
            Ok(ack.then_some(Reply::FileWritten(bytes)))
        }
        Request::Ping(nonce) => Ok(Some(Reply::Pong(*nonce))),
        Request::SetTime(ns) => {
            agent.require_machine_control()?;
            done(sys::set_clock(*ns), "cannot set the clock")
        }
        Request::Reseed(seed) => {
            agent.require_machine_control()?;
            let random = agent.places.random.as_fd();
            done(sys::reseed_kernel(random, seed, &[]), "cannot reseed")
        }
        Request::Sync => {
            sys::sync_all();
            Ok(Some(Reply::Done))
        }
        Request::Shutdown => {
            agent.require_machine_control()?;
            Ok(Some(Reply::Done))
        }
        Request::Resume(wanted) => Ok(Some(Reply::Resumed(resume::resume(agent, wanted)?))),
        Request::Quiesce { drop_caches } => {
            resume::quiesce(agent, *drop_caches)?;
            Ok(Some(Reply::Done))
        }
        Request::Alone => {
            resume::require_no_programs(agent)?;
            Ok(Some(Reply::Done))
        }
        Request::Release => {
            resume::release(agent)?;
            Ok(Some(Reply::Done))
        }
        Request::EnterRoot(options) => {
            entry::enter(agent, options)?;
            Ok(Some(Reply::Done))
        }
        Request::ListExecs => Ok(Some(Reply::Execs(agent.durable.list()))),
        Request::WorkloadSignal(number) => {
            let number = i32::try_from(*number).unwrap_or_default();
            agent.workload.signal(number)?;
            Ok(Some(Reply::Done))
        }
        Request::WorkloadStatus { tail_bytes } => {
            Ok(Some(Reply::Workload(agent.workload.report(*tail_bytes))))
        }
        // Late words to a command that has ended meanwhile; and files, commands
        // and hellos, which others handle.
        _ => Ok(None),
    }
}
