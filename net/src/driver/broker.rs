//! Connections whose rest somebody else serves, between a socket of ours and the host's.

use std::fmt;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use super::{Log, lock};
use crate::record::{FlowRecord, SecretsUse};

/// Serves connections to certain hosts.
pub trait Broker: Send + Sync {
    /// Takes a connection over. It is called on the network's thread, with the network
    /// locked: it is not to wait, nor to ask the network.
    fn take(&self, handed: Handed);
}

/// A connection that is handed over.
pub struct Handed {
    /// What the guest sends comes from here, and what is sent here the guest gets.
    pub guest: UnixStream,
    /// The connection to the host.
    pub host: TcpStream,
    /// The name that the guest's TLS shows, which is one of the address's.
    pub name: String,
    /// The port that the guest connected to.
    pub port: u16,
    /// What the guest has sent: the hello of its TLS.
    pub begun: Vec<u8>,
    /// Whom to tell when it is over.
    pub outcome: Outcome,
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed")
            .field("name", &self.name)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// What is known of a connection that was handed over. The guest's end and whoever
/// serves it end in any order: the later one writes it down.
#[derive(Debug, Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    Reported(SecretsUse),
    Recorded(FlowRecord),
}

pub(super) type Slot = Arc<Mutex<Known>>;

/// Takes what became of a connection that was handed over.
pub struct Outcome {
    slot: Slot,
    log: Option<Arc<dyn Log>>,
    is_told: bool,
}

impl Outcome {
    pub(super) fn new(log: Option<Arc<dyn Log>>) -> (Self, Slot) {
        let slot = Slot::default();
        let outcome = Self {
            slot: slot.clone(),
            log,
            is_told: false,
        };
        (outcome, slot)
    }

    /// Says what became of it, before either end is closed.
    pub fn report(mut self, secrets: SecretsUse) {
        self.tell(secrets);
    }

    fn tell(&mut self, secrets: SecretsUse) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let mut known = lock(&self.slot);
        match std::mem::take(&mut *known) {
            Known::Recorded(mut record) => {
                record.secrets = Some(secrets);
                if let Some(log) = &self.log {
                    log.record(record);
                }
            }
            _ => *known = Known::Reported(secrets),
        }
    }
}

impl Drop for Outcome {
    /// Nobody served it.
    fn drop(&mut self) {
        self.tell(SecretsUse::default());
    }
}

/// Completes the record of a connection whose guest's end has ended; none if that is done
/// later.
pub(super) fn complete(slot: &Slot, mut record: FlowRecord) -> Option<FlowRecord> {
    let mut known = lock(slot);
    match std::mem::take(&mut *known) {
        Known::Reported(secrets) => {
            record.secrets = Some(secrets);
            Some(record)
        }
        _ => {
            *known = Known::Recorded(record);
            None
        }
    }
}

/// Whether whoever serves it ended it early.
pub(super) fn is_refused(slot: &Slot) -> bool {
    matches!(&*lock(slot), Known::Reported(secrets) if secrets.refused.is_some())
}
