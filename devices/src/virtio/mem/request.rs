//! What driver and device say to each other (virtio 1.2 §5.15.6).

/// Bytes of `struct virtio_mem_req`.
pub(super) const REQUEST_BYTES: usize = 24;
/// Bytes of `struct virtio_mem_resp`.
pub(super) const RESPONSE_BYTES: usize = 10;

/// A request of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Let me use these blocks.
    Plug { address: u64, blocks: u16 },
    /// I am done with these.
    Unplug { address: u64, blocks: u16 },
    /// I know of none that are in use.
    UnplugAll,
    /// Which of these are plugged?
    State { address: u64, blocks: u16 },
}

impl Request {
    /// A request as it stands in memory; `None` if there is none of its type.
    pub(super) fn decode(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        // The type, six bytes of padding, then for all types but one the
        // first block's address and the number of blocks.
        let [
            t0,
            t1,
            _,
            _,
            _,
            _,
            _,
            _,
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            n0,
            n1,
            ..,
        ] = *bytes;
        let address = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        let blocks = u16::from_le_bytes([n0, n1]);
        match u16::from_le_bytes([t0, t1]) {
            0 => Some(Self::Plug { address, blocks }),
            1 => Some(Self::Unplug { address, blocks }),
            2 => Some(Self::UnplugAll),
            3 => Some(Self::State { address, blocks }),
            _ => None,
        }
    }
}

/// An answer of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    /// Done.
    Ack,
    /// That would be more than was asked for.
    Nack,
    /// Not now.
    Busy,
    /// That makes no sense.
    Error,
    /// All of them are plugged.
    Plugged,
    /// None is plugged.
    Unplugged,
    /// Some are plugged.
    Mixed,
}

impl Response {
    pub(super) fn encode(self) -> [u8; RESPONSE_BYTES] {
        let (kind, state) = match self {
            Self::Ack | Self::Plugged => (0, 0),
            Self::Nack => (1, 0),
            Self::Busy => (2, 0),
            Self::Error => (3, 0),
            Self::Unplugged => (0, 1),
            Self::Mixed => (0, 2),
        };
        // The type, six bytes of padding, and the state in its low byte.
        [kind, 0, 0, 0, 0, 0, 0, 0, state, 0]
    }
}
