//! A machine comes to life: it boots, or is a copy that is made a machine of its own,
//! with memory, names and a clock.

use super::dial::connect;
use super::handle::Worker;
use super::instance::Instance;
use super::personalise::{Personality, await_done, release_guest, resume_guest};
use crate::clock::{Reading, WallClock};
use crate::deadline::Deadline;
use crate::exec::Channel;
use crate::limits::{ANSWER_TIMEOUT, CALL_TIMEOUT};
use crate::link::passing::descriptors;
use crate::link::protocol::{Boot, FromWorker, Restore, RestoreStages, ToWorker};
use crate::{Error, random};
use exec_proto::Resumed;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The error for a guest that says nothing, with what its console shows.
fn hung(worker: &mut Worker, after: Duration) -> Error {
    Error::BootFailed {
        reason: format!("no word from it within {after:?}"),
        console: worker.last_console(),
    }
}

impl Instance {
    /// Boots a machine of these files and waits until its agent serves.
    pub fn boot(&self, boot: Boot, files: &[File], deadline: Deadline) -> Result<(), Error> {
        let mut worker = self.worker();
        let order = ToWorker::Boot(Box::new(boot));
        let booted = match worker.order_with(&order, &descriptors(files), deadline) {
            Ok(FromWorker::Booted) => Ok(()),
            Ok(other) => Err(worker.unexpected(&other)),
            Err(error) => Err(error),
        };
        // A guest may end before its start was answered.
        if let Err(Error::Ended { reason }) = booted {
            let console = worker.last_console();
            return Err(Error::BootFailed { reason, console });
        }
        booted?;
        drop(worker);
        let first = self.await_agent(deadline)?;
        self.keep_fresh(first);
        Ok(())
    }

    /// Makes a copy of a captured machine and makes it one of its own.
    pub fn restore(
        &self,
        restore: Restore,
        files: &[File],
        identity: &Personality,
        deadline: Deadline,
    ) -> Result<(RestoreStages, Resumed), Error> {
        let order = ToWorker::Restore(Box::new(restore));
        let answer = self
            .worker()
            .order_with(&order, &descriptors(files), deadline)?;
        let FromWorker::Restored(stages) = answer else {
            return Err(self.worker().unexpected(&answer));
        };
        let resumed = self.make_unique(stages, identity, deadline)?;
        Ok((stages, resumed))
    }

    /// Brings the machine back to its snapshot and makes it one of its own.
    pub fn reset(
        &self,
        identity: &Personality,
        deadline: Deadline,
    ) -> Result<(RestoreStages, Resumed), Error> {
        // What the last user left: commands, and the agent's next connection.
        self.forget_connections(deadline);
        let answer = self.worker().order(&ToWorker::Reset, deadline)?;
        let FromWorker::WasReset(stages) = answer else {
            return Err(self.worker().unexpected(&answer));
        };
        self.is_paused_by_owner(false);
        let resumed = self.make_unique(stages, identity, deadline)?;
        Ok((stages, resumed))
    }

    /// Gives a machine that booted what only copies are given otherwise.
    pub fn identify(&self, identity: &Personality, deadline: Deadline) -> Result<(), Error> {
        let mut generation = [0; 16];
        random::fill_random(&mut generation)?;
        let channel = self.open_session(deadline, &|_| Ok(()))?;
        let time = Reading::of(&identity.clock);
        resume_guest(&channel, generation, identity, time, false, deadline)?;
        self.clock_set.note(time);
        self.keep(channel);
        Ok(())
    }

    /// Has a machine that waits for its layers make them its root.
    pub fn enter_root(&self, options: &str, deadline: Deadline) -> Result<(), Error> {
        let channel = self.open_session(deadline, &|session| session.enter_root(options))?;
        await_done(&channel)?;
        self.keep(channel);
        Ok(())
    }

