use crate::blob::{
    CODE_DIRECTORY, CODE_DIRECTORY_SLOT, DER_ENTITLEMENTS, DER_ENTITLEMENTS_SLOT, ENTITLEMENTS,
    ENTITLEMENTS_SLOT, REQUIREMENTS, REQUIREMENTS_SLOT, SUPER_BLOB, blob_at, index,
};
use crate::directory;
use crate::image::Layout;
use crate::{Entitlements, Error};

/// The signature of a Mach-O file.
#[derive(Debug)]
pub struct Signature<'a> {
    /// The file up to the signature.
    begin: usize,
    directory: &'a [u8],
    /// Parts that the code directory has hashes of, by slot, each with its header.
    parts: Vec<(u32, &'a [u8])>,
}

impl<'a> Signature<'a> {
    /// Finds the signature of a file that is given whole. Whether it fits the file is for
    /// [`Signature::verify`] to say.
    ///
    /// # Errors
    /// [`Error`] for what is no Mach-O file for a 64-bit processor, and for a signature
    /// that contradicts itself.
    pub fn read(bytes: &'a [u8]) -> Result<Option<Self>, Error> {
        let Some((_, begin, length)) = Layout::of(bytes)?.signature else {
            return Ok(None);
        };
        let end = begin.saturating_add(length);
        let whole = bytes
            .get(begin..end)
            .ok_or(Error::BadSignature("it is cut off"))?;
        Self::parse(whole, begin).map(Some)
    }

    /// Reads the bytes of a signature, which begins there in its file.
    pub(crate) fn parse(whole: &'a [u8], begin: usize) -> Result<Self, Error> {
        let whole = blob_at(whole, 0, SUPER_BLOB)?;
        let mut directory = None;
        let mut parts = Vec::new();
        for (slot, at) in index(whole)? {
            let magic = match slot {
                CODE_DIRECTORY_SLOT => {
                    directory = Some(blob_at(whole, at, CODE_DIRECTORY)?);
                    continue;
                }
                REQUIREMENTS_SLOT => REQUIREMENTS,
                ENTITLEMENTS_SLOT => ENTITLEMENTS,
                DER_ENTITLEMENTS_SLOT => DER_ENTITLEMENTS,
                _ => continue,
            };
            parts.push((slot, blob_at(whole, at, magic)?));
        }
        let directory = directory.ok_or(Error::BadSignature("it has no code directory"))?;
        Ok(Self {
            begin,
            directory,
            parts,
        })
    }

    /// What the program is called in it.
    pub fn identifier(&self) -> Option<&'a str> {
        directory::identifier(self.directory)
    }

    /// The entitlements in it, which are not looked at by [`Signature::verify`] but for
    /// their hash.
    ///
    /// # Errors
    /// [`Error::Entitlements`] if they are no property list.
    pub fn entitlements(&self) -> Result<Entitlements, Error> {
        let slot = |(slot, _): &&(u32, _)| *slot == ENTITLEMENTS_SLOT;
        match self
            .parts
            .iter()
            .find(slot)
            .and_then(|(_, part)| part.get(8..))
        {
            // Apple's tool leaves an empty one where there are none.
            None | Some([]) => Ok(Entitlements::none()),
            Some(list) => Entitlements::read(list),
        }
    }

    /// Compares the signature with the file it is in: each page, and each part of the
    /// signature.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for the first that does not fit; [`Error::BadSignature`] for a
    /// signature of another kind than is written here.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), Error> {
        let signed = bytes
            .get(..self.begin)
            .ok_or(Error::BadSignature("it is of another file"))?;
        directory::verify(self.directory, signed, &self.parts)
    }
}
