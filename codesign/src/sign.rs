use crate::blob::{
    CODE_DIRECTORY_SLOT, DER_ENTITLEMENTS, DER_ENTITLEMENTS_SLOT, ENTITLEMENTS, ENTITLEMENTS_SLOT,
    REQUIREMENTS, REQUIREMENTS_SLOT, WRAPPER, WRAPPER_SLOT, blob, super_blob,
};
use crate::directory::{self, Directory};
use crate::image::{HEADER_BYTES, Layout};
use crate::{Entitlements, Error, Signature};
use object::macho::LC_CODE_SIGNATURE;

/// Where a signature may begin, and what its length is a multiple of.
const ALIGNMENT: usize = 16;
/// Bytes of the load command that says where the signature is.
const COMMAND_BYTES: usize = 16;
/// Segments take whole pages of memory: those of arm64 Macs, which suit others too.
const SEGMENT_PAGE_BYTES: usize = 16 << 10;
/// Longest identifier; longer ones are cut off.
const MAX_IDENTIFIER_BYTES: usize = 255;

// Offsets in load commands and the header: mach-o/loader.h.
const HEADER_NCMDS: usize = 16;
const HEADER_SIZEOFCMDS: usize = 20;
const SEGMENT_VMSIZE: usize = 32;
const SEGMENT_FILESIZE: usize = 48;

/// Signs a Mach-O file that is given whole: the file with a signature in place of the one
/// it had. Entitlements that it had stay, and `entitlements` are added.
///
/// # Errors
/// [`Error`] for what is no Mach-O file for a 64-bit processor, or one that cannot be
/// signed.
pub fn sign(bytes: &[u8], identifier: &str, entitlements: &Entitlements) -> Result<Vec<u8>, Error> {
    let layout = Layout::of(bytes)?;
    let had = match Signature::read(bytes) {
        Ok(Some(signature)) => signature.entitlements()?,
        // What a damaged one had is lost.
        Ok(None) | Err(Error::BadSignature(_)) => Entitlements::none(),
        Err(error) => return Err(error),
    };
    let entitlements = had.with(entitlements);
    let identifier = plain(identifier);

    let kept = layout.signature.map_or(bytes.len(), |(_, from, _)| from);
    let begin = kept.next_multiple_of(ALIGNMENT);
    let mut signed = bytes.get(..kept).unwrap_or(bytes).to_vec();
    signed.resize(begin, 0);

    let parts = parts(&entitlements)?;
    let of_parts: usize = parts.iter().map(|(_, part)| part.len() + 8).sum();
    let length = 8 + 4 + 8 + 8 + directory::length(&identifier, begin) + of_parts;
    let length = length.next_multiple_of(ALIGNMENT);
    point_to(&mut signed, &layout, begin, length)?;

    let directory = Directory {
        identifier: &identifier,
        text: layout.text,
        is_program: layout.is_program,
        parts: &parts,
    };
    let mut all = vec![(CODE_DIRECTORY_SLOT, directory.of(&signed)?)];
    all.extend(parts);
    let signature = super_blob(&all);
    let end = begin.saturating_add(length);
    if signature.len() > length {
        return Err(Error::TooLong);
    }
    signed.extend(signature);
    signed.resize(end, 0);
    Ok(signed)
}

/// The parts of the signature beside the code directory.
fn parts(entitlements: &Entitlements) -> Result<Vec<(u32, Vec<u8>)>, Error> {
    let mut parts = vec![(REQUIREMENTS_SLOT, blob(REQUIREMENTS, &[0; 4]))];
    if !entitlements.is_empty() {
        let xml = blob(ENTITLEMENTS, &entitlements.xml()?);
        let der = blob(DER_ENTITLEMENTS, &entitlements.der()?);
        parts.push((ENTITLEMENTS_SLOT, xml));
        parts.push((DER_ENTITLEMENTS_SLOT, der));
    }
    parts.push((WRAPPER_SLOT, blob(WRAPPER, &[])));
    Ok(parts)
}

/// What Apple's tool makes of a file's name: no control characters, and nothing that
/// ends a string.
fn plain(identifier: &str) -> String {
    let mut plain = String::new();
    for letter in identifier.chars().filter(|letter| !letter.is_control()) {
        if plain.len() + letter.len_utf8() > MAX_IDENTIFIER_BYTES {
            break;
        }
        plain.push(letter);
    }
    plain
}

/// Says in the load commands where the signature is.
fn point_to(signed: &mut [u8], layout: &Layout, begin: usize, length: usize) -> Result<(), Error> {
    let at = match layout.signature {
        Some((at, _, _)) => at,
        None => add_command(signed, layout)?,
    };
    let long = |number: usize| u32::try_from(number).map_err(|_| Error::TooLong);
    put(signed, at + 8, &long(begin)?.to_le_bytes())?;
    put(signed, at + 12, &long(length)?.to_le_bytes())?;
    long(begin.saturating_add(length))?;
    let segment = begin.saturating_add(length).saturating_sub(layout.linkedit);
    let in_memory = segment.next_multiple_of(SEGMENT_PAGE_BYTES);
    let command = layout.linkedit_command;
    put(signed, command + SEGMENT_VMSIZE, &wide(in_memory))?;
    put(signed, command + SEGMENT_FILESIZE, &wide(segment))
}

fn wide(number: usize) -> [u8; 8] {
    (number as u64).to_le_bytes()
}

/// Adds the load command to the others, if there is room before what follows them.
fn add_command(signed: &mut [u8], layout: &Layout) -> Result<usize, Error> {
    let at = layout.commands_end;
    let end = at.saturating_add(COMMAND_BYTES);
    let room = signed.get(at..end).filter(|_| end <= layout.contents);
    if !room.is_some_and(|room| room.iter().all(|&byte| byte == 0)) {
        return Err(Error::NoRoom);
    }
    put(signed, at, &LC_CODE_SIGNATURE.0.to_le_bytes())?;
    put(signed, at + 4, &16_u32.to_le_bytes())?;
    for (field, more) in [(HEADER_NCMDS, 1), (HEADER_SIZEOFCMDS, 16)] {
        let old = signed
            .get(field..)
            .and_then(|rest| rest.first_chunk().copied());
        let old = u32::from_le_bytes(old.ok_or(Error::Malformed("its header is cut off"))?);
        let new = old
            .checked_add(more)
            .ok_or(Error::Malformed("it has too many load commands"))?;
        put(signed, field, &new.to_le_bytes())?;
    }
    debug_assert!(at >= HEADER_BYTES);
    Ok(at)
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) -> Result<(), Error> {
    let end = at.saturating_add(what.len());
    let place = bytes.get_mut(at..end);
    let place = place.ok_or(Error::Malformed("a load command is behind its end"))?;
    place.copy_from_slice(what);
    Ok(())
}
