//! What a command hears from its host; and for a durable one, hosts that go and
//! others that come.

use std::os::fd::AsFd;

use exec_proto::{Offsets, ProtoError, Reply, Request};

use super::super::Stop;
use super::super::durable::{self, Held};
use super::super::failure::breach;
use super::super::link::Link;
use super::super::stdin::Accepted;
use super::super::stream::Stream;
use super::Command;
use crate::sys;

/// Whether more of a stream may be read: what a host has not got is not thrown away.
pub(super) fn has_room(held: &Option<Held>, host_gone: bool, stream: Stream) -> bool {
    match held {
        Some(held) => host_gone || held.has_room(stream),
        None => true,
    }
}

impl Command<'_> {
    pub(super) fn has_room(&self, stream: Stream) -> bool {
        has_room(&self.held, self.host_gone, stream)
    }

    /// Takes what the host says, and queues what it is owed.
    pub(super) fn serve_host(&mut self, link: &mut Link<'_>) -> Result<(), Stop> {
        if self.host_gone {
            return Ok(());
        }
        match self.take_requests(link) {
            Ok(()) => {}
            Err(Stop::Refused(failure)) if self.held.is_some() => {
                durable::hang_up(link, failure);
                return self.lose_host();
            }
            Err(stop) => return Err(stop),
        }
        self.report_stdin(link);
        self.deliver(link);
        Ok(())
    }

    /// Queues what of a durable command's output the host has not got.
    pub(super) fn deliver(&mut self, link: &mut Link<'_>) {
        if let Some(held) = self.held.as_mut().filter(|_| !self.parting) {
            held.deliver(link);
        }
    }

    fn take_requests(&mut self, link: &mut Link<'_>) -> Result<(), Stop> {
        let mut wants_to_go = false;
        while let Some(request) = link.parser.next_request().map_err(|e| breach(&e))? {
            match request {
                Request::Stdin(data) => {
                    if self.stdin.accept(data) == Accepted::BeyondWindow {
                        return Err(breach(&ProtoError::Misuse {
                            what: "more stdin than the window allows",
                        })
                        .into());
                    }
                }
                Request::StdinEof => self.stdin.end(),
                Request::Signal(number) => {
                    if let Some(child) = &self.child {
                        match i32::try_from(number).unwrap_or_default() {
                            // As for a workload: nothing of it is to go on.
                            libc::SIGKILL => self.kill_tree(),
                            number => sys::kill_group(child.pid, number),
                        }
                    }
                }
                Request::Resize(size) => {
                    self.size = (size.cols, size.rows);
                    let [stdout, _] = &self.outputs;
                    if let Some(master) = stdout.source()
                        && self.tty
                    {
                        // A terminal that is gone needs no size.
                        let _ = sys::set_winsize(master.as_fd(), size.cols, size.rows);
                    }
                }
                Request::Detach => wants_to_go = true,
                _ => {
                    return Err(breach(&ProtoError::Misuse {
                        what: "a command occupies the connection",
                    })
                    .into());
                }
            }
        }
        if wants_to_go && !self.parting {
            self.begin_parting(link)?;
        }
        Ok(())
    }

    fn report_stdin(&mut self, link: &mut Link<'_>) {
        if let Some(bytes) = self.stdin.take_grant() {
            link.queue(&Reply::StdinWindow(bytes));
        }
        if self.stdin.take_closed() {
            link.queue(&Reply::StdinClosed);
        }
    }

    /// From here on the command is the agent's. Gives its id.
    pub(super) fn become_durable(&mut self) -> Result<u64, Stop> {
        let [stdout, stderr] = &self.outputs;
        let before = Offsets {
            stdout: stdout.total(),
            stderr: stderr.total(),
        };
        let commands = &self.agent.durable;
        let durable = commands.add(&self.argv, self.tty, self.started_ns, before)?;
        if let Some(child) = &self.child {
            durable.set_pid(u32::try_from(child.pid).unwrap_or_default());
        }
        let id = durable.id;
        self.held = Some(Held::new(durable, before));
        Ok(id)
    }

    /// The host wants the command to go on without it. What is queued for it was
    /// sent as far as it is concerned.
    fn begin_parting(&mut self, link: &mut Link<'_>) -> Result<(), Stop> {
        if self.held.is_none() {
            self.become_durable()?;
        }
        if let Some(held) = &self.held {
            let (id, sent) = (held.durable.id, held.sent());
            link.queue(&Reply::Detached { id, sent });
        }
        self.parting = true;
        // Nothing is worth waiting for any more.
        self.quiet_until = None;
        Ok(())
    }

    /// Lets a host go that has all that was queued for it.
    pub(super) fn part_if_sent(&mut self, link: &Link<'_>) {
        if self.parting && link.pending() == 0 {
            // First, so that a host which reads the end finds the command let go.
            self.set_host_gone(true);
            sys::shutdown_write(link.socket());
        }
    }

    fn set_host_gone(&mut self, gone: bool) {
        self.host_gone = gone;
        self.parting = false;
        if let Some(held) = &self.held {
            held.durable.set_attached(!gone);
        }
    }

    /// The host is gone: the command goes too, unless it is durable.
    pub(super) fn lose_host(&mut self) -> Result<(), Stop> {
        if self.held.is_none() {
            return Err(Stop::Gone);
        }
        self.set_host_gone(true);
        Ok(())
    }

    /// Somebody calls for the streams of a durable command.
    pub(super) fn take_caller(&mut self, link: &mut Link<'_>) {
        let Some(held) = &mut self.held else {
            return;
        };
        let Some(caller) = held.durable.caller() else {
            return;
        };
        if !self.host_gone && !self.parting {
            durable::hang_up(link, durable::taken_over());
        }
        let child = self.child.as_ref();
        let pid = child.map_or(0, |child| u32::try_from(child.pid).unwrap_or_default());
        held.welcome(link, caller, pid, self.stdin.hand_over());
        self.quiet_until = None;
        self.set_host_gone(false);
    }
}
