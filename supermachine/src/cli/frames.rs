//! What a supervisor and who is attached to its machine's command say to each other: a
//! letter, a little-endian `u32` length, and so many bytes.

use std::io::{self, Read, Write};

/// Longest content of a frame.
const MAX_BYTES: usize = 1 << 20;

/// What is said.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// For the command's standard input.
    Input(Vec<u8>),
    /// There is no more of it.
    InputEnd,
    /// Columns and rows of the terminal.
    Size(u16, u16),
    /// A signal for the command.
    Signal(u8),
    /// The end of the connection that comes now is not the end of the command.
    Leave,
    /// From its standard output.
    Output(Vec<u8>),
    /// From its standard error.
    Error(Vec<u8>),
    /// What it, or its machine, has failed by.
    Failed(String),
    /// It has ended with this status.
    End(u8),
}

/// Writes one.
pub fn write(mut to: impl Write, frame: &Frame) -> io::Result<()> {
    let (letter, bytes): (u8, &[u8]) = match frame {
        Frame::Input(bytes) => (b'i', bytes),
        Frame::InputEnd => (b'c', &[]),
        Frame::Size(columns, rows) => {
            let [a, b] = columns.to_le_bytes();
            let [c, d] = rows.to_le_bytes();
            return to.write_all(&[b'w', 4, 0, 0, 0, a, b, c, d]);
        }
        Frame::Signal(signal) => return to.write_all(&[b's', 1, 0, 0, 0, *signal]),
        Frame::Leave => (b'l', &[]),
        Frame::Output(bytes) => (b'o', bytes),
        Frame::Error(bytes) => (b'e', bytes),
        Frame::Failed(text) => (b'f', text.as_bytes()),
        Frame::End(status) => return to.write_all(&[b'q', 1, 0, 0, 0, *status]),
    };
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut whole = Vec::with_capacity(5 + bytes.len());
    whole.push(letter);
    whole.extend_from_slice(&length.to_le_bytes());
    whole.extend_from_slice(bytes);
    to.write_all(&whole)
}

/// Reads one; `None` at the end.
pub fn read(mut from: impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; 5];
    let mut got = 0;
    while got < head.len() {
        match from.read(&mut head[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let [letter, length @ ..] = head;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    let frame = match (letter, &bytes[..]) {
        (b'i', _) => Frame::Input(bytes),
        (b'c', []) => Frame::InputEnd,
        (b'w', &[a, b, c, d]) => {
            Frame::Size(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
        }
        (b's', &[signal]) => Frame::Signal(signal),
        (b'l', []) => Frame::Leave,
        (b'o', _) => Frame::Output(bytes),
        (b'e', _) => Frame::Error(bytes),
        (b'f', _) => Frame::Failed(String::from_utf8_lossy(&bytes).into_owned()),
        (b'q', &[status]) => Frame::End(status),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written_and_nothing_else_is() {
        let all = [
            Frame::Input(b"x\0".to_vec()),
            Frame::InputEnd,
            Frame::Size(80, 0x1234),
            Frame::Signal(2),
            Frame::Leave,
            Frame::Output(Vec::new()),
            Frame::Error(vec![7; 70_000]),
            Frame::Failed("the worker is gone".into()),
            Frame::End(255),
        ];
        let mut bytes = Vec::new();
        for frame in &all {
            write(&mut bytes, frame).unwrap();
        }
        let mut from = &bytes[..];
        for frame in all {
            assert_eq!(read(&mut from).unwrap(), Some(frame));
        }
        assert_eq!(read(&mut from).unwrap(), None);
        for bad in [
            &b"i"[..],
            b"i\xff\xff\xff\xff",
            b"w\x01\0\0\0x",
            b"?\0\0\0\0",
            b"i\x02\0\0\0x",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
