//! What can go wrong between a caller and its kernel.

use std::io;
use std::path::PathBuf;

use crate::Asset;

/// A failure to find, read or copy a guest asset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No searched directory holds the asset.
    #[error(
        "no guest {asset} found in {}; `cargo xtask assets` builds it, and \
         `supermachine assets install DIR` puts it where every program finds it",
        list(.searched)
    )]
    Missing {
        /// What was looked for.
        asset: Asset,
        /// The directories looked in, in order.
        searched: Vec<PathBuf>,
    },
    /// The file is there, and is not what its name says.
    #[error(
        "{} is no usable guest {asset}: {reason}; `cargo xtask assets` builds one",
        path.display()
    )]
    Unusable {
        /// What it should have been.
        asset: Asset,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The environment names no cache directory.
    #[error("no cache directory: set {variable} to an absolute path")]
    NoCacheDir {
        /// The environment variable that would have named one.
        variable: &'static str,
    },
    /// What has to be a directory of the cache is a symbolic link, or no
    /// directory. Links are not followed: they could lead anywhere.
    #[error(
        "{} is a symbolic link or no directory; remove it, or set XDG_CACHE_HOME so that \
         the cache is where it leads to",
        path.display()
    )]
    NotDirectory {
        /// Where it is.
        path: PathBuf,
    },
    /// The operating system refused a file operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

fn list(dirs: &[PathBuf]) -> String {
    if dirs.is_empty() {
        return "any directory (there was none to search)".to_owned();
    }
    let shown: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    shown.join(", ")
}

/// So that a build script returning `io::Result` can use `?` here.
impl From<KernelError> for io::Error {
    fn from(error: KernelError) -> Self {
        let kind = match &error {
            KernelError::Missing { .. } | KernelError::NoCacheDir { .. } => io::ErrorKind::NotFound,
            KernelError::Unusable { .. } => io::ErrorKind::InvalidData,
            KernelError::NotDirectory { .. } => io::ErrorKind::NotADirectory,
            KernelError::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}
