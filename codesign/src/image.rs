//! What of a Mach-O file matters to its signature.

use crate::Error;
use object::LittleEndian as LE;
use object::macho::{
    FAT_MAGIC, FAT_MAGIC_64, LC_CODE_SIGNATURE, LC_SEGMENT_64, LinkeditDataCommand, MH_EXECUTE,
    MachHeader64, SegmentCommand64,
};
use object::read::macho::MachHeader;
use std::mem::size_of;

/// Bytes of the header in front of the load commands.
pub const HEADER_BYTES: usize = size_of::<MachHeader64<LE>>();

/// Where things are.
#[derive(Debug)]
pub struct Layout {
    /// Offset and length of the segment with the code.
    pub text: (u64, u64),
    pub is_program: bool,
    /// Offset in the file of the load command of the segment with what linkers and loaders
    /// read, the signature among it.
    pub linkedit_command: usize,
    /// Where that segment begins in the file.
    pub linkedit: usize,
    /// Offset of the load command with the signature's place, and that place.
    pub signature: Option<(usize, usize, usize)>,
    /// Behind the last load command.
    pub commands_end: usize,
    /// Where what is no load command begins.
    pub contents: usize,
}

fn size(number: impl TryInto<usize>) -> Result<usize, Error> {
    number
        .try_into()
        .map_err(|_| Error::Malformed("a number in it is too large"))
}

fn foreign(error: object::read::Error) -> Error {
    Error::NotMachO(error.to_string())
}

impl Layout {
    /// Reads it of a file that is given whole.
    pub fn of(bytes: &[u8]) -> Result<Self, Error> {
        Self::of_head(bytes, bytes.len())
    }

    /// Reads it of the header and the load commands of a file of a length.
    pub fn of_head(bytes: &[u8], length_of_file: usize) -> Result<Self, Error> {
        let magic = bytes.first_chunk().copied().map(u32::from_be_bytes);
        if magic == Some(FAT_MAGIC) || magic == Some(FAT_MAGIC_64) {
            return Err(Error::Universal);
        }
        let header = MachHeader64::<LE>::parse(bytes, 0).map_err(foreign)?;
        if !header.is_supported() || !header.is_little_endian() {
            return Err(Error::NotMachO("it has another magic number".into()));
        }
        let mut commands = header.load_commands(LE, bytes, 0).map_err(foreign)?;
        let mut at = HEADER_BYTES;
        let (mut text, mut linkedit, mut signature) = (None, None, None);
        let mut contents = length_of_file;
        while let Some(command) = commands.next().map_err(foreign)? {
            match command.cmd() {
                LC_SEGMENT_64 => {
                    let segment: &SegmentCommand64<LE> = command.data().map_err(foreign)?;
                    let place = (segment.fileoff.get(LE), segment.filesize.get(LE));
                    match name(&segment.segname) {
                        b"__TEXT" => text = Some(place),
                        b"__LINKEDIT" => linkedit = Some((at, size(place.0)?, size(place.1)?)),
                        _ => {}
                    }
                    contents = contents.min(first_content(segment, command.raw_data())?);
                }
                LC_CODE_SIGNATURE => {
                    let data: &LinkeditDataCommand<LE> = command.data().map_err(foreign)?;
                    let place = (size(data.dataoff.get(LE))?, size(data.datasize.get(LE))?);
                    signature = Some((at, place.0, place.1));
                }
                _ => {}
            }
            at = at.saturating_add(size(command.cmdsize())?);
        }
        let text = text.ok_or(Error::Malformed("it has no segment __TEXT"))?;
        let (linkedit_command, linkedit, length) =
            linkedit.ok_or(Error::Malformed("it has no segment __LINKEDIT"))?;
        if linkedit.checked_add(length) != Some(length_of_file) {
            return Err(Error::Malformed("something is behind its last segment"));
        }
        if let Some((_, from, length)) = signature
            && (from < linkedit || from.checked_add(length) != Some(length_of_file))
        {
            return Err(Error::Malformed("its signature is not at its end"));
        }
        Ok(Self {
            text,
            is_program: header.filetype(LE) == MH_EXECUTE,
            linkedit_command,
            linkedit,
            signature,
            commands_end: at,
            contents,
        })
    }
}

/// A name without the zeroes behind it.
fn name(padded: &[u8; 16]) -> &[u8] {
    let end = padded.iter().position(|&byte| byte == 0);
    padded.get(..end.unwrap_or(padded.len())).unwrap_or(padded)
}

/// Where the first section with something in the file begins, if the segment has sections.
fn first_content(segment: &SegmentCommand64<LE>, command: &[u8]) -> Result<usize, Error> {
    use object::macho::{S_THREAD_LOCAL_ZEROFILL, S_ZEROFILL, Section64};
    let after = command.get(size_of::<SegmentCommand64<LE>>()..);
    let count = size(segment.nsects.get(LE))?;
    let sections = object::pod::slice_from_bytes::<Section64<LE>>(after.unwrap_or_default(), count);
    let (sections, _) = sections.map_err(|()| Error::Malformed("its sections are cut off"))?;
    let mut first = usize::MAX;
    for section in sections {
        let kind = section.flags.get(LE).typ();
        if kind != S_ZEROFILL && kind != S_THREAD_LOCAL_ZEROFILL && section.size.get(LE) > 0 {
            first = first.min(size(section.offset.get(LE))?);
        }
    }
    Ok(first)
}
