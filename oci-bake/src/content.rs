//! The content of a layer: got, checked and decompressed into a file without a name.

use std::io::{self, Read};

use crate::decompress::{Format, MAGIC_BYTES, Windows, unread};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::document::Descriptor;
use crate::error::{ImageError, LayerError};
use crate::limits::Limits;
use crate::progress::{Progress, Reported};
use crate::resolve::{LayerBlob, LayerContent};
use crate::section::Section;
use crate::source::BlobSource;
use crate::spool::Spools;
use crate::store::{Partial, Store};
use crate::tar::{Reader, TarError};

/// Bytes of a blob that are looked at before it is decompressed: a tar header.
const START_BYTES: usize = 512;

/// What a bake reads layers with.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) store: &'a Store,
    pub(crate) limits: &'a Limits,
    pub(crate) progress: Option<&'a dyn Progress>,
}

/// A layer whose digests are right.
pub(crate) struct Content {
    /// The archive.
    pub(crate) section: Section,
    /// What was kept of the blob: all of it. It goes once the layer is in the cache.
    pub(crate) partial: Option<Partial>,
}

impl Content {
    /// The archive alone: nobody needs its blob any more.
    pub(crate) fn into_section(self) -> Section {
        if let Some(partial) = self.partial {
            partial.remove();
        }
        self.section
    }
}

/// Gets layers, one after the other.
pub(crate) struct Getter<'a> {
    means: Means<'a>,
    windows: &'a Windows,
    spools: Spools,
}

impl<'a> Getter<'a> {
    pub(crate) fn new(means: Means<'a>, windows: &'a Windows) -> Self {
        Self {
            means,
            windows,
            spools: Spools::default(),
        }
    }

    /// Decompresses layer `at`, and checks the blob's length and digest and
    /// the DiffID before anything is made of the content.
    pub(crate) fn get(&mut self, at: usize, blob: &LayerBlob<'_>) -> Result<Content, LayerError> {
        let wrong = |error| LayerError::Content(Box::new(error));
        let (source, descriptor) = match &blob.content {
            LayerContent::Archived(section) => {
                let (section, diff_id) = self.decompress(at, blob, &mut section.reader())?;
                self.check_diff_id(blob, diff_id)?;
                return Ok(Content {
                    section,
                    partial: None,
                });
            }
            LayerContent::Blob(source, descriptor) => (*source, descriptor),
        };
        let mut partial = None;
        if source.is_slow() {
            let limit = self.means.limits.max_layer_bytes;
            let store = self.means.store;
            partial = store.partial(&descriptor.digest, descriptor.size, limit);
        }
        loop {
            let resumed = partial.as_ref().is_some_and(|partial| partial.len() > 0);
            let mut arriving = Arriving::open(source, descriptor, partial.take()).map_err(wrong)?;
            let got = self.checked(at, blob, &mut arriving);
            let (is_unreadable, kept) = (arriving.is_unreadable, arriving.partial);
            let section = match got {
                Ok(section) => section,
                Err(error) if is_unreadable || is_of_content(&error) => {
                    let Some(mut kept) = kept else {
                        return Err(error);
                    };
                    if !resumed || kept.clear().is_err() {
                        kept.remove();
                        return Err(error);
                    }
                    // What an earlier pull left may be what is wrong.
                    partial = Some(kept);
                    continue;
                }
                // The next pull goes on with what is kept.
                Err(error) => return Err(error),
            };
            return Ok(Content {
                section,
                partial: kept,
            });
        }
    }

    fn checked(
        &mut self,
        at: usize,
        blob: &LayerBlob<'_>,
        arriving: &mut Arriving<'_>,
    ) -> Result<Section, LayerError> {
        let wrong = |error| LayerError::Content(Box::new(error));
        let descriptor = arriving.descriptor;
        let limited = arriving.take(descriptor.size.saturating_add(1));
        let mut input = VerifyingReader::new(limited, &descriptor.digest);
        let result = self.decompress(at, blob, &mut input);
        // A damaged blob fails to decompress; the digest tells the reason
        // better, so see it through to the end.
        let mut rest = self.means.store.cancel().watch(input.by_ref());
        io::copy(&mut rest, &mut io::sink())?;
        let (actual, length) = input.finish();
        if length != descriptor.size {
            return Err(wrong(ImageError::SizeMismatch {
                digest: descriptor.digest.clone(),
                expected: descriptor.size,
                actual: length,
            }));
        }
        if actual != descriptor.digest {
            return Err(mismatch(&descriptor.digest, actual));
        }
        let (section, diff_id) = result?;
        self.check_diff_id(blob, diff_id)?;
        Ok(section)
    }

    fn check_diff_id(&self, blob: &LayerBlob<'_>, actual: Digest) -> Result<(), LayerError> {
        match actual == blob.diff_id {
            true => Ok(()),
            false => Err(mismatch(&blob.diff_id, actual)),
        }
    }

