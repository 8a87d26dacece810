//! What becomes of a machine's workload: only its agent knows, so it is asked.

use super::VmEventKind;
use crate::deadline::Deadline;
use crate::embedder::dial::connect;
use crate::exec::{Channel, ExecStatus, Unwatched};
use crate::limits::EVENT_LOOK_TIMEOUT;
use crate::link::monitor::paused_mark;
use crate::link::runtime_dir::Occupant;
use crate::{DEFAULT_GUEST_PORT, Error};
use exec_proto::client::{Event, Session};
use exec_proto::{ProtoError, WorkloadReport, WorkloadState};
use oci_bake::ImageConfig;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most ports that are looked at.
const MOST_PORTS: usize = 16;

/// Looks at a machine's workload.
pub struct Watch {
    dir: PathBuf,
    exec: PathBuf,
    occupant: Option<Occupant>,
    exposed: Vec<u16>,
    /// Of these, where nothing was found to listen yet.
    silent: Vec<u16>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody has looked since the machine began.
    Unknown,
    Running,
    /// There is none, or it has ended.
    Over,
}

impl Watch {
    /// Of the machine of a directory.
    pub fn new(dir: &Path, exec: &Path, config: &ImageConfig) -> Self {
        let exposed = ports(&config.exposed_ports);
        Self {
            dir: dir.to_owned(),
            exec: exec.to_owned(),
            occupant: Occupant::of(dir).ok(),
            silent: exposed.clone(),
            exposed,
            phase: Phase::Unknown,
        }
    }

    /// Whether there may be news.
    pub fn is_needed(&self) -> bool {
        self.phase != Phase::Over
    }

    /// Whether the machine's worker lives.
    pub fn has_worker(&self) -> bool {
        self.occupant.as_ref().is_some_and(Occupant::is_alive)
    }

    /// The machine has become another one.
    pub fn begin_again(&mut self) {
        self.silent.clone_from(&self.exposed);
        self.phase = Phase::Unknown;
    }

    /// Tells what is new. A guest that does not say is looked at again later.
    pub fn look(&mut self, mut tell: impl FnMut(VmEventKind)) {
        if paused_mark(&self.dir).exists() {
            return;
        }
        let deadline = Deadline::within(EVENT_LOOK_TIMEOUT);
        let Ok(report) = self.report(deadline) else {
            return;
        };
        let is_over = match report.state {
            WorkloadState::NotStarted => {
                self.phase = Phase::Over;
                return;
            }
            WorkloadState::Running { .. } => {
                self.phase = Phase::Running;
                None
            }
            WorkloadState::Exited(exited) => Some(ExecStatus::from_wire(&exited)),
        };
        // One that went to the background listens after its end.
        let silent = std::mem::take(&mut self.silent);
        for port in silent {
            match self.listens(port, deadline) {
                true => tell(VmEventKind::Listening { port }),
                false => self.silent.push(port),
            }
        }
        if let Some(status) = is_over {
            self.phase = Phase::Over;
            tell(VmEventKind::WorkloadExited {
                code: status.code,
                signal: status.signal,
            });
        }
    }

    fn report(&self, deadline: Deadline) -> Result<WorkloadReport, Error> {
        let pick = |event| match event {
            Event::Workload(report) => Some(report),
            _ => None,
        };
        self.ask(deadline, |session| session.workload_status(0), pick)
    }

    /// Whether something listens there now.
    fn listens(&self, port: u16, deadline: Deadline) -> bool {
        let pick = |event| matches!(event, Event::Done).then_some(());
        self.ask(deadline, |session| session.await_listener(port, 0), pick)
            .is_ok()
    }

    fn ask<T>(
        &self,
        deadline: Deadline,
        queue: impl FnOnce(&mut Session) -> Result<(), ProtoError>,
        pick: impl Fn(Event) -> Option<T>,
    ) -> Result<T, Error> {
        let channel = Channel::new(connect(&self.exec, deadline)?, Arc::new(Unwatched))?;
        channel.limit(deadline);
        channel.request(queue)?;
        channel.answer_until(deadline, pick)
    }
}

/// The TCP ports among those that an image exposes, as `80`, `80/tcp` or `53/udp`.
fn ports(exposed: &BTreeSet<String>) -> Vec<u16> {
    let tcp = |text: &String| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        (protocol == "tcp").then(|| port.parse().ok()).flatten()
    };
    let mut ports: Vec<u16> = exposed.iter().filter_map(tcp).collect();
    if ports.is_empty() {
        // What a bake waits for, too.
        ports.push(DEFAULT_GUEST_PORT);
    }
    ports.truncate(MOST_PORTS);
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_ports_of_the_image_are_looked_at_or_80() {
        let of = |texts: &[&str]| ports(&texts.iter().map(ToString::to_string).collect());
        assert_eq!(of(&[]), [80]);
        assert_eq!(of(&["53/udp", "x/tcp", "70000", "1/sctp", "-1"]), [80]);
        assert_eq!(of(&["8080/tcp", "443"]), [443, 8080]);
        let many: Vec<String> = (1..100).map(|port| port.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(of(&many).len(), MOST_PORTS);
    }
}
