//! Compressed streams, read strictly.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Condvar, Mutex, PoisonError};

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
/// Longest header of a zstd frame (RFC 8878 §3.1.1): magic, descriptor, window, dictionary
/// and size.
const MAX_ZSTD_HEADER_BYTES: usize = 4 + 1 + 1 + 4 + 8;

/// The memory that zstd windows of one bake may take together: as much as one may. Who
/// wants more than is left waits for the others.
#[derive(Debug)]
pub(crate) struct Windows {
    left: Mutex<u64>,
    freed: Condvar,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            left: Mutex::new(MAX_ZSTD_WINDOW),
            freed: Condvar::new(),
        }
    }
}

impl Windows {
    /// Takes the memory of one window.
    fn take(&self, bytes: u64) -> Taken<'_> {
        // More than all is refused by the decoder.
        let bytes = bytes.min(MAX_ZSTD_WINDOW);
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.freed.wait_while(left, |left| *left < bytes);
        *waited.unwrap_or_else(PoisonError::into_inner) -= bytes;
        Taken {
            windows: self,
            bytes,
        }
    }
}

/// The memory of a window, given back when it is dropped.
struct Taken<'a> {
    windows: &'a Windows,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let left = self.windows.left.lock();
        *left.unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.windows.freed.notify_all();
    }
}

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
    windows: &Windows,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let mut input = BufReader::with_capacity(128 * 1024, input);
    match format {
        Format::Plain => copy(&mut input, sink),
        Format::Gzip => gzip(&mut input, sink),
        Format::Zstd => zstd(&mut input, windows, sink),
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
    windows: &Windows,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let damaged = |reason: String| LayerError::Compression {
        format: "zstd",
        reason,
    };
    let new_decoder = || {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_ZSTD_WINDOW);
        decoder
    };
    let mut decoder = new_decoder();
    let mut buffer = vec![0; 128 * 1024];
    let mut frames = 0u64;
    let mut taken = None;
    while !input.fill_buf()?.is_empty() {
        let (header, window) = zstd_header(input)?;
        // Before the decoder makes room for it; what an earlier frame had it keeps.
        if taken
            .as_ref()
            .is_none_or(|taken: &Taken<'_>| taken.bytes < window)
        {
            decoder = new_decoder();
            drop(taken.take());
            taken = Some(windows.take(window));
        }
        match decoder.reset(&header[..]) {
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

/// The header of a frame, or as much of it as there is, and the window it asks for.
fn zstd_header(input: &mut dyn Read) -> io::Result<(Vec<u8>, u64)> {
    let mut header = Vec::with_capacity(MAX_ZSTD_HEADER_BYTES);
    let mut more = |header: &mut Vec<u8>, bytes: u64| input.take(bytes).read_to_end(header);
    more(&mut header, 5)?;
    let &[a, b, c, d, descriptor] = &header[..] else {
        return Ok((header, 0));
    };
    if Format::sniff(&[a, b, c, d]) != Format::Zstd || a != 0x28 {
        // A frame to skip has its length there; what else it is the decoder says.
        more(&mut header, 3)?;
        return Ok((header, 0));
    }
    let is_single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = match descriptor >> 6 {
        0 => u64::from(is_single),
        power => 1 << power,
    };
    let at = header.len();
    more(&mut header, u64::from(!is_single) + dictionary + size)?;
    let fields = &header[at..];
    let window = match (is_single, fields.first()) {
        (false, Some(byte)) => {
            let base = 1_u64 << (10 + (byte >> 3));
            base + (base >> 3) * u64::from(byte & 7)
        }
        // All of it is the window.
        (true, _) => {
            let field = fields
                .len()
                .saturating_sub(usize::try_from(size).unwrap_or(0));
            let mut bytes = [0; 8];
            let content = &fields[field..];
            bytes[..content.len()].copy_from_slice(content);
            let extra = if size == 2 { 256 } else { 0 };
            u64::from_le_bytes(bytes).saturating_add(extra)
        }
        (false, None) => 0,
    };
    Ok((header, window))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of one block that is stored as it is, and what it holds.
    fn frame(descriptor: u8, fields: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, descriptor];
        frame.extend_from_slice(fields);
        // The last block, raw, of three bytes.
        frame.extend_from_slice(&[3 << 3 | 1, 0, 0]);
        frame.extend_from_slice(b"abc");
        frame
    }

    fn unpacked(stream: &[u8], windows: &Windows) -> Result<Vec<u8>, LayerError> {
        let mut out = Vec::new();
        decompress(stream, Format::Zstd, windows, &mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn the_window_of_a_frame_is_known_before_the_decoder_makes_room() {
        for (descriptor, fields, window) in [
            (0x00, &[0x00][..], 1 << 10),
            (0x00, &[0x83], (64 << 20) + 3 * (8 << 20)),
            (0x01, &[0x48, 7], 512 << 10),
            (0x20, &[3], 3),
            (0x60, &[1, 1], 256 + 257),
            (0xa0, &[3, 0, 1, 0], 65_536 + 3),
            (0xe2, &[9, 9, 3, 0, 0, 0, 0, 0, 0, 0], 3),
            // Not whole.
            (0x00, &[], 0),
        ] {
            let mut stream = vec![0x28, 0xb5, 0x2f, 0xfd, descriptor];
            stream.extend_from_slice(fields);
            let length = stream.len();
            stream.extend_from_slice(if fields.is_empty() { b"" } else { b"rest" });
            let (header, found) = zstd_header(&mut &stream[..]).unwrap();
            assert_eq!(found, window, "{descriptor:x} {fields:x?}");
            assert_eq!(header, stream[..length], "{descriptor:x} {fields:x?}");
        }
        let skipped = [0x5f, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 1];
        let stream = [&skipped, &frame(0x20, &[3])[..], &frame(0, &[0x80])].concat();
        assert_eq!(unpacked(&stream, &Windows::default()).unwrap(), b"abcabc");
        let too_large = frame(0, &[0x89]);
        assert!(unpacked(&too_large, &Windows::default()).is_err());
    }

    #[test]
    fn windows_of_layers_beside_each_other_do_not_take_more_than_one_may() {
        let windows = Windows::default();
        let order = Mutex::new(Vec::new());
        let taken = windows.take(MAX_ZSTD_WINDOW - (32 << 20));
        std::thread::scope(|scope| {
            // A small one has room, a large one waits.
            assert_eq!(unpacked(&frame(0, &[0x48]), &windows).unwrap(), b"abc");
            scope.spawn(|| {
                assert_eq!(unpacked(&frame(0, &[0x80]), &windows).unwrap(), b"abc");
                order.lock().unwrap().push("unpacked");
            });
            // Were there no limit it would mostly be done by then.
            std::thread::sleep(std::time::Duration::from_millis(100));
            order.lock().unwrap().push("freed");
            drop(taken);
        });
        assert_eq!(*order.lock().unwrap(), ["freed", "unpacked"]);
        // All of it is given back.
        drop(windows.take(MAX_ZSTD_WINDOW));
    }

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
