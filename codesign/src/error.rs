use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why something cannot be signed, or its signature not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is no Mach-O file for a 64-bit processor.
    #[error("not a 64-bit Mach-O file: {0}")]
    NotMachO(String),
    /// It is several files in one.
    #[error("a file for several architectures: split it with `lipo -thin`, and sign each part")]
    Universal,
    /// The file contradicts itself, or is laid out as no linker does.
    #[error("damaged Mach-O file: {0}; link it again")]
    Malformed(&'static str),
    /// There is no room for the load command that says where the signature is.
    #[error(
        "no room for a signature behind the load commands: link with `-Wl,-headerpad,0x100`, \
         or with a linker that signs"
    )]
    NoRoom,
    /// It is longer than a code directory can say.
    #[error("the file is longer than 4 GiB, which no signature of this kind covers")]
    TooLong,
    /// The entitlements are no property list of a kind that can be signed.
    #[error("cannot use the entitlements: {0}")]
    Entitlements(String),
    /// The signature contradicts itself.
    #[error("damaged signature: {0}; sign the file again")]
    BadSignature(&'static str),
    /// What was signed has changed since.
    #[error("the signature does not fit: {0} changed after it was signed; sign the file again")]
    Mismatch(String),
    /// The file cannot be read or replaced.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A certificate is to sign, and Apple's tool is not here.
    #[error(
        "there is no `codesign` here, which signs for an identity: do it on a Mac with Xcode's \
         command line tools"
    )]
    NoTool,
    /// Apple's tool failed; it has said why on standard error.
    #[error("Apple's codesign failed ({0}): see what it said")]
    Tool(ExitStatus),
}

impl Error {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}
