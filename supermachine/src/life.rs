//! What a machine does between its start and its end, told and changed by its owner or
//! by another process of the user.

use crate::deadline::Deadline;
use crate::embedder::ask;
use crate::embedder::personalise::await_done;
use crate::ending::ask_to_end;
use crate::events::Watch;
use crate::exec::{Channel, Opens};
use crate::files::mounts::grow_volume;
use crate::limits::{ANSWER_TIMEOUT, GREETING_TIMEOUT, MACHINE_END_TIMEOUT};
use crate::link::monitor::{self, Answer, Flows, Question};
use crate::link::sockets::exec as exec_socket;
use crate::running::RunningVm;
use crate::{Error, NetworkFlow, Vm, VmEvents, VmStats, volume};
use std::path::Path;
use std::time::Duration;

/// Flows after which no more is asked for: more than a worker keeps.
const MOST_FLOWS: usize = 16 << 10;

/// What the worker of a directory answers.
fn answer(dir: &Path, question: Question) -> Result<Answer, Error> {
    let deadline = Deadline::within(ANSWER_TIMEOUT);
    ask::ask(dir, question, deadline).map(|(_, answer)| answer)
}

fn change(dir: &Path, question: Question) -> Result<bool, Error> {
    match answer(dir, question)? {
        Answer::Done { changed } => Ok(changed),
        _ => Err(ask::unexpected()),
    }
}

fn stats(dir: &Path) -> Result<VmStats, Error> {
    match answer(dir, Question::Stats)? {
        Answer::Stats(stats) => Ok(*stats),
        _ => Err(ask::unexpected()),
    }
}

fn console(dir: &Path) -> Result<String, Error> {
    match answer(dir, Question::Console)? {
        Answer::Console(text) => Ok(text),
        _ => Err(ask::unexpected()),
    }
}

/// Flows of a machine from a number on, or the first of them.
pub(crate) fn flows_since(dir: &Path, from: u64) -> Result<Flows, Error> {
    match answer(dir, Question::Flows { from })? {
        Answer::Flows(flows) => Ok(flows),
        _ => Err(ask::unexpected()),
    }
}

fn flows(dir: &Path) -> Result<Vec<NetworkFlow>, Error> {
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let found = flows_since(dir, from)?;
        // Numbers only grow, and a machine that makes flows all the time has an end here.
        if found.flows.is_empty() || found.next <= from || all.len() >= MOST_FLOWS {
            return Ok(all);
        }
        from = found.next;
        all.extend(found.flows);
    }
}

impl Vm {
    /// Pauses the machine: none of its processors and devices does anything until
    /// [`Vm::resume`]. One that is paused already stays so.
    ///
    /// Its clocks stand still. When it goes on, its monotonic clock goes on from where
    /// it was, so that no timer has run out meanwhile, and its wall clock is set to the
    /// time of then. Connections and commands that are under way stay, and their time
    /// limits do not run.
    ///
    /// A paused machine can be asked for its figures, console and events, and stopped or
    /// dropped. Commands, files, snapshots and forks are [`Error::Paused`]. A pool lets
    /// one go on that is given back.
    ///
    /// # Errors
    /// [`Error::Refused`] while it is being captured, or if it does not come to rest;
    /// [`Error::Ended`] once it has ended.
    pub fn pause(&self) -> Result<(), Error> {
        let _alone = self.alone();
        let changed = self.asked(change(self.instance().dir(), Question::Pause))?;
        if changed {
            self.instance().is_paused_by_owner(true);
        }
        Ok(())
    }

    /// Lets a paused machine go on, and sets its wall clock. One that is not paused goes
    /// on as it does.
    ///
    /// # Errors
    /// As [`Vm::pause`]; [`Error::Timeout`] if the guest does not take the time.
    pub fn resume(&self) -> Result<(), Error> {
        let _alone = self.alone();
        let changed = self.asked(change(self.instance().dir(), Question::Resume))?;
        self.instance().is_paused_by_owner(false);
        if changed {
            self.set_clock()?;
        }
        Ok(())
    }

    /// Whether somebody has paused it.
    pub fn is_paused(&self) -> bool {
        self.instance().is_paused()
    }

    /// Grows a [volume](crate::VolumeSpec) that the machine has to this size, while it is
    /// mounted. One that is as large already stays as it is.
    ///
    /// # Errors
    /// [`Error::Volume`] if the machine has none of that name, or it cannot be as large,
    /// or it begins with what a snapshot holds;
    /// [`Error::Refused`] while the machine is paused, and if the host cannot grow it;
    /// [`Error::Exec`] if the guest cannot use what it has more, which the next machine
    /// that has the volume tries again.
    pub fn grow_volume(&self, name: &str, size_mib: u64) -> Result<(), Error> {
        let volumes = self.described_volumes();
        let question = volume::growth(&volumes, name, size_mib)?;
        self.asked(change(self.instance().dir(), question.asked))?;
        let place = &volumes[question.number].place;
        grow_volume(self, question.number, place, size_mib << 20)
    }

    /// What the machine has used so far, and what it has now.
    ///
    /// # Errors
    /// [`Error::Ended`] once it has ended.
    pub fn stats(&self) -> Result<VmStats, Error> {
        self.asked(stats(self.instance().dir()))
    }

    /// What became of the guest's flows: the latest 4,096 that have ended or were
    /// refused, the oldest first. Those of a machine without a network are none, and a
    /// pool's machine begins anew with each reset.
    ///
    /// # Errors
    /// [`Error::Ended`] once the machine has ended.
    pub fn network_log(&self) -> Result<Vec<NetworkFlow>, Error> {
        self.asked(flows(self.instance().dir()))
    }

