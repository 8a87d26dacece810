//! Children of a running machine.

use super::handle::Worker;
use super::instance::Instance;
use super::personalise::Personality;
use super::place::Place;
use crate::deadline::Deadline;
use crate::link::passing::MOST;
use crate::link::protocol::{
    FromWorker, MAX_BIRTHS, RestoreStages, Setup, ToWorker, files_of_a_birth,
};
use crate::link::sockets::Sockets;
use crate::{Error, VmConfig, spans, volume};
use exec_proto::Resumed;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A child of a running machine, made one of its own.
pub struct Made {
    pub instance: Instance,
    pub stages: RestoreStages,
    pub identity: Personality,
    pub resumed: Resumed,
}

/// A child that is to be.
struct Birth {
    setup: Setup,
    /// Its end of the connection to us.
    control: OwnedFd,
    /// Its own files for the machine's volumes.
    volumes: Vec<OwnedFd>,
}

impl Birth {
    /// What is passed for it, in order.
    fn files<'a>(&'a self, sockets: &'a Sockets) -> impl Iterator<Item = BorrowedFd<'a>> {
        let own = std::iter::once(self.control.as_fd()).chain(sockets.descriptors());
        own.chain(self.volumes.iter().map(AsFd::as_fd))
    }
}

impl Instance {
    /// Makes children of the running machine, which share its memory, and
    /// makes each a machine of its own. Gives also how long the parent stood
    /// still. It has `slots` disks for volumes, and `mounted` of them in use.
    pub fn fork(
        &self,
        config: &VmConfig,
        mounted: usize,
        slots: usize,
        count: usize,
    ) -> Result<(Duration, Vec<Made>), Error> {
        let mut places = Vec::with_capacity(count);
        let mut births = Vec::with_capacity(count);
        for _ in 0..count {
            let place = Place::make()?;
            let control = UnixStream::pair();
            let (ours, theirs) = control.map_err(Error::system("make a connection"))?;
            let dir = config.volumes_dir.as_deref();
            births.push(Birth {
                setup: place.setup(config, 0),
                control: theirs.into(),
                volumes: volume::for_child(mounted, dir, slots)?,
            });
            places.push((place, ours));
        }
        let deadline = Deadline::within(config.restore_timeout);
        let answer = self.copied(
            |unheld| self.order_fork(&births, slots, unheld, deadline),
            deadline,
        )?;
        let FromWorker::Forked { paused_us } = answer else {
            return Err(self.worker().unexpected(&answer));
        };
        // With our copies gone, the end of a child ends its connections.
        drop(births);
        let paused = Duration::from_micros(paused_us);
        let mut children = Vec::with_capacity(count);
        for (place, control) in places {
            let _child = spans::machine(place.dir.path(), None).entered();
            let worker = Worker::adopt(control, &place.dir, deadline)?;
            let child = Self::new(place, worker, self.share.clone());
            children.push(child);
        }
        let unique = |child: Self| {
            let answer = child.worker().receive(deadline)?;
            let FromWorker::Restored(stages) = answer else {
                return Err(child.worker().unexpected(&answer));
            };
            let identity = Personality {
                machine_id: config.machine_id.resolve()?,
                clock: config.clock.clone(),
                ..Personality::default()
            };
            let resumed = child.make_unique(stages, &identity, deadline)?;
            Ok(Made {
                instance: child,
                stages,
                identity,
                resumed,
            })
        };
        let children: Result<Vec<_>, Error> = children.into_iter().map(unique).collect();
        Ok((paused, children?))
    }

    /// Orders that children be made, all of one moment.
    fn order_fork(
        &self,
        births: &[Birth],
        volumes: usize,
        unheld: bool,
        deadline: Deadline,
    ) -> Result<FromWorker, Error> {
        // All files of one order fit in its message.
        let at_once = (MOST / files_of_a_birth(volumes)).clamp(1, MAX_BIRTHS);
        let mut batches = births.chunks(at_once).peekable();
        let mut worker = self.worker();
        loop {
            let batch = batches.next().unwrap_or_default();
            // Only while they are passed: children are many.
            let sockets = batch
                .iter()
                .map(|birth| Sockets::make(&birth.setup.runtime_dir));
            let sockets: Vec<Sockets> = sockets.collect::<Result<_, _>>()?;
            let files: Vec<BorrowedFd<'_>> = batch
                .iter()
                .zip(&sockets)
                .flat_map(|(birth, sockets)| birth.files(sockets))
                .collect();
            let order = ToWorker::Fork {
                births: batch.iter().map(|birth| birth.setup.clone()).collect(),
                volumes,
                more: batches.peek().is_some(),
                unheld,
            };
            match worker.order_with(&order, &files, deadline)? {
                FromWorker::Noted => {}
                answer => return Ok(answer),
            }
        }
    }
}
