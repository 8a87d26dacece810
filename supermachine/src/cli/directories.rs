//! `-v` and `--mount`: directories and files of the host for the guest, and volumes.

use super::values::memory_mib;
use crate::{DaxPolicy, IdMap, IdRange, MountSpec, SymlinkPolicy, VmConfig, VolumeSpec};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    ReadWrite,
    ReadOnly,
    CopyOnWrite,
}

/// A mount as it stands on the command line; its tag is its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    host: String,
    guest: String,
    access: Access,
    symlinks: SymlinkPolicy,
    owners: Owners,
    dax: Option<DaxPolicy>,
    window_mib: Option<u32>,
    is_watched: bool,
}

/// Whom files of a mount belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owners {
    One(u32, u32),
    Recorded,
    Map(IdMap),
}

/// What a machine is given to keep files in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A directory of the host.
    Directory(Directory),
    /// A disk with a name.
    Volume(VolumeSpec),
}

/// Adds what a machine is given to its configuration.
pub fn give<'a>(mut config: VmConfig, given: impl Iterator<Item = &'a Given>) -> VmConfig {
    let mut directories = 0;
    for given in given {
        config = match given {
            Given::Directory(directory) => {
                directories += 1;
                config.with_mount(directory.spec(directories - 1))
            }
            Given::Volume(volume) => config.with_volume(volume.clone()),
        };
    }
    config
}

/// Whether a word is a path, and not the name of a volume.
fn is_path(host: &str) -> bool {
    host.is_empty() || host.starts_with(['/', '.', '~']) || host.contains('/')
}

fn named(name: &str, place: &str, size: Option<&str>) -> Result<VolumeSpec, String> {
    let volume = VolumeSpec::new(name, place);
    match size {
        None => Ok(volume),
        Some(size) => {
            let mib = memory_mib(size).map_err(|problem| format!("the size: {problem}"))?;
            Ok(volume.with_size_mib(mib as u64))
        }
    }
}

impl Directory {
    fn new(host: &str, guest: &str) -> Result<Self, String> {
        if host.is_empty() {
            return Err("no directory of the host is named".to_owned());
        }
        if !is_path(host) {
            return Err(format!(
                "for a directory write `./{host}`, for a volume type=volume"
            ));
        }
        if !guest.starts_with('/') {
            return Err("the place in the guest is an absolute path".to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            guest: guest.to_owned(),
            access: Access::ReadWrite,
            symlinks: SymlinkPolicy::default(),
            owners: Owners::One(0, 0),
            dax: None,
            window_mib: None,
            is_watched: true,
        })
    }

    /// What only a word says.
    fn set(&mut self, word: &str) -> Result<(), String> {
        match word {
            "ro" | "readonly" => self.access = Access::ReadOnly,
            "rw" => self.access = Access::ReadWrite,
            "cow" => self.access = Access::CopyOnWrite,
            "dax" => self.dax = Some(DaxPolicy::LargeFiles),
            "nowatch" => self.is_watched = false,
            other => {
                return Err(format!(
                    "`{other}` is no option of a mount: use rw, ro, cow, dax or nowatch"
                ));
            }
        }
        Ok(())
    }

    /// The mount, as the `number`th of its machine.
    pub fn spec(&self, number: usize) -> MountSpec {
        // A relative path means what it means to the user's shell.
        let host = std::path::absolute(&self.host).unwrap_or_else(|_| (&*self.host).into());
        let tag = format!("mount{number}");
        let spec = match host.is_file() {
            true => MountSpec::file(host, tag),
            false => MountSpec::new(host, tag),
        };
        let spec = spec.at(&*self.guest).with_symlinks(self.symlinks);
        let spec = spec.with_watch(self.is_watched);
        let spec = match &self.owners {
            Owners::One(uid, gid) => spec.with_owner(*uid, *gid),
            Owners::Recorded => spec.with_recorded_owners(),
            Owners::Map(map) => spec.with_owner_map(map.clone()),
        };
        let spec = match self.dax {
            None => spec,
            Some(policy) => spec.with_dax(policy),
        };
        let spec = match self.window_mib {
            None => spec,
            Some(mib) => spec.with_dax_window_mib(mib),
        };
        match self.access {
            Access::ReadWrite => spec,
            Access::ReadOnly => spec.read_only(true),
            Access::CopyOnWrite => spec.copy_on_write(),
        }
    }
}

/// `HOST:GUEST`, and `:ro` if nothing may be changed, `:cow` if that stays in the
/// guest's memory, `:dax` if large files are mapped, `:nowatch` if the guest is not told
/// what the host changes; or `NAME:GUEST`, and a volume's size.
pub fn volume(text: &str) -> Result<Given, String> {
    let mut parts = text.split(':');
    let (Some(host), Some(guest)) = (parts.next(), parts.next()) else {
        return Err(
            "expected HOST:GUEST, HOST:GUEST:ro, HOST:GUEST:cow or NAME:GUEST[:SIZE]".to_owned(),
        );
    };
    if !is_path(host) {
        let size = parts.next();
        return match parts.next() {
            None => named(host, guest, size).map(Given::Volume),
            Some(_) => Err("a volume has a name, a place and a size".to_owned()),
        };
    }
    let mut mount = Directory::new(host, guest)?;
    for word in parts.flat_map(|words| words.split(',')) {
        mount.set(word)?;
    }
    Ok(Given::Directory(mount))
}

