//! What the program is told.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use devices::virtio::fs::{FsConfig, IdMap, IdRange, Owner, Owners, SymlinkPolicy};

/// What is printed for `--help`.
pub const USAGE: &str = "\
usage: supermachine-fsd --socket PATH --shared PATH [OPTION…]

Shares a directory, or one file, with a guest of QEMU or of another monitor that speaks
vhost-user. The monitor names the tag, and its guest mounts that: mount -t virtiofs TAG DIR

  --socket PATH        where to listen, for this user alone
  --shared PATH        the directory, or the file
  --read-only          refuse every change
  --symlinks POLICY    opaque: links are text (default); deny: none are made, and none
                       that lead out are looked up; follow: those that lead out are what
                       they lead to
  --owner UID[:GID]    whom everything belongs to in the guest: 0 if not said
  --owner recorded     owners and modes are kept in an extended attribute
  --uidmap GUEST:HOST[:COUNT], --gidmap GUEST:HOST[:COUNT]
                       numbers of the guest are others of the host, any number of times
  --workers N          most requests worked on at the same time, 1 to 16: 4 if not said
  --once               end when the first client has gone
";

/// By what a monitor knows it: it has the name of the guest's mount.
const TAG: &str = "fsd";

/// What the program is to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Where to listen.
    pub socket: PathBuf,
    /// The directory, or the file.
    pub shared: PathBuf,
    /// How it is shared.
    pub config: FsConfig,
    /// End after one client.
    pub once: bool,
    /// The client is connected already, by standard input.
    pub is_connected: bool,
}

/// Why there is nothing to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionsError {
    /// Help is wanted.
    #[error("{USAGE}")]
    Help,
    /// A word that is no option.
    #[error("`{0}` is no option: see --help")]
    Unknown(String),
    /// An option without what it takes.
    #[error("`{0}` takes a value: see --help")]
    NoValue(String),
    /// A value that the option does not take.
    #[error("`{option} {value}`: {wanted}")]
    BadValue {
        /// The option.
        option: String,
        /// What was said.
        value: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// An option that has to be there.
    #[error("`{0}` is missing: see --help")]
    Missing(&'static str),
    /// Owners are said twice.
    #[error("there is either an owner or a map of owners: leave one out")]
    TwoOwners,
}

/// The word by which the program starts itself for a client.
pub const CONNECTED: &str = "--connected";

/// Reads the words after the program's name.
///
/// # Errors
/// [`OptionsError`], whose text is for the user.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Options, OptionsError> {
    let mut words = words.into_iter();
    let (mut socket, mut shared, mut owner) = (None, None, None);
    let (mut once, mut is_connected) = (false, false);
    let mut config = FsConfig::new(TAG);
    let mut map = IdMap::default();
    while let Some(word) = words.next() {
        let option = word.to_string_lossy().into_owned();
        let mut value = || {
            let value = words.next();
            value.ok_or_else(|| OptionsError::NoValue(option.clone()))
        };
        match option.as_str() {
            "--help" | "-h" => return Err(OptionsError::Help),
            "--socket" => socket = Some(PathBuf::from(value()?)),
            "--shared" => shared = Some(PathBuf::from(value()?)),
            "--read-only" => config.read_only = true,
            "--once" => once = true,
            CONNECTED => is_connected = true,
            "--symlinks" => config.symlinks = read(&option, &value()?, policy, POLICIES)?,
            "--owner" => owner = Some(read(&option, &value()?, owners, OWNER)?),
            "--uidmap" => map.users.push(read(&option, &value()?, range, RANGE)?),
            "--gidmap" => map.groups.push(read(&option, &value()?, range, RANGE)?),
            "--workers" => config.workers = read(&option, &value()?, workers, WORKERS)?,
            _ => return Err(OptionsError::Unknown(option)),
        }
    }
    config.owners = match (owner, map == IdMap::default()) {
        (Some(_), false) => return Err(OptionsError::TwoOwners),
        (Some(owners), true) => owners,
        (None, false) => Owners::Map(map),
        (None, true) => Owners::default(),
    };
    Ok(Options {
        socket: socket.ok_or(OptionsError::Missing("--socket"))?,
        shared: shared.ok_or(OptionsError::Missing("--shared"))?,
        config,
        once,
        is_connected,
    })
}

