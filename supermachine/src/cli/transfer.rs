//! `supermachine export` and `import`: snapshots as files.

use super::output::{plain, print, print_json};
use super::snapshots::{self, Which};
use crate::image::default_cache;
use crate::{Error, bundle, snapshots_dir};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct ExportArguments {
    #[command(flatten)]
    which: Which,
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(clap::Args)]
pub struct ImportArguments {
    /// Directory of snapshots instead of the user's
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// Name of the snapshot, instead of the one it had
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// What `export` has written, by somebody who is trusted
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Writes a snapshot into a file.
pub fn export(arguments: &ExportArguments) -> Result<u8, Error> {
    let found = snapshots::open(&arguments.which)?;
    bundle::export(&found, &arguments.file)?;
    let bytes = std::fs::metadata(&arguments.file).map_or(0, |metadata| metadata.len());
    if arguments.which.json {
        let report = serde_json::json!({
            "snapshot": found.path(), "file": arguments.file, "bytes": bytes,
        });
        print_json(&report, false)?;
    } else {
        print(&format!("{}\n", plain(&arguments.file.to_string_lossy())))?;
    }
    Ok(0)
}

/// Makes a snapshot of what is in a file.
pub fn import(arguments: &ImportArguments) -> Result<u8, Error> {
    let root = match &arguments.snapshots_dir {
        Some(dir) => dir.clone(),
        None => snapshots_dir()?,
    };
    // Without a cache nothing is shared with it.
    let cache = default_cache().ok();
    let name = arguments.name.as_deref();
    let template = bundle::import(&arguments.file, &root, name, cache.as_deref())?;
    if arguments.json {
        print_json(&serde_json::json!({"snapshot": template.path()}), false)?;
    } else {
        print(&format!("{}\n", plain(&template.path().to_string_lossy())))?;
    }
    Ok(0)
}