/// `type=volume,source=NAME,target=GUEST` and `size=SIZE`, or
/// `type=bind,source=HOST,target=GUEST` and, each after a comma, `readonly`, `cow`, `nowatch`,
/// `symlinks=opaque|deny|follow`, `dax=large|always` and `dax-window=SIZE`, and
/// `owner=UID[:GID]`, `owner=recorded`, or `uidmap=GUEST:HOST[:COUNT]` and `gidmap=`
/// likewise, each any number of times.
pub fn mount(text: &str) -> Result<Given, String> {
    let (mut is_volume, mut size) = (false, None);
    let mut host = None;
    let mut guest = None;
    let mut words = Vec::new();
    let mut symlinks = SymlinkPolicy::default();
    let mut owners = Owners::One(0, 0);
    let mut map = IdMap::default();
    let (mut dax, mut window_mib) = (None, None);
    for part in text.split(',') {
        match part.split_once('=').unwrap_or((part, "")) {
            ("type", "bind" | "virtiofs") => {}
            ("type", "volume") => is_volume = true,
            ("type", other) => {
                return Err(format!(
                    "there are no mounts of type `{other}`: use bind or volume"
                ));
            }
            ("size", value) => size = Some(value),
            ("source" | "src", value) => host = Some(value),
            ("target" | "destination" | "dst", value) => guest = Some(value),
            ("symlinks", value) => symlinks = policy(value)?,
            ("owner", "recorded") => owners = Owners::Recorded,
            ("owner", value) => owners = ids(value)?,
            ("uidmap", value) => map.users.push(range(value)?),
            ("gidmap", value) => map.groups.push(range(value)?),
            ("dax", "" | "large") => dax = Some(DaxPolicy::LargeFiles),
            ("dax", "always") => dax = Some(DaxPolicy::Always),
            ("dax-window", value) => {
                let mib = memory_mib(value).map_err(|problem| format!("dax-window: {problem}"))?;
                window_mib = u32::try_from(mib).ok();
            }
            ("readonly" | "ro", "true" | "1") => words.push("ro"),
            ("readonly" | "ro", "false" | "0") => words.push("rw"),
            (word, "") => words.push(word),
            (word, _) => return Err(format!("`{word}` is nothing that a mount has")),
        }
    }
    let (Some(host), Some(guest)) = (host, guest) else {
        return Err("expected source=HOST and target=GUEST".to_owned());
    };
    if map != IdMap::default() {
        if owners != Owners::One(0, 0) {
            return Err("a mount has either an owner or a map of owners".to_owned());
        }
        owners = Owners::Map(map);
    }
    let is_plain = words.is_empty()
        && dax.is_none()
        && window_mib.is_none()
        && owners == Owners::One(0, 0)
        && symlinks == SymlinkPolicy::default();
    match (is_volume, size) {
        (true, size) if is_plain => return named(host, guest, size).map(Given::Volume),
        (true, _) => return Err("of a volume only the size can be said".to_owned()),
        (false, Some(_)) => return Err("only a volume has a size: use type=volume".to_owned()),
        (false, None) => {}
    }
    let mut mount = Directory::new(host, guest)?;
    for word in words {
        mount.set(word)?;
    }
    if window_mib.is_some() && dax.is_none() {
        return Err("a window is for mapped files: say dax=large or dax=always".to_owned());
    }
    (mount.symlinks, mount.owners) = (symlinks, owners);
    (mount.dax, mount.window_mib) = (dax, window_mib);
    Ok(Given::Directory(mount))
}

fn policy(text: &str) -> Result<SymlinkPolicy, String> {
    match text {
        "deny" => Ok(SymlinkPolicy::Deny),
        "opaque" => Ok(SymlinkPolicy::Opaque),
        "follow" => Ok(SymlinkPolicy::Follow),
        other => Err(format!(
            "`{other}` is nothing that becomes of links: use deny, opaque or follow"
        )),
    }
}

/// User and group; without a group, the one with the user's number.
fn ids(text: &str) -> Result<Owners, String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok(Owners::One(uid, gid)),
        _ => Err("an owner is UID or UID:GID, in numbers, or `recorded`".to_owned()),
    }
}