    fn decompress(
        &mut self,
        at: usize,
        blob: &LayerBlob<'_>,
        input: &mut dyn Read,
    ) -> Result<(Section, Digest), LayerError> {
        let bytes = blob.content.bytes();
        let which = (at, &blob.diff_id);
        let mut input = Reported::new(input, self.means.progress, which, bytes);
        let (start, format) = checked_start(&mut input, blob.format)?;
        let algorithm: Algorithm = blob.diff_id.algorithm();
        let sizes = (bytes, self.means.limits);
        self.spools.add(
            self.means.store,
            start.chain(input),
            (format, self.windows),
            sizes,
            algorithm,
        )
    }
}

fn mismatch(expected: &Digest, actual: Digest) -> LayerError {
    LayerError::Content(Box::new(ImageError::DigestMismatch {
        expected: expected.clone(),
        actual,
    }))
}

/// Whether other bytes are what is needed, not another attempt.
fn is_of_content(error: &LayerError) -> bool {
    match error {
        LayerError::Content(error) => matches!(
            **error,
            ImageError::DigestMismatch { .. } | ImageError::SizeMismatch { .. }
        ),
        LayerError::Io(_) => false,
        _ => true,
    }
}

/// A blob: what is here of it, and then what comes, which is kept too.
struct Arriving<'a> {
    descriptor: &'a Descriptor,
    partial: Option<Partial>,
    /// Bytes read so far.
    position: u64,
    /// Bytes that are here.
    here: u64,
    rest: Option<Box<dyn Read + 'a>>,
    /// What is here cannot be read.
    is_unreadable: bool,
}

impl<'a> Arriving<'a> {
    fn open(
        source: &'a dyn BlobSource,
        descriptor: &'a Descriptor,
        partial: Option<Partial>,
    ) -> Result<Self, ImageError> {
        let here = partial.as_ref().map_or(0, Partial::len);
        let rest = match here {
            0 => Some(source.open(descriptor)?),
            here if here < descriptor.size => Some(source.open_at(descriptor, here)?),
            _ => None,
        };
        Ok(Self {
            descriptor,
            partial,
            position: 0,
            here,
            rest,
            is_unreadable: false,
        })
    }
}

impl Read for Arriving<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(partial) = &self.partial
            && self.position < self.here
            && !buf.is_empty()
        {
            let left = usize::try_from(self.here - self.position).unwrap_or(usize::MAX);
            let want = left.min(buf.len());
            let read = match partial.read_at(&mut buf[..want], self.position) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                read => read,
            };
            self.is_unreadable |= read.is_err();
            let n = read?;
            self.position += n as u64;
            return Ok(n);
        }
        let Some(rest) = &mut self.rest else {
            return Ok(0);
        };
        let n = rest.read(buf)?;
        if let Some(partial) = &mut self.partial {
            let left = self.descriptor.size.saturating_sub(self.position);
            let kept = n.min(usize::try_from(left).unwrap_or(usize::MAX));
            partial.add(&buf[..kept], self.position);
        }
        self.position += n as u64;
        Ok(n)
    }
}

/// The first bytes of a blob, and how it is compressed. They decide where no
/// media type does; where one does, they must agree, so that the error names
/// the real reason.
fn checked_start(
    input: &mut dyn Read,
    declared: Option<Format>,
) -> Result<(io::Cursor<Vec<u8>>, Format), LayerError> {
    let mut start = Vec::with_capacity(START_BYTES);
    input.take(START_BYTES as u64).read_to_end(&mut start)?;
    let magic = &start[..start.len().min(MAGIC_BYTES)];
    let unread = unread(magic);
    let sniffed = Format::sniff(magic);
    match declared {
        Some(declared) if declared != sniffed => Err(LayerError::WrongCompression {
            expected: declared.name(),
            found: match (sniffed, unread) {
                (_, Some(compression)) => compression.name,
                (Format::Plain, None) if !is_tar(&start) => {
                    "neither gzip nor zstd nor a tar archive"
                }
                (format, None) => format.name(),
            },
        }),
        Some(_) => Ok((io::Cursor::new(start), sniffed)),
        None => match unread {
            Some(compression) => Err(LayerError::UnreadCompression {
                compression: compression.name,
            }),
            None => Ok((io::Cursor::new(start), sniffed)),
        },
    }
}

/// Whether an archive can start so. It goes on behind what is seen here.
fn is_tar(start: &Vec<u8>) -> bool {
    start.len() >= START_BYTES
        && !matches!(
            Reader::new(start).next_entry(),
            Err(TarError::BadHeader { .. })
        )
}

/// Hashes and counts what something else reads.
struct VerifyingReader<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> VerifyingReader<R> {
    fn new(inner: R, digest: &Digest) -> Self {
        Self {
            inner,
            hasher: Hasher::new(digest.algorithm()),
            bytes: 0,
        }
    }

    /// Digest and length of everything that was read.
    fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.bytes)
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}