const POLICIES: &str = "links are opaque, deny or follow";
const OWNER: &str = "an owner is UID or UID:GID, in numbers, or `recorded`";
const RANGE: &str = "a map of owners is GUEST:HOST or GUEST:HOST:COUNT, in numbers";
const WORKERS: &str = "there are 1 to 16 workers";

fn read<T>(
    option: &str,
    value: &OsStr,
    parse: impl Fn(&str) -> Option<T>,
    wanted: &'static str,
) -> Result<T, OptionsError> {
    let parsed = value.to_str().and_then(parse);
    parsed.ok_or_else(|| OptionsError::BadValue {
        option: option.to_owned(),
        value: value.to_string_lossy().into_owned(),
        wanted,
    })
}

fn policy(text: &str) -> Option<SymlinkPolicy> {
    match text {
        "opaque" => Some(SymlinkPolicy::Opaque),
        "deny" => Some(SymlinkPolicy::Deny),
        "follow" => Some(SymlinkPolicy::Follow),
        _ => None,
    }
}

/// User and group; without a group, the one with the user's number.
fn owners(text: &str) -> Option<Owners> {
    if text == "recorded" {
        return Some(Owners::Recorded(Owner::default()));
    }
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    Some(Owners::Squash(Owner { uid, gid }))
}

fn range(text: &str) -> Option<IdRange> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
    let (guest, host, count) = match *numbers?.as_slice() {
        [guest, host] => (guest, host, 1),
        [guest, host, count] => (guest, host, count),
        _ => return None,
    };
    Some(IdRange { guest, host, count })
}

fn workers(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| (1..=16).contains(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Options, OptionsError> {
        parse(text.split(' ').map(OsString::from))
    }

    #[test]
    fn words_say_what_is_shared_and_how() {
        let options = said(
            "--socket /s --shared /d --read-only --symlinks deny --owner 7:8 --workers 2 --once",
        );
        let config = FsConfig {
            read_only: true,
            symlinks: SymlinkPolicy::Deny,
            owners: Owners::Squash(Owner { uid: 7, gid: 8 }),
            workers: 2,
            ..FsConfig::new(TAG)
        };
        let wanted = Options {
            socket: "/s".into(),
            shared: "/d".into(),
            config,
            once: true,
            is_connected: false,
        };
        assert_eq!(options, Ok(wanted));
        let mapped = said("--socket /s --shared /d --uidmap 0:1000 --uidmap 1:5:9 --gidmap 0:20");
        let Owners::Map(map) = mapped.unwrap().config.owners else {
            panic!("a map");
        };
        assert_eq!((map.users.len(), map.groups.len()), (2, 1));
        let recorded = said("--socket /s --shared /d --owner recorded").unwrap();
        assert_eq!(recorded.config.owners, Owners::Recorded(Owner::default()));
    }

    #[test]
    fn words_that_say_nothing_are_refused_by_name() {
        for (words, text) in [
            ("--shared /d", "`--socket` is missing"),
            ("--socket /s", "`--shared` is missing"),
            ("--socket", "`--socket` takes a value"),
            ("--tag x", "`--tag` is no option"),
            ("--symlinks some", "opaque, deny or follow"),
            ("--owner root", "in numbers"),
            ("--uidmap 5", "GUEST:HOST"),
            ("--workers 17", "1 to 16"),
            ("--workers 0", "1 to 16"),
            (
                "--socket /s --shared /d --owner 1 --gidmap 0:1",
                "either an owner or a map",
            ),
        ] {
            let error = said(words).unwrap_err().to_string();
            assert!(error.contains(text), "{words}: {error}");
        }
        assert_eq!(said("--socket /s -h"), Err(OptionsError::Help));
    }
}