/// `GUEST:HOST`, and how many there are in a row if it is more than one.
fn range(text: &str) -> Result<IdRange, String> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([guest, host]) => Ok((*guest, *host, 1)),
        Some([guest, host, count]) => Ok((*guest, *host, *count)),
        _ => Err("a map of owners is GUEST:HOST or GUEST:HOST:COUNT, in numbers".to_owned()),
    }
    .map(|(guest, host, count)| IdRange { guest, host, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(given: Result<Given, String>) -> MountSpec {
        match given {
            Ok(Given::Directory(directory)) => directory.spec(3),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_volumes_with_a_place_and_a_size() {
        let plain = VolumeSpec::new("cache", "/c");
        let sized = plain.clone().with_size_mib(10 << 10);
        for (text, expected) in [("cache:/c", &plain), ("cache:/c:10g", &sized)] {
            assert_eq!(volume(text), Ok(Given::Volume(expected.clone())));
        }
        let text = "type=volume,source=cache,target=/c,size=10g";
        assert_eq!(mount(text), Ok(Given::Volume(sized)));
        let given = [text, "src=/a,dst=/b"].map(|text| mount(text).unwrap());
        let config = give(VmConfig::new(), given.iter());
        assert_eq!(config.mounts, [MountSpec::new("/a", "mount0").at("/b")]);
        for bad in ["cache:/c:ro", "cache:/c:1g:2g", "cache:/c:"] {
            assert!(volume(bad).is_err(), "{bad:?}");
        }
        for bad in ["type=volume,src=a,dst=/b,ro", "src=/a,dst=/b,size=1g"] {
            assert!(mount(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_directories_with_a_place_and_options() {
        let spec = |text| directory(volume(text));
        let plain = MountSpec::new("/a", "mount3").at("/work");
        assert_eq!(spec("/a:/work"), plain);
        assert_eq!(spec("/a:/work:rw"), plain);
        assert_eq!(spec("/a:/work:cow"), plain.clone().copy_on_write());
        let mapped = plain.clone().with_dax(DaxPolicy::LargeFiles);
        assert_eq!(spec("/a:/work:dax"), mapped);
        assert_eq!(spec("/a:/work:nowatch"), plain.clone().with_watch(false));
        assert_eq!(spec("/a:/work:ro,dax"), mapped.read_only(true));
        assert_eq!(spec("/a:/work:ro"), plain.read_only(true));
        let here = std::env::current_dir().unwrap().join("x");
        assert_eq!(spec("./x:/w"), MountSpec::new(here, "mount3").at("/w"));
        for bad in ["", "/a", ":/b", "/a:", "/a:b", "/a:/b:", "/a:/b:z"] {
            assert!(volume(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mounts_are_written_out() {
        let spec = |text: &str| directory(mount(text));
        let plain = MountSpec::new("/a", "mount3").at("/b");
        assert_eq!(spec("type=bind,source=/a,target=/b"), plain);
        assert_eq!(
            spec("src=/a,dst=/b,readonly,symlinks=follow,owner=1000"),
            plain
                .clone()
                .read_only(true)
                .with_symlinks(SymlinkPolicy::Follow)
                .with_owner(1000, 1000)
        );
        assert_eq!(
            spec("src=/a,dst=/b,ro=false,owner=1:2,symlinks=deny"),
            plain.with_symlinks(SymlinkPolicy::Deny).with_owner(1, 2)
        );
        let range = |guest, host, count| IdRange { guest, host, count };
        let map = IdMap {
            users: vec![range(0, 1000, 1), range(1, 5000, 9)],
            groups: vec![range(0, 20, 1)],
        };
        let plain = MountSpec::new("/a", "mount3").at("/b");
        assert_eq!(
            spec("src=/a,dst=/b,uidmap=0:1000,uidmap=1:5000:9,gidmap=0:20"),
            plain.clone().with_owner_map(map)
        );
        let recorded = plain.clone().with_recorded_owners();
        assert_eq!(spec("src=/a,dst=/b,owner=recorded"), recorded);
        let mapped = |policy| plain.clone().with_dax(policy);
        for (text, expected) in [
            ("dax", mapped(DaxPolicy::LargeFiles)),
            ("dax=large", mapped(DaxPolicy::LargeFiles)),
            (
                "dax=always,dax-window=1g",
                mapped(DaxPolicy::Always).with_dax_window_mib(1024),
            ),
        ] {
            assert_eq!(spec(&format!("src=/a,dst=/b,{text}")), expected);
        }
        for bad in [
            "src=/a,dst=/b,dax=never",
            "src=/a,dst=/b,dax-window=1g",
            "src=/a,dst=/b,dax,dax-window=x",
            "type=volume,src=a,dst=/b,dax",
            "",
            "src=/a,dst=/b,uidmap=0",
            "src=/a,dst=/b,uidmap=0:a",
            "src=/a,dst=/b,owner=1,uidmap=0:1",
            "type=volume,src=a,dst=/b,gidmap=0:1",
            "src=/a",
            "dst=/b",
            "src=/a,dst=/b,type=tmpfs",
            "src=/a,dst=/b,colour=red",
            "src=/a,dst=/b,symlinks=maybe",
            "src=/a,dst=/b,owner=me",
            "src=a,dst=/b",
        ] {
            assert!(mount(bad).is_err(), "{bad:?}");
        }
    }
}
