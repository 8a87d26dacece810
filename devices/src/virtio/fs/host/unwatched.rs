//! Hosts without a way of this crate to say what changes.

use std::io;
use std::sync::Arc;

use super::super::watch::DirectoryWatch;

/// The way of this host, if it gives one.
pub fn watch() -> io::Result<Arc<dyn DirectoryWatch>> {
    Err(io::ErrorKind::Unsupported.into())
}