    /// Sets the guest's clock again if the one that it was set by was moved.
    pub fn correct_clock(&self, clock: &WallClock) -> Result<(), Error> {
        match self.clock_is_off(clock) {
            true => self.set_clock(clock),
            false => Ok(()),
        }
    }

    /// Sets the guest's clock.
    pub fn set_clock(&self, clock: &WallClock) -> Result<(), Error> {
        let deadline = Deadline::within(ANSWER_TIMEOUT);
        let channel = self.open_session(deadline, &|_| Ok(()))?;
        let time = Reading::of(clock);
        channel.request(|session| session.set_time(time.wall_ns))?;
        await_done(&channel)?;
        self.clock_set.note(time);
        self.keep(channel);
        Ok(())
    }

    pub fn clock_is_off(&self, clock: &WallClock) -> bool {
        self.clock_set.is_off(Reading::of(clock))
    }

    /// Waits for the agent of a copy to call, and has it reseed, set its clock
    /// and take its name. Without that nobody gets the machine.
    pub(super) fn make_unique(
        &self,
        stages: RestoreStages,
        identity: &Personality,
        deadline: Deadline,
    ) -> Result<Resumed, Error> {
        let wanted = identity.memory_mib;
        let memory_mib = wanted.filter(|mib| *mib as u64 != stages.memory_mib);
        // Programs do not go on before the memory is what it will be.
        let stay_held = memory_mib.is_some();
        let (channel, resumed) = loop {
            let stream = self.await_copy(deadline)?;
            let made = Channel::new(stream, self.watched()).and_then(|channel| {
                let (generation, time) = (stages.generation, Reading::of(&identity.clock));
                let resumed =
                    resume_guest(&channel, generation, identity, time, stay_held, deadline)?;
                self.clock_set.note(time);
                Ok((channel, resumed))
            });
            match made {
                // The machine that was there before had dialed it.
                Err(Error::Connection { .. }) => {}
                Err(error) => {
                    // Nobody gets it: there is nothing to end in good order.
                    self.process().kill();
                    return Err(error);
                }
                Ok(made) => break made,
            }
        };
        self.keep(channel);
        if let Some(mib) = memory_mib {
            self.set_memory(mib, deadline)?;
            self.release(deadline)?;
        }
        Ok(resumed)
    }

    /// Lets the programs of a copy go on that stayed held.
    fn release(&self, deadline: Deadline) -> Result<(), Error> {
        let channel = self.open_session(deadline, &|_| Ok(()))?;
        release_guest(&channel, deadline)?;
        self.keep(channel);
        Ok(())
    }

    /// Waits until the guest has so much memory.
    fn set_memory(&self, mib: usize, deadline: Deadline) -> Result<(), Error> {
        // Its word that it could not says more than that it did not come.
        let patience = deadline.left_of(ANSWER_TIMEOUT).mul_f64(0.9);
        let order = ToWorker::SetMemory {
            mib,
            patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        };
        let answer = self.worker().order(&order, deadline)?;
        match answer {
            FromWorker::MemorySet => Ok(()),
            other => Err(self.worker().unexpected(&other)),
        }
    }

    /// Waits for the agent of a copy to call, and calls it if it does not: whoever
    /// calls in it may be starting a program, which does not get on before others
    /// are released.
    fn await_copy(&self, deadline: Deadline) -> Result<UnixStream, Error> {
        match self.await_call(deadline.at_most(CALL_TIMEOUT))? {
            Some(stream) => Ok(stream),
            None if deadline.has_passed() => Err(hung(&mut self.worker(), deadline.limit())),
            None => connect(self.exec_socket(), deadline),
        }
    }

    /// Waits for the agent's connection or the machine's end, whichever is
    /// first.
    fn await_agent(&self, deadline: Deadline) -> Result<UnixStream, Error> {
        let call = self.await_call(deadline)?;
        call.ok_or_else(|| hung(&mut self.worker(), deadline.limit()))
    }
}
