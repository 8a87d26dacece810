//! Machines that are copies of a snapshot: made, and brought back to it.

use super::Vm;
use crate::Error;
use crate::deadline::Deadline;
use crate::doubt::{blame, doubting};
use crate::embedder::personalise::Personality;
use crate::link::protocol::RestoreStages;
use crate::template::{Template, Workload};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info};

/// What was done to personalise a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// Manifest and state read and checked.
    pub read: Duration,
    /// Memory mapped or brought back, devices made, state in place.
    pub load: Duration,
    /// Pages of 4 KiB a reset brought back, if it counted them.
    pub pages: Option<u64>,
    /// The generation id the guest was given, and told of by VMGENID.
    pub generation: [u8; 16],
    /// By how much the guest's wall clock moved, in nanoseconds.
    pub clock_step_ns: i64,
    /// The guest's boot id from now on; zeroes if it could not be replaced.
    pub boot_id: [u8; 16],
    /// Whether the guest has the host name of the configuration; without one
    /// there it keeps that of the snapshot.
    pub hostname_set: bool,
    /// What was written to the guest's `/etc/machine-id`, if anything.
    pub machine_id: Option<[u8; 16]>,
    /// vCPUs the guest has online.
    pub vcpus: u32,
}

impl CopyReport {
    pub(crate) fn new(
        stages: RestoreStages,
        identity: &Personality,
        resumed: &exec_proto::Resumed,
    ) -> Self {
        Self {
            read: Duration::from_micros(stages.read_us),
            load: Duration::from_micros(stages.load_us),
            pages: stages.pages,
            generation: stages.generation,
            clock_step_ns: resumed.clock_step_ns,
            boot_id: resumed.boot_id,
            hostname_set: resumed.hostname_set,
            machine_id: identity.machine_id,
            vcpus: resumed.vcpus_online,
        }
    }
}

impl Vm {
    /// Makes a prepared machine a copy of a snapshot.
    pub(crate) fn restore(&self, template: &Arc<Template>) -> Result<(), Error> {
        doubting(template, self.instance.process(), || {
            self.try_restore(template)
        })
    }

    fn try_restore(&self, template: &Template) -> Result<(), Error> {
        let begun = Instant::now();
        let _machine = self.span().entered();
        let vcpus = self.config.vcpus.unwrap_or(0);
        let identity = template.identity(&self.config)?;
        let deadline = Deadline::within(self.config.restore_timeout);
        let (mut restore, files) = template.restore(&self.config, self.id(), Vec::new())?;
        if restore.network.is_none() && !self.config.secrets.is_empty() {
            return Err(Error::Unsuitable {
                what: "a secret in a copy of a snapshot without a network",
                needs: "one with a network: bake the image with it",
            });
        }
        restore.secrets = self.make_secrets()?;
        let (stages, resumed) = self
            .instance
            .restore(restore, &files, &identity, deadline)?;
        drop(files);
        self.check_vcpus(vcpus, &resumed)?;
        self.mount_tmpfs(&template.image().tmpfs)?;
        self.mount_volumes()?;
        self.tell_secrets()?;
        self.started(begun, Some(CopyReport::new(stages, &identity, &resumed)))?;
        info!(
            snapshot = %template.path().display(),
            engine = self.engine(),
            took = ?begun.elapsed(),
            "machine restored"
        );
        self.start_workload(&template.image().workload, deadline)
    }

    /// Brings the machine back to the snapshot.
    pub(crate) fn reset(&self, template: &Template) -> Result<(), Error> {
        blame(template, self.try_reset(template), || None)
    }

    fn try_reset(&self, template: &Template) -> Result<(), Error> {
        let begun = Instant::now();
        let _machine = self.span().entered();
        let identity = template.identity(&self.config)?;
        let deadline = Deadline::within(self.config.restore_timeout);
        let (stages, resumed) = self.instance.reset(&identity, deadline)?;
        self.started(begun, Some(CopyReport::new(stages, &identity, &resumed)))?;
        // What the guest was told and given is gone with all else of it.
        self.mount_tmpfs(&template.image().tmpfs)?;
        self.tell_secrets()?;
        debug!(pages = stages.pages, took = ?begun.elapsed(), "machine reset");
        self.start_workload(&template.image().workload, deadline)
    }

    fn check_vcpus(&self, wanted: u32, resumed: &exec_proto::Resumed) -> Result<(), Error> {
        if wanted == 0 || resumed.vcpus_online == wanted {
            return Ok(());
        }
        Err(Error::NotUnique {
            reason: format!(
                "it has {} vCPUs online instead of {wanted}",
                resumed.vcpus_online
            ),
        })
    }

    pub(crate) fn start_workload(
        &self,
        workload: &Workload,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let Workload::OnRestore(argv, env) = workload else {
            return Ok(());
        };
        let request = self.exec_builder().argv(argv.clone());
        let request = env.iter().fold(request, |request, entry| {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            request.env(name, value)
        });
        request.start_workload(deadline)
    }
}
