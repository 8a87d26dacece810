//! Compressed streams, read strictly.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::error::LayerError;

/// How a layer blob is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Gzip,
    Zstd,
}

/// Largest zstd window in bytes, which is the memory a stream can ask for.
/// The reference decoder's own default is this 128 MiB.
const MAX_ZSTD_WINDOW: u64 = 128 << 20;

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The format the first bytes belong to (RFC 1952, RFC 8878).
    pub(crate) fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame may come first (zstd:chunked does that).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Bytes that [`unread`] wants to see.
pub(crate) const MAGIC_BYTES: usize = 10;

/// A compression that is known but not read, and the program that undoes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
}

/// What the first bytes are if they are no tar archive and none of
/// [`Format`]'s.
pub(crate) fn unread(start: &[u8]) -> Option<Unread> {
    let (name, program) = match start {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("xz", "xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..]
            // A block, or the end of an empty stream.
            if rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17rE8P\x90") =>
        {
            ("bzip2", "bzip2")
        }
        [b'L', b'Z', b'I', b'P', 1, ..] => ("lzip", "lzip"),
        [0x04, 0x22, 0x4d, 0x18, ..] => ("lz4", "lz4"),
        [0x1f, 0x9d, ..] => ("compress (.Z)", "gzip"),
        _ => return None,
    };
    Some(Unread { name, program })
}

/// Decompresses all of `input` into `sink`, which may refuse more.
/// Everything in the input must belong to the stream: bytes after the end
/// that a decompressor would ignore are an error.
pub(crate) fn decompress<R: Read>(
    input: R,
    format: Format,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let mut input = BufReader::with_capacity(128 * 1024, input);
    match format {
        Format::Plain => copy(&mut input, sink),
        Format::Gzip => gzip(&mut input, sink),
        Format::Zstd => zstd(&mut input, sink),
    }
}

fn copy(
    input: &mut dyn Read,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => sink(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Members one after the other (pigz and eStargz write several).
fn gzip<R: BufRead>(
    input: &mut R,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let damaged = |reason: String| LayerError::Compression {
        format: "gzip",
        reason,
    };
    let mut members = 0u64;
    loop {
        let start = input.fill_buf()?;
        if start.is_empty() {
            return match members {
                0 => Err(damaged("it is empty".into())),
                _ => Ok(()),
            };
        }
        if members > 0 && start[0] != 0x1f {
            return Err(damaged("there is data after its end".into()));
        }
        let mut decoder = GzDecoder::new(&mut *input);
        copy(&mut decoder, sink).map_err(|error| match error {
            LayerError::Io(error) => damaged(error.to_string()),
            other => other,
        })?;
        members += 1;
    }
}

fn zstd<R: BufRead>(
    input: &mut R,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let damaged = |reason: String| LayerError::Compression {
        format: "zstd",
        reason,
    };
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MAX_ZSTD_WINDOW);
    let mut buffer = vec![0; 128 * 1024];
    let mut frames = 0u64;
    while !input.fill_buf()?.is_empty() {
        match decoder.reset(&mut *input) {
            Ok(()) => {}
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let skipped = io::copy(&mut input.by_ref().take(length.into()), &mut io::sink())?;
                if skipped != u64::from(length) {
                    return Err(damaged("it ends inside a skippable frame".into()));
                }
                continue;
            }
            Err(error) => return Err(damaged(error.to_string())),
        }
        frames += 1;
        loop {
            let finished = decoder.is_finished();
            if !finished {
                decoder
                    .decode_blocks(&mut *input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| damaged(error.to_string()))?;
            }
            loop {
                let n = decoder.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                sink(&buffer[..n])?;
            }
            if finished {
                break;
            }
        }
        let (stored, actual) = (
            decoder.get_checksum_from_data(),
            decoder.get_calculated_checksum(),
        );
        if stored.is_some() && stored != actual {
            return Err(damaged("its checksum does not match".into()));
        }
    }
    match frames {
        0 => Err(damaged("it has no frame".into())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_that_are_not_read_are_known_by_their_first_bytes() {
        let name = |start: &[u8]| unread(start).map(|unread| unread.name);
        assert_eq!(name(b"\xfd7zXZ\0\0\x04"), Some("xz"));
        assert_eq!(name(b"BZh91AY&SY\x12"), Some("bzip2"));
        assert_eq!(name(b"BZh9\x17rE8P\x90"), Some("bzip2"));
        // Names that a tar archive may start with.
        assert_eq!(name(b"BZh9\0\0\0\0\0\0"), None);
        assert_eq!(name(b"LZIP\0\0\0\0\0\0"), None);
        assert_eq!(name(b"BZ"), None);
        assert_eq!(name(b""), None);
    }
}
