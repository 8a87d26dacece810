//! What is known of a detached machine, on the disk.
//!
//! Its directory is named after its id and holds `record.json` from the start,
//! `started.json` once its command runs, `ended.json` once that has ended, and the
//! log. The supervisor holds a lock there as long as it lives, so that one which
//! was killed is found out: then the last of these files is missing.

use crate::assets::home;
use crate::limits::OTHERS_END_PAUSE;
use crate::limits::cli::SUPERVISOR_TIMEOUT;
use crate::link::runtime_dir::{self, Occupant, Occupied};
use crate::running::{self, RunningVm};
use crate::{Error, host, random};
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RECORD: &str = "record.json";
const STARTED: &str = "started.json";
const ENDED: &str = "ended.json";
/// Keeps room on the disk for what is said of the end: the log, or somebody else, may
/// fill it meanwhile.
const RESERVE: &str = "reserve";
const RESERVE_BYTES: usize = 8 << 10;
/// Is there once somebody has ended the machine by force.
const KILLED: &str = "killed";
/// Longest of these files in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Characters of an id, as docker shows them.
const ID_CHARACTERS: usize = 12;

/// What a detached machine was asked to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// What it is called, if it has a name.
    pub name: Option<String>,
    /// The image or snapshot.
    pub reference: String,
    /// Its command, as far as it is text.
    pub command: Vec<String>,
    /// What it was labelled with.
    pub labels: BTreeMap<String, String>,
    /// When it was created, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Whether nothing is kept of it once it has ended.
    pub remove: bool,
    /// The words behind `run` that started it, if they are text.
    #[serde(default)]
    pub words: Option<Vec<String>>,
    /// Where these words were said: a path among them may begin there.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// The machine it was copied from.
    #[serde(default)]
    pub forked_from: Option<String>,
    /// The snapshot it was copied from, which goes with the last copy.
    #[serde(default)]
    pub snapshot: Option<PathBuf>,
}

/// What is known once its command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// The running machine's id.
    pub vm: String,
    /// When that was, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// The status that `run` would have ended with.
    pub status: u8,
    /// How, in words.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// What a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its supervisor makes it.
    Starting,
    /// Its command runs.
    Running(Started),
    /// It has ended.
    Ended(Ended),
    /// Its supervisor was ended by force, and the machine with it.
    Lost,
}

/// A detached machine.
#[derive(Debug)]
pub struct Record {
    pub id: String,
    pub about: About,
    dir: PathBuf,
}

/// The machines of this user that have a directory, oldest first. What cannot be
/// read is left out: it is being made or removed.
pub fn all() -> Vec<Record> {
    let entries = root().ok().and_then(|root| fs::read_dir(root).ok());
    let mut found: Vec<Record> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Record::open(&entry.path()))
        .collect();
    found.sort_by_key(|record| record.about.created_unix_ms);
    found
}

/// Where the directories are: `machines` in `SUPERMACHINE_HOME`, or
/// `supermachine/machines` in `XDG_STATE_HOME`, or in `~/.local/state`.
fn root() -> Result<PathBuf, Error> {
    if let Some(home) = home()? {
        return Ok(home.join("machines"));
    }
    let set = std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty());
    let state = set.map(PathBuf::from);
    let home = || {
        let home = std::env::home_dir().filter(|home| home.is_absolute())?;
        Some(home.join(".local/state"))
    };
    let dir = state.or_else(home).ok_or(Error::Unsuitable {
        what: "a detached machine",
        needs: "a directory for its log: set XDG_STATE_HOME or HOME",
    })?;
    Ok(dir.join("supermachine/machines"))
}

impl Record {
    /// A directory for a machine, which stays as long as the file that is returned
    /// too is open, or a supervisor is there, or this is not removed.
    pub fn create(about: About) -> Result<(Self, File), Error> {
        let root = root()?;
        let private = |path: &Path, recursive| {
            let made = DirBuilder::new()
                .mode(0o700)
                .recursive(recursive)
                .create(path);
            made.map_err(Error::host("cannot make the directory of a machine", path))
        };
        private(&root, true)?;
        let mut id = random::random_name()?;
        id.truncate(ID_CHARACTERS);
        let dir = root.join(&id);
        private(&dir, false)?;
        let held =
            runtime_dir::hold(&dir).and_then(|held| held.ok_or(io::ErrorKind::NotFound.into()));
        let held = held.map_err(Error::host("cannot lock the directory of a machine", &dir))?;
        let written = write(&dir.join(RECORD), &about).and_then(|()| reserve(&dir));
        let record = Self { id, about, dir };
        match written {
            Ok(()) => Ok((record, held)),
            Err(error) => {
                drop(held);
                let _ = record.remove();
                Err(error)
            }
        }
    }

