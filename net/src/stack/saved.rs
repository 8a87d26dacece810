//! Connections over snapshots.
//!
//! Sockets of the host do not go into a snapshot. What does is which connections the
//! guest has: in every copy it is told that they are over, by a reset with the very
//! sequence number that it waits for (any other it would question first, RFC 5961,
//! 3.2), before it is sent anything else.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use super::Stack;
use super::refusals::reset_out;
use crate::io::Io;
use crate::record::End;
use crate::tcp::Key;
use crate::wire::build::{self, TcpOut};

/// A saved state that no network could have saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("saved connections are damaged; make the snapshot again")]
pub struct BadState;

/// A connection that the guest has, and nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owed {
    key: Key,
    sequence: u32,
    acknowledged: u32,
}

/// Bytes of one: two IPv6 addresses, two ports, two numbers.
const OWED_BYTES: usize = 44;

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

impl Owed {
    fn to_bytes(self) -> [u8; OWED_BYTES] {
        let mut out = [0; OWED_BYTES];
        let Key { guest, remote } = self.key;
        out[..16].copy_from_slice(&octets(guest.ip()));
        out[16..32].copy_from_slice(&octets(remote.ip()));
        out[32..34].copy_from_slice(&guest.port().to_le_bytes());
        out[34..36].copy_from_slice(&remote.port().to_le_bytes());
        out[36..40].copy_from_slice(&self.sequence.to_le_bytes());
        out[40..].copy_from_slice(&self.acknowledged.to_le_bytes());
        out
    }

    fn from_bytes(bytes: &[u8; OWED_BYTES]) -> Option<Self> {
        let address = |at: usize| {
            let octets = bytes.get(at..)?.first_chunk::<16>()?;
            Some(Ipv6Addr::from(*octets).to_canonical())
        };
        let port = |at: usize| {
            let field = bytes.get(at..)?.first_chunk::<2>()?;
            Some(u16::from_le_bytes(*field))
        };
        let number = |at: usize| {
            let field = bytes.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*field))
        };
        Some(Self {
            key: Key {
                guest: SocketAddr::new(address(0)?, port(32)?),
                remote: SocketAddr::new(address(16)?, port(34)?),
            },
            sequence: number(36)?,
            acknowledged: number(40)?,
        })
    }
}

impl Stack {
    /// What a copy of the guest has to be told.
    pub fn save(&self) -> Vec<u8> {
        let flows = self.table.iter().filter(|flow| !flow.is_connecting());
        let now = flows.map(|flow| {
            let (sequence, acknowledged) = flow.sequences();
            Owed {
                key: flow.key,
                sequence,
                acknowledged,
            }
        });
        let all = self.owed.iter().copied().chain(now);
        all.flat_map(|owed| owed.to_bytes()).collect()
    }

    /// Ends all connections, and owes the guest word of those that it had when
    /// `saved` was.
    ///
    /// # Errors
    /// [`BadState`] for what [`Stack::save`] cannot have given.
    pub fn restore(
        &mut self,
        saved: &[u8],
        now: Instant,
        io: &mut impl Io,
    ) -> Result<(), BadState> {
        let (entries, []) = saved.as_chunks::<OWED_BYTES>() else {
            return Err(BadState);
        };
        // As many again may have been owed then.
        if entries.len() > self.config.max_flows.saturating_mul(2) {
            return Err(BadState);
        }
        let addresses = self.config.addresses;
        let owed = entries.iter().map(Owed::from_bytes);
        let owed: Option<Vec<Owed>> = owed.collect();
        let owed = owed.ok_or(BadState)?;
        if owed
            .iter()
            .any(|owed| !addresses.is_guest(owed.key.guest.ip()))
        {
            return Err(BadState);
        }
        for id in self.table.ids() {
            self.end(id, End::Rewound, now, io);
        }
        self.end_exchanges(End::Rewound, now, io);
        self.fragments.clear();
        self.queue.clear();
        self.look_ups.clear();
        self.owed = owed.into();
        Ok(())
    }

    /// Whether the guest has to be told something that it does not ask for.
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Tells the guest what it is owed; false if it has no room for all of it.
    pub(super) fn pay(&mut self, io: &mut impl Io) -> bool {
        while let Some(owed) = self.owed.front() {
            let out = TcpOut {
                sequence: owed.sequence,
                acknowledged: owed.acknowledged,
                ..reset_out(owed.key)
            };
            if !build::tcp(io, self.link, &out) {
                return false;
            }
            self.owed.pop_front();
        }
        true
    }
}
