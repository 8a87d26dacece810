//! Little-endian fields inside a payload.

use alloc::vec::Vec;

use crate::{Kind, ProtoError};

/// Reads fields from the front of one payload; every read is bounds-checked.
pub(crate) struct Reader<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(kind: Kind, payload: &'a [u8]) -> Self {
        Self {
            kind,
            rest: payload,
        }
    }

    pub(crate) fn bad(&self, what: &'static str) -> ProtoError {
        ProtoError::BadPayload {
            kind: self.kind.byte(),
            what,
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], ProtoError> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| self.bad("truncated"))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtoError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.bad("truncated"))?;
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ProtoError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ProtoError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ProtoError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, ProtoError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ProtoError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, ProtoError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// 16 bytes that identify something.
    pub(crate) fn id(&mut self) -> Result<[u8; 16], ProtoError> {
        self.array()
    }

    pub(crate) fn bool(&mut self) -> Result<bool, ProtoError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad("neither 0 nor 1")),
        }
    }

    /// A `u32` length followed by that many bytes.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'a [u8], ProtoError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(self.bad("string too long"));
        }
        self.take(len)
    }

    /// [`Self::bytes`] without NUL, as every string that reaches a system call.
    pub(crate) fn c_bytes(&mut self, max: usize) -> Result<&'a [u8], ProtoError> {
        let bytes = self.bytes(max)?;
        if bytes.contains(&0) {
            return Err(self.bad("NUL inside a string"));
        }
        Ok(bytes)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    pub(crate) fn end(self) -> Result<(), ProtoError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.bad("trailing bytes"))
        }
    }
}

/// Appends a `u32` length and the bytes. Callers keep lengths below the frame
/// limits, so saturation is only there to make the conversion total.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}
