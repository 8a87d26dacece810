//! Crash-safe container format for snapshots of virtual machines.
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod bundle;
mod content;
mod draft;
mod engine_id;
mod error;
pub mod fields;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod holes;
mod host;
mod layout;
pub mod limits;
mod lock;
mod manifest;
#[allow(unsafe_code)]
mod map;
mod memory;
mod name;
mod open;
mod place;
mod reader;
mod section_kind;
mod stamp;
mod state;
mod store;
mod system;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod working_set;
mod zeros;

pub use draft::{Draft, Written};
pub use engine_id::EngineId;
pub use error::{Result, SnapshotError};
pub use files::{Files, LockKind};
pub use holes::next_data;
pub use lock::{SetAside, SnapshotLock};
pub use manifest::{Description, FileEntry, MANIFEST_FORMAT, Manifest, MemoryTable, Resource};
pub use map::{PresentPages, RamMapping};
pub use memory::{BytePages, GuestPages, IterPages, PageSource};
pub use open::OpenFiles;
pub use reader::{Inspection, Snapshot};
pub use section_kind::SectionKind;
pub use stamp::{Fact, Stamp};
pub use state::{Claims, STATE_MAJOR, STATE_MINOR, Scope, Section, StateFile, StateWriter};
pub use store::{Baked, Store};
pub use system::{FilesBelow, SystemFiles};
pub use working_set::WorkingSet;
