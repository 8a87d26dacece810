//! Saved device state: bytes with a name and a version.
//!
//! Each device has a plain struct of what it saves ([`DeviceState`]) and shows
//! it to whoever stores machines as [`SavedState`], which says nothing of the
//! devices of this crate: a device from elsewhere saves whatever it likes.
//! There is no conversion between versions. A state of another version is an
//! error, and the snapshot has to be made again.

use std::borrow::Cow;

/// Which states a device takes: those of one name and one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateFormat {
    /// Names the device model, `blk` for example. Devices of other crates
    /// put the crate's name before it.
    pub kind: &'static str,
    /// Version of the layout of the bytes.
    pub version: u16,
}

/// What a device saves, as its owner stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedState {
    /// See [`StateFormat::kind`].
    pub kind: Cow<'static, str>,
    /// See [`StateFormat::version`].
    pub version: u16,
    /// The state itself.
    pub bytes: Vec<u8>,
}

/// The plain struct of what one device saves.
pub trait DeviceState: Sized {
    /// What its bytes are called.
    const FORMAT: StateFormat;

    /// The bytes: numbers little-endian, one after the other.
    fn to_bytes(&self) -> Vec<u8>;

    /// Reads what [`DeviceState::to_bytes`] gave, all of it. Bytes that could
    /// not have come from there are `None`; what a value means is checked by
    /// the device.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Why a saved state cannot become a running device. Saved states are
/// untrusted: every field is checked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// The state belongs to another device type.
    #[error("state is of device type {found}, expected {expected}")]
    WrongDevice {
        /// Type of this device.
        expected: u32,
        /// Type the state names.
        found: u32,
    },
    /// The state belongs to another device model.
    #[error("state is of a {found:?} device, expected a {expected:?} device")]
    WrongKind {
        /// Kind of state this device takes.
        expected: &'static str,
        /// Kind of the state.
        found: String,
    },
    /// The state has the layout of another version.
    #[error(
        "state of {kind} has version {found}, expected version {expected}; make the snapshot again"
    )]
    WrongVersion {
        /// Kind of the state.
        kind: &'static str,
        /// Version this device takes.
        expected: u16,
        /// Version of the state.
        found: u16,
    },
    /// A field holds what no running device could have saved.
    #[error("field {0} of the saved device state is invalid")]
    Invalid(&'static str),
    /// The device is already in use by a driver.
    #[error("device is active, only an idle one can be restored")]
    Active,
    /// The device could not start from the state.
    #[error("device refused to start from the saved state")]
    Refused,
}

impl SavedState {
    /// The state of a device, to be stored.
    pub fn of<S: DeviceState>(state: &S) -> Self {
        Self {
            kind: Cow::Borrowed(S::FORMAT.kind),
            version: S::FORMAT.version,
            bytes: state.to_bytes(),
        }
    }

    /// Refuses a state that is not of this kind and version.
    pub fn check(&self, expected: StateFormat) -> Result<(), RestoreError> {
        if self.kind != expected.kind {
            return Err(RestoreError::WrongKind {
                expected: expected.kind,
                found: self.kind.clone().into_owned(),
            });
        }
        if self.version != expected.version {
            return Err(RestoreError::WrongVersion {
                kind: expected.kind,
                expected: expected.version,
                found: self.version,
            });
        }
        Ok(())
    }

    /// Takes the state out again.
    pub fn read<S: DeviceState>(&self) -> Result<S, RestoreError> {
        self.check(S::FORMAT)?;
        S::from_bytes(&self.bytes).ok_or(RestoreError::Invalid("bytes"))
    }
}

/// Numbers read from the front of a state's bytes.
pub struct StateFields<'a>(&'a [u8]);

impl<'a> StateFields<'a> {
    /// All of them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    /// The next one, of 16 bits.
    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    /// The next one, of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// The next one, of 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// The next one, a byte that is 0 or 1.
    pub fn bool(&mut self) -> Option<bool> {
        match self.take()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// All that is left, as numbers.
    pub fn u64s(&mut self) -> Option<Vec<u64>> {
        let (numbers, []) = self.rest().as_chunks() else {
            return None;
        };
        Some(numbers.iter().copied().map(u64::from_le_bytes).collect())
    }

    /// Whether nothing is left.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Foreign(u16);

    impl DeviceState for Foreign {
        const FORMAT: StateFormat = StateFormat {
            kind: "elsewhere.foreign",
            version: 7,
        };

        fn to_bytes(&self) -> Vec<u8> {
            self.0.to_le_bytes().to_vec()
        }

        fn from_bytes(bytes: &[u8]) -> Option<Self> {
            let mut fields = StateFields::new(bytes);
            let state = Self(fields.u16()?);
            fields.end().map(|()| state)
        }
    }

    #[test]
    fn state_of_another_kind_or_version_is_refused_by_name() {
        let good = SavedState::of(&Foreign(0x1234));
        assert_eq!(good.read(), Ok(Foreign(0x1234)));
        let kind = SavedState {
            kind: "blk".into(),
            ..good.clone()
        };
        assert_eq!(
            kind.read::<Foreign>(),
            Err(RestoreError::WrongKind {
                expected: "elsewhere.foreign",
                found: "blk".into()
            })
        );
        let version = SavedState {
            version: 8,
            ..good.clone()
        };
        assert_eq!(
            version.read::<Foreign>(),
            Err(RestoreError::WrongVersion {
                kind: "elsewhere.foreign",
                expected: 7,
                found: 8
            })
        );
        for bytes in [vec![], vec![1], vec![1, 2, 3]] {
            let odd = SavedState {
                bytes,
                ..good.clone()
            };
            assert_eq!(odd.read::<Foreign>(), Err(RestoreError::Invalid("bytes")));
        }
    }

    #[test]
    fn fields_end_where_the_bytes_end() {
        let mut fields = StateFields::new(&[1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 9]);
        assert_eq!(fields.u16(), Some(1));
        assert_eq!(fields.u32(), Some(2));
        assert_eq!(fields.u64(), Some(3));
        assert_eq!(fields.bool(), Some(true));
        assert_eq!(fields.bool(), None, "9 is neither");
        assert_eq!(StateFields::new(&[0; 15]).u64s(), None);
        assert_eq!(StateFields::new(&[0; 16]).u64s(), Some(vec![0, 0]));
    }
}
