//! The fields inside a section: fixed-width little-endian numbers and bounded
//! byte strings, read with exact consumption.

use crate::error::cap;
use crate::limits::MAX_STRING_BYTES;
use crate::{Result, SnapshotError};

/// Writes fields one after the other.
#[derive(Clone, Debug, Default)]
pub struct FieldWriter {
    bytes: Vec<u8>,
}

impl FieldWriter {
    /// No fields yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    /// A truth value, as one byte 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Bytes without their length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A count of things that follow.
    ///
    /// # Errors
    /// When it is above `u32::MAX`.
    pub fn count(&mut self, count: usize) -> Result<&mut Self> {
        cap("count", count as u64, u32::MAX.into())?;
        Ok(self.u32(u32::try_from(count).unwrap_or(u32::MAX)))
    }

    /// Bytes after their length.
    ///
    /// # Errors
    /// When there are more than `u32::MAX`.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<&mut Self> {
        Ok(self.count(bytes.len())?.raw(bytes))
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads fields one after the other, never beyond the end.
#[derive(Clone, Debug)]
#[must_use = "finish() tells whether bytes are left over"]
pub struct FieldReader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    /// Reads `bytes`, called `what` in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(SnapshotError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end of the bytes; as for all numbers.
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[value]| value)
    }

    /// A truth value.
    ///
    /// # Errors
    /// At the end of the bytes, or when it is neither 0 nor 1.
    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(SnapshotError::Malformed { what: self.what }),
        }
    }

    /// Two bytes.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn u128(&mut self) -> Result<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// As many bytes as asked for.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(SnapshotError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(head)
    }

    /// A count of records of at least `record_bytes` each. It can be used to
    /// reserve memory: that many records fit into the bytes that are left.
    ///
    /// # Errors
    /// When it is above `limit`, or more than the bytes left can hold.
    pub fn count(&mut self, limit: usize, record_bytes: usize) -> Result<usize> {
        let count = self.u32()?;
        cap(self.what, count.into(), limit as u64)?;
        let needed = u64::from(count).saturating_mul(record_bytes.max(1) as u64);
        if needed > self.rest.len() as u64 {
            return Err(SnapshotError::Truncated { what: self.what });
        }
        Ok(count as usize)
    }

    /// Bytes after their length.
    ///
    /// # Errors
    /// When the length is above `limit` or the bytes left.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8]> {
        let len = self.count(limit, 1)?;
        self.raw(len)
    }

    /// A text after its length, at most [`MAX_STRING_BYTES`].
    ///
    /// # Errors
    /// When it is longer, truncated or not UTF-8.
    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = self.bytes(MAX_STRING_BYTES)?;
        str::from_utf8(bytes).map_err(|_| SnapshotError::Malformed { what: self.what })
    }

    /// Confirms that nothing is left.
    ///
    /// # Errors
    /// When bytes are left.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(SnapshotError::TrailingBytes { what: self.what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_must_be_consumed() {
        let mut writer = FieldWriter::new();
        writer.u8(1).u16(2).u32(3).u64(4).u128(5).bool(true);
        writer.bytes(b"six").unwrap();
        let bytes = writer.finish();
        let mut reader = FieldReader::new("test", &bytes);
        assert_eq!(reader.u8().unwrap(), 1);
        assert_eq!(reader.u16().unwrap(), 2);
        assert_eq!(reader.u32().unwrap(), 3);
        assert_eq!(reader.u64().unwrap(), 4);
        assert_eq!(reader.u128().unwrap(), 5);
        assert!(reader.bool().unwrap());
        assert!(matches!(
            reader.clone().finish(),
            Err(SnapshotError::TrailingBytes { .. })
        ));
        assert_eq!(reader.text().unwrap(), "six");
        reader.finish().unwrap();
    }

    /// RUSTSEC-2024-0002: a length in a header that the data does not have.
    #[test]
    fn count_beyond_the_bytes_left_is_refused_before_allocation() {
        let bytes = [u32::MAX.to_le_bytes(), [0; 4]].concat();
        let reader = FieldReader::new("test", &bytes);
        assert!(reader.clone().count(10, 1).is_err());
        assert!(matches!(
            reader.clone().count(usize::MAX, 8),
            Err(SnapshotError::Truncated { .. })
        ));
        assert!(reader.clone().bytes(usize::MAX).is_err());
        assert!(reader.clone().text().is_err());
    }
}
