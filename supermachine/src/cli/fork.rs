//! `supermachine snapshot create` and `fork`: copies of a machine that runs.

use super::control;
use super::detached::{self, About, Going};
use super::machine;
use super::output::{plain, print, print_json};
use crate::running::unix_ms;
use crate::store::{self, remove_unless_used};
use crate::{Error, Image, random, snapshots_dir};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct CreateArguments {
    /// Directory of snapshots instead of the user's
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Machine: its name, its id, or the start of its id
    #[arg(value_name = "VM")]
    vm: String,
    /// Name of the snapshot, or the path of a directory for it; one that is there gets
    /// another generation
    #[arg(value_name = "NAME|PATH")]
    snapshot: PathBuf,
}

#[derive(clap::Args)]
pub struct ForkArguments {
    /// Name of the copies: NAME-1, NAME-2, …; by default they have none
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Machine that was started with `run --detach` or `run -it`: its name, its id, or
    /// the start of its id
    #[arg(value_name = "VM")]
    vm: String,
    /// How many copies
    #[arg(value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
}

/// Makes a snapshot of a running machine, and prints where it is.
pub fn create(arguments: &CreateArguments) -> Result<u8, Error> {
    let is_name = !arguments.snapshot.as_os_str().is_empty()
        && arguments.snapshot.components().count() == 1
        && arguments.snapshot.is_relative();
    let directory = match (is_name, &arguments.snapshots_dir) {
        (true, None) => snapshots_dir()?.join(&arguments.snapshot),
        (true, Some(root)) => root.join(&arguments.snapshot),
        (false, _) => arguments.snapshot.clone(),
    };
    // The owner is in a directory of its own.
    let directory = std::path::absolute(&directory)
        .map_err(Error::host("cannot find the directory of", &directory))?;
    let vm = machine::find(&arguments.vm)?.running()?;
    let made = control::snapshot(&vm, directory)?;
    if arguments.json {
        print_json(&serde_json::json!({"snapshot": made.generation}), false)?;
    } else {
        print(&format!("{}\n", plain(&made.generation.to_string_lossy())))?;
    }
    Ok(0)
}

/// Starts copies of a running machine, each with a supervisor of its own, and prints
/// their ids.
pub fn fork(arguments: &ForkArguments) -> Result<u8, Error> {
    let machine = machine::find(&arguments.vm)?;
    let record = machine.record("a fork")?;
    let words = record.about.words.clone().ok_or(Error::Unsuitable {
        what: "a fork",
        needs: "a machine whose command line is text",
    })?;
    let names: Vec<Option<String>> = (1..=arguments.count)
        .map(|number| Some(format!("{}-{number}", arguments.name.as_ref()?)))
        .collect();
    for name in names.iter().flatten() {
        machine::check_name(name)?;
    }
    let mut id = random::random_name()?;
    id.truncate(12);
    let directory = store::forks(&snapshots_dir()?).join(id);
    let (made, going) = control::fork(&machine.running()?, directory.clone())?;
    // Until the last copy has it.
    let held = Image::from_snapshot(&made.generation)?;
    drop(made);
    let status = start_each(record, &words, names, &directory, going);
    drop(held);
    // If the copies have ended meanwhile, or there are none.
    remove_unless_used(&directory)?;
    status
}

fn start_each(
    record: &detached::Record,
    words: &[String],
    names: Vec<Option<String>>,
    directory: &Path,
    going: Going,
) -> Result<u8, Error> {
    for name in names {
        let mut own: Vec<OsString> = vec!["--instead".into(), directory.into()];
        own.extend(["--goes-on".into(), going.to_string().into()]);
        if let Some(name) = &name {
            own.extend(["--called".into(), name.into()]);
        }
        own.extend(words.iter().map(OsString::from));
        let about = About {
            name,
            created_unix_ms: unix_ms(),
            forked_from: Some(record.id.clone()),
            snapshot: Some(directory.to_owned()),
            ..record.about.clone()
        };
        match detached::start(about, &own)? {
            Ok(id) => print(&format!("{id}\n"))?,
            Err(status) => return Ok(status),
        }
    }
    Ok(0)
}
