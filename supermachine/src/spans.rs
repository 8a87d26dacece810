//! The span that what is told of a machine is in, the same in its owner's process
//! and in its worker.

use std::path::Path;
use tracing::Span;

/// The machine with this directory. The directory's name is its id: unique on the
/// host while it lives, and known to both processes.
pub fn machine(directory: &Path, name: Option<&str>) -> Span {
    tracing::error_span!(
        "machine",
        id = directory.file_name().and_then(|id| id.to_str()),
        name
    )
}
