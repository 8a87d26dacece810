//! The guest's network interface, and the sockets of this process that it leads to.

use super::flows::FlowLog;
use broker::Orders;
use net::driver::{Handed, Network, Port};
use net::policy::Policy;
use net::{Addresses, Config, Frame, Offloads, SecretsUse};
use std::sync::{Arc, OnceLock, Weak};
use vmm_core::network::{
    NetBackend, NetConfig, NetFrame, NetOffloads, NetPort, NetSegmentation, NetSent,
};

/// Longest packet of a guest: that of the networks which its nested interfaces and
/// its peers expect.
const MTU: u16 = 1500;

/// An interface for a guest that may reach what `policy` says; `log` is told what
/// becomes of its flows.
pub fn interface(
    policy: Policy,
    secrets: Option<&Orders>,
    log: &Arc<FlowLog>,
) -> vmm_core::Network {
    let mac = Addresses::default().guest_mac;
    let mut config = Config::new(policy);
    // Init gives it one. In a snapshot of before it did, programs fall back at once.
    config.has_ipv6 = true;
    if let Some(orders) = secrets {
        let hosts = orders.hosts();
        config.brokered = hosts
            .map(|host| (host.name().to_owned(), host.port()))
            .collect();
        let placeholders = orders.placeholders();
        config.placeholders = placeholders
            .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
            .collect();
    }
    let network = Network::logged(config, log.clone());
    // Without a broker connections to those hosts are ended.
    if let Some(broker) = secrets.and_then(|orders| broker::Broker::new(orders.clone()).ok()) {
        network.serve_by(Arc::new(Brokered(broker)));
    }
    let backend = Arc::new(Backend {
        network,
        cable: OnceLock::new(),
    });
    let counted = Arc::downgrade(&backend);
    log.attach(move || Some(counted.upgrade()?.network.counters()));
    vmm_core::Network {
        config: NetConfig { mac, mtu: MTU },
        backend,
    }
}

/// Who serves connections to hosts of secrets.
struct Brokered(broker::Broker);

impl net::driver::Broker for Brokered {
    fn take(&self, handed: Handed) {
        let outcome = handed.outcome;
        self.0.serve(broker::Connection {
            guest: handed.guest,
            host: handed.host,
            name: handed.name,
            port: handed.port,
            begun: handed.begun,
            done: Box::new(move |report| {
                outcome.report(SecretsUse {
                    used: report.used,
                    misplaced: report.misplaced,
                    refused: report.refusal.map(|refusal| refusal.as_str().to_owned()),
                });
            }),
        });
    }
}

struct Backend {
    network: Network,
    /// The network knows it only as long as it is here.
    cable: OnceLock<Arc<Cable>>,
}

/// The device, as the network sees it.
struct Cable(Weak<dyn NetPort>);

impl NetBackend for Backend {
    fn attach(&self, port: Weak<dyn NetPort>) {
        let cable = self.cable.get_or_init(|| Arc::new(Cable(port)));
        let port: Arc<dyn Port> = cable.clone();
        self.network.attach(Arc::downgrade(&port));
    }

    fn wake(&self) {
        self.network.wake();
    }

    fn is_active(&self) -> bool {
        self.network.is_active()
    }

    fn save(&self) -> Vec<u8> {
        self.network.save()
    }

    fn restore(&self, saved: &[u8]) -> bool {
        self.network.restore(saved).is_ok()
    }
}

impl Port for Cable {
    fn take(&self, frame: &mut Vec<u8>) -> Option<bool> {
        let NetSent { is_unsummed } = self.0.upgrade()?.take(frame)?;
        Some(is_unsummed)
    }

    fn give(&self, frame: &Frame<'_>) -> bool {
        let Some(port) = self.0.upgrade() else {
            return false;
        };
        let [first, second] = frame.payload;
        port.give(&NetFrame {
            parts: [frame.header, first, second],
            checksum: frame.checksum.map(|sum| (sum.start, sum.offset)),
            segmentation: frame.segmentation.map(|cut| NetSegmentation {
                is_v6: cut.is_v6,
                segment_bytes: cut.segment_bytes,
                header_bytes: cut.header_bytes,
            }),
        })
    }

    fn offloads(&self) -> Offloads {
        let offloads = self.0.upgrade().map(|port| port.offloads());
        let NetOffloads {
            checksum,
            segments_v4,
            segments_v6,
        } = offloads.unwrap_or_default();
        Offloads {
            checksum,
            segments_v4,
            segments_v6,
        }
    }

    fn flush(&self) {
        if let Some(port) = self.0.upgrade() {
            port.flush();
        }
    }
}
