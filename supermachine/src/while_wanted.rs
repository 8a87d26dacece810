//! What a machine is asked for by somebody who may not want it any more.

use crate::deadline::Deadline;
use crate::exec::{Channel, Opens, Wanted, list};
use crate::pool::turns::Turn;
use crate::{Command, Error, ExecInfo, ExecOutcome, Image, Vm};
use exec_proto::ProtoError;
use exec_proto::client::Session;
use oci_bake::ImageConfig;
use std::path::Path;

/// A machine that is asked for something only as long as that is wanted, from
/// [`Vm::while_wanted`]. It does what the machine does, until then; a call that is not
/// wanted any more is [`Error::Cancelled`], and what was begun for it ends: a command with
/// all its descendants, a copy in the guest, a snapshot that is not published yet.
#[derive(Clone, Debug)]
pub struct WhileWanted<'vm> {
    vm: &'vm Vm,
    wanted: Wanted,
}

impl Vm {
    /// This machine, for calls that are given up when `is_wanted` says so. It is asked at
    /// the beginning of each call and ten times a second, on threads that wait for the
    /// guest.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), supermachine::Error> {
    /// # let image = supermachine::Image::load("busybox")?;
    /// # let vm = image.start(&supermachine::VmConfig::new())?;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// let enough = Arc::new(AtomicBool::new(false));
    /// let seen = enough.clone();
    /// // Another thread sets it.
    /// vm.while_wanted(move || !seen.load(Ordering::Relaxed))
    ///     .copy_out("/var/log", "logs")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn while_wanted(
        &self,
        is_wanted: impl Fn() -> bool + Send + Sync + 'static,
    ) -> WhileWanted<'_> {
        WhileWanted {
            vm: self,
            wanted: Wanted::new(is_wanted),
        }
    }
}

impl WhileWanted<'_> {
    /// The machine itself.
    pub fn vm(&self) -> &Vm {
        self.vm
    }

    /// Runs a command as [`Vm::run`] does.
    ///
    /// # Errors
    /// As [`Vm::run`], and [`Error::Cancelled`].
    pub fn run(&self, command: &Command) -> Result<ExecOutcome, Error> {
        command.output_of(self)
    }

    /// Lists the durable commands as [`Vm::execs`] does.
    ///
    /// # Errors
    /// As [`Vm::execs`], and [`Error::Cancelled`].
    pub fn execs(&self) -> Result<Vec<ExecInfo>, Error> {
        list(self)
    }

    /// Pauses the machine as [`Vm::pause`] does. One that is not wanted any more when it
    /// stands still goes on.
    ///
    /// # Errors
    /// As [`Vm::pause`], and [`Error::Cancelled`].
    pub fn pause(&self) -> Result<(), Error> {
        self.wanted.check()?;
        self.vm.pause()?;
        let wanted = self.wanted.check();
        if wanted.is_err() {
            self.vm.resume()?;
        }
        wanted
    }

    /// Makes a snapshot as [`Vm::snapshot`] does. One that is not wanted any more before
    /// it is published leaves nothing, and those that were there stay.
    ///
    /// # Errors
    /// As [`Vm::snapshot`], and [`Error::Cancelled`].
    pub fn snapshot(&self, dest: impl AsRef<Path>) -> Result<Image, Error> {
        self.vm.snapshot_while(dest.as_ref(), &self.wanted)
    }
}

impl Opens for WhileWanted<'_> {
    fn image_config(&self) -> &ImageConfig {
        Opens::image_config(self.vm)
    }

    fn open_session(
        &self,
        deadline: Deadline,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        self.wanted.check()?;
        let channel = Opens::open_session(self.vm, deadline, queue)?;
        channel.want(self.wanted.clone());
        Ok(channel)
    }

    fn turn(&self, is_wanted: &dyn Fn() -> bool) -> Result<Option<Turn>, Error> {
        self.vm.turn(&|| is_wanted() && self.wanted.is_wanted())
    }
}