    /// The end of what the guest wrote to its console, the kernel's messages among it:
    /// the last 16 KiB, with what is not UTF-8 replaced. Also after the machine has
    /// ended by itself.
    ///
    /// # Errors
    /// [`Error::Ended`] if nothing is left of it to tell.
    pub fn console_log(&self) -> Result<String, Error> {
        console(self.instance().dir()).or_else(|error| {
            let mut worker = self.instance().worker();
            worker.end_within(MACHINE_END_TIMEOUT);
            worker.ended_console().ok_or(error)
        })
    }

    /// What happens to the machine from now on: that it was paused, that its workload
    /// listens or has ended, that it ran out of memory, its end. What the workload does is
    /// known up to a second late. Each caller gets all of it.
    ///
    /// # Errors
    /// [`Error::Ended`] once it has ended.
    pub fn events(&self) -> Result<VmEvents, Error> {
        let dir = self.instance().dir();
        let watch = Watch::new(dir, self.exec_path(), self.image_config());
        self.asked(VmEvents::follow(dir, watch))
    }

    /// Stops the machine in good order: sends its workload the image's stop signal
    /// (TERM if it names none), waits for its end, for four fifths of `grace` at most, and
    /// asks the guest to write its caches out and turn itself off. The plug is pulled if
    /// it has not after `grace`. Whether it did.
    ///
    /// # Errors
    /// None today.
    pub fn shutdown(self, grace: Duration) -> Result<bool, Error> {
        Ok(self.end_gracefully(grace))
    }

    pub(crate) fn end_gracefully(&self, grace: Duration) -> bool {
        let deadline = Deadline::within(grace);
        let instance = self.instance();
        // The connection stays until it is off: the request is on it.
        let asked = match grace.is_zero() {
            true => None,
            false => ask_to_end(self, deadline).ok(),
        };
        let is_off = asked.is_some() && instance.process().ends_within(deadline.left_of(grace));
        self.end();
        is_off
    }

    /// What was asked; if that broke because the machine has ended, how it did.
    fn asked<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.map_err(|error| match error {
            Error::Connection { .. } => {
                let ended = self.instance().worker().end_within(MACHINE_END_TIMEOUT);
                ended.unwrap_or(error)
            }
            error => error,
        })
    }
}

impl RunningVm {
    /// Pauses the machine as [`Vm::pause`] does. Time limits of commands that others
    /// have under way run on.
    ///
    /// # Errors
    /// As [`Vm::pause`].
    pub fn pause(&self) -> Result<(), Error> {
        self.asked(change(self.dir(), Question::Pause)).map(drop)
    }

    /// Lets the machine go on as [`Vm::resume`] does, with the time of the host.
    ///
    /// # Errors
    /// As [`Vm::resume`]; [`Error::Unsuitable`] for a machine that has another time than
    /// the host, which only its owner knows.
    pub fn resume(&self) -> Result<(), Error> {
        if self.description.has_own_time {
            return Err(Error::Unsuitable {
                what: "letting a machine go on",
                needs: "its owner, who gives it another time than the host's",
            });
        }
        if !self.asked(change(self.dir(), Question::Resume))? {
            return Ok(());
        }
        let deadline = Deadline::within(GREETING_TIMEOUT);
        let channel = self.open_session(deadline, &|_| Ok(()))?;
        set_host_time(&channel, deadline)
    }

    /// Whether somebody has paused it.
    pub fn is_paused(&self) -> bool {
        monitor::paused_mark(self.dir()).exists()
    }

    /// Grows a volume that the machine has, as [`Vm::grow_volume`] does.
    ///
    /// # Errors
    /// As [`Vm::grow_volume`].
    pub fn grow_volume(&self, name: &str, size_mib: u64) -> Result<(), Error> {
        let volumes = &self.description.volumes;
        let question = volume::growth(volumes, name, size_mib)?;
        self.asked(change(self.dir(), question.asked))?;
        let place = &volumes[question.number].place;
        grow_volume(self, question.number, place, size_mib << 20)
    }

    /// What it has used so far, as [`Vm::stats`] tells.
    ///
    /// # Errors
    /// As [`Vm::stats`].
    pub fn stats(&self) -> Result<VmStats, Error> {
        self.asked(stats(self.dir()))
    }

    /// What became of the guest's flows, as [`Vm::network_log`] tells.
    ///
    /// # Errors
    /// As [`Vm::network_log`].
    pub fn network_log(&self) -> Result<Vec<NetworkFlow>, Error> {
        self.asked(flows(self.dir()))
    }

    /// The end of its console, as [`Vm::console_log`] tells of one that runs.
    ///
    /// # Errors
    /// As [`Vm::console_log`].
    pub fn console_log(&self) -> Result<String, Error> {
        self.asked(console(self.dir()))
    }

    /// What happens to it from now on, as [`Vm::events`] tells.
    ///
    /// # Errors
    /// As [`Vm::events`].
    pub fn events(&self) -> Result<VmEvents, Error> {
        let exec = exec_socket(self.dir());
        let watch = Watch::new(self.dir(), &exec, &self.description.config);
        self.asked(VmEvents::follow(self.dir(), watch))
    }

    fn asked<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.map_err(|error| match error {
            Error::Connection { .. } if !self.is_running() => Error::Ended {
                reason: "its process is gone".into(),
            },
            error => error,
        })
    }
}

fn set_host_time(channel: &Channel, deadline: Deadline) -> Result<(), Error> {
    let time = crate::clock::Reading::of(&crate::clock::WallClock::default());
    channel.limit(deadline);
    channel.request(|session| session.set_time(time.wall_ns))?;
    await_done(channel)
}
