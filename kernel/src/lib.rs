//! The guest kernel of supermachine: its configuration, the recipe that builds
//! it, and where the built files are found.
//!
//! The kernel image and the initial file system are built from source by `cargo
//! xtask assets` and kept in the user's cache directory under the hash of what they
//! were built from. So this crate, and its documentation, build anywhere. With the
//! feature `bundled` the program has both in it, compressed: [`extract_kernel_to`] and
//! [`extract_init_oci_to`] write these, and [`discover`] and [`find`] put them into the
//! cache directory where nothing else is found.
//!
//! ```no_run
//! use std::path::Path;
//!
//! let out = Path::new("bundle");
//! supermachine_kernel::extract_kernel_to(&out.join("kernel"))?;
//! supermachine_kernel::extract_init_oci_to(&out.join("init-oci"))?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Where assets are looked for
//!
//! [`locate`] looks in the one directory it is given. [`discover`],
//! [`extract_kernel_to`] and [`extract_init_oci_to`] look in the directories of
//! [`search_dirs`], in order: beside the running executable and where packages
//! put data relative to it, then the user's cache directory
//! ([`assets_dir`]). Nothing is looked for in the current directory, and the
//! environment is read in [`cache_dir`] alone.

#![forbid(unsafe_code)]

mod assets;
#[cfg(feature = "bundled")]
mod bundled;
mod cache;
pub mod config;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod image;
pub mod initrd;
mod install;
pub mod recipe;

pub use assets::{
    Asset, Assets, discover, extract_init_oci_to, extract_kernel_to, find, locate, search_dirs,
};
pub use cache::{assets_dir, cache_dir, cached, mark_used};
pub use error::KernelError;
pub use image::ImageHeader;
pub use install::{copy_durably, write_durably};
pub use recipe::{BASE_COMMAND_LINE, recipe_hash};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