    /// The machine of a directory, if it is one.
    pub fn open(dir: &Path) -> Option<Self> {
        Some(Self {
            id: dir.file_name()?.to_str()?.to_owned(),
            about: read(&dir.join(RECORD))?,
            dir: dir.to_owned(),
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes this process its supervisor.
    pub fn occupy(&self) -> Result<Occupied, Error> {
        let failed = Error::host("cannot supervise the machine of", &self.dir);
        runtime_dir::occupy(&self.dir).map_err(failed)
    }

    pub fn set_started(&self, started: &Started) -> Result<(), Error> {
        write(&self.dir.join(STARTED), started)
    }

    pub fn set_ended(&self, ended: &Ended) -> Result<(), Error> {
        // Its room is that of what is to be written now.
        let _ = fs::remove_file(self.dir.join(RESERVE));
        write(&self.dir.join(ENDED), ended)
    }

    /// Whether somebody has ended the machine by force.
    pub fn is_killed(&self) -> bool {
        self.dir.join(KILLED).exists()
    }

    pub fn state(&self) -> State {
        // Asked first: an end is written before the supervisor is gone.
        let is_alive = self.is_supervised();
        match (read(&self.dir.join(ENDED)), read(&self.dir.join(STARTED))) {
            (Some(ended), _) => State::Ended(ended),
            (None, Some(started)) if is_alive => State::Running(started),
            (None, None) if is_alive => State::Starting,
            _ => State::Lost,
        }
    }

    /// Whether its supervisor lives.
    pub fn is_supervised(&self) -> bool {
        Occupant::of(&self.dir).is_ok_and(|occupant| occupant.is_alive())
    }

    /// Its running machine, if it has one.
    pub fn machine(&self) -> Option<RunningVm> {
        match self.state() {
            State::Running(started) => running::of(&started.vm),
            _ => None,
        }
    }

    /// Asks the supervisor to pass a signal on to the command.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let occupant = Occupant::of(&self.dir);
        let occupant = occupant.map_err(Error::host("cannot find the supervisor of", &self.dir))?;
        let Some(pid) = occupant.pid() else {
            return Ok(());
        };
        host::signal_if(pid, signal, || occupant.pid() == Some(pid))
            .map_err(Error::system("send a signal to the machine's supervisor"))
    }

    /// Ends it: has its command end, and ends the machine by force if that has not
    /// by `grace`. Returns when the end is written down.
    pub fn stop(&self, grace: Duration) -> Result<(), Error> {
        if !grace.is_zero() {
            self.signal(Signal::TERM)?;
            if self.ends_within(grace) {
                return Ok(());
            }
        }
        let killed = self.dir.join(KILLED);
        fs::write(&killed, "").map_err(Error::host("cannot end the machine of", &killed))?;
        if let Some(vm) = self.machine() {
            vm.stop(Duration::ZERO)?;
        }
        if !self.ends_within(SUPERVISOR_TIMEOUT) {
            self.signal(Signal::KILL)?;
        }
        match self.ends_within(SUPERVISOR_TIMEOUT) {
            true => Ok(()),
            false => Err(Error::Timeout {
                what: "the end of a killed supervisor",
                after: SUPERVISOR_TIMEOUT,
            }),
        }
    }

    /// Waits until its supervisor is gone.
    pub fn ends_within(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        while self.is_supervised() {
            if begun.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(OTHERS_END_PAUSE);
        }
        true
    }

    /// Removes what is known of it, unless it has a supervisor or is about to get
    /// one.
    pub fn remove(&self) -> Result<(), Error> {
        let failed = Error::host("cannot remove the machine's directory", &self.dir);
        runtime_dir::remove_if_abandoned(&self.dir).map_err(failed)
    }
}

fn reserve(dir: &Path) -> Result<(), Error> {
    let path = dir.join(RESERVE);
    // Not zeros, for which some file systems keep no room.
    fs::write(&path, [b'.'; RESERVE_BYTES]).map_err(Error::host("cannot keep room in", &path))
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let failed = || Error::host("cannot describe a machine", path);
    let text = serde_json::to_vec(value).map_err(|error| failed()(error.into()))?;
    kernel::write_durably(&text[..], path).map_err(|error| failed()(io::Error::other(error)))
}

/// `None` for what is not there, too long, or not what it should be.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = runtime_dir::open_regular(path).ok()?;
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).ok()?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return None;
    }
    serde_json::from_slice(&text).ok()
}
