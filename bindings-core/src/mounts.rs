//! Directories and files of the host, and memory, that guests see as file systems.

use std::path::PathBuf;

use supermachine::{DaxPolicy, IdMap, IdRange, MountSpec, SymlinkPolicy, TmpfsSpec};

use crate::numbers::{fitting, optional, whole};
use crate::{BindingError, Result};

/// A directory or a file of the host that a guest may mount.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MountOptions {
    /// The directory or the file.
    pub host_path: PathBuf,
    /// What the guest mounts it by.
    pub guest_tag: String,
    /// It is one file.
    pub file: bool,
    /// `deny`, `opaque` or `follow`.
    pub symlinks: Option<String>,
    /// Refuse every change.
    pub read_only: bool,
    /// Changes stay in the guest.
    pub copy_on_write: bool,
    /// Have the agent mount it there.
    pub at: Option<String>,
    /// The user and the group that all files belong to.
    pub owner: Option<(f64, f64)>,
    /// Numbers of the guest that stand for others of the host.
    pub owner_map: Option<OwnerMapOptions>,
    /// Keep owners and modes beside the files.
    pub recorded_owners: bool,
    /// `large` or `always`.
    pub dax: Option<String>,
    /// The size of the window for mapped files.
    pub dax_window_mib: Option<f64>,
}

/// Numbers of the guest that stand for others of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnerMapOptions {
    /// Of users: the first in the guest, the first on the host, how many.
    pub users: Vec<(f64, f64, f64)>,
    /// The same of groups.
    pub groups: Vec<(f64, f64, f64)>,
}

impl OwnerMapOptions {
    fn map(self) -> Result<IdMap> {
        let ranges = |ranges: Vec<(f64, f64, f64)>| {
            let range = |(guest, host, count)| {
                Ok(IdRange {
                    guest: fitting("guest", guest, 0)?,
                    host: fitting("host", host, 0)?,
                    count: fitting("count", count, 1)?,
                })
            };
            ranges.into_iter().map(range).collect::<Result<_>>()
        };
        Ok(IdMap {
            users: ranges(self.users)?,
            groups: ranges(self.groups)?,
        })
    }
}

impl MountOptions {
    pub(crate) fn spec(self) -> Result<MountSpec> {
        let symlinks = match self.symlinks.as_deref() {
            None | Some("opaque") => SymlinkPolicy::Opaque,
            Some("deny") => SymlinkPolicy::Deny,
            Some("follow") => SymlinkPolicy::Follow,
            Some(other) => {
                return Err(BindingError::invalid(format!(
                    "symlinks must be deny, opaque or follow, not {other:?}"
                )));
            }
        };
        let spec = match self.file {
            true => MountSpec::file(self.host_path, self.guest_tag),
            false => MountSpec::new(self.host_path, self.guest_tag),
        };
        let mut spec = spec.with_symlinks(symlinks).read_only(self.read_only);
        if self.copy_on_write {
            spec = spec.copy_on_write();
        }
        spec = match (self.owner, self.owner_map, self.recorded_owners) {
            (None, None, false) => spec,
            (Some((uid, gid)), None, false) => {
                spec.with_owner(fitting("uid", uid, 0)?, fitting("gid", gid, 0)?)
            }
            (None, Some(map), false) => spec.with_owner_map(map.map()?),
            (None, None, true) => spec.with_recorded_owners(),
            _ => {
                return Err(BindingError::invalid(
                    "of owner, ownerMap and recordedOwners choose one",
                ));
            }
        };
        spec = match self.dax.as_deref() {
            None => spec,
            Some("large") => spec.with_dax(DaxPolicy::LargeFiles),
            Some("always") => spec.with_dax(DaxPolicy::Always),
            Some(other) => {
                return Err(BindingError::invalid(format!(
                    "dax must be large or always, not {other:?}"
                )));
            }
        };
        if let Some(mib) = optional("daxWindowMib", self.dax_window_mib, 1)? {
            if self.dax.is_none() {
                return Err(BindingError::invalid(
                    "daxWindowMib is for mapped files: say dax, too",
                ));
            }
            spec = spec.with_dax_window_mib(mib);
        }
        Ok(match self.at {
            Some(path) => spec.at(path),
            None => spec,
        })
    }
}

/// A file system in the guest's memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TmpfsOptions {
    /// Where the guest has it.
    pub mount_point: String,
    /// The most that it takes.
    pub size_mib: Option<f64>,
    /// Permission bits of its directory.
    pub mode: Option<f64>,
    /// The user and the group of its directory.
    pub owner: Option<(f64, f64)>,
    /// Whether programs there can be run.
    pub executable: bool,
}

impl TmpfsOptions {
    pub(crate) fn spec(self) -> Result<TmpfsSpec> {
        let mut spec = TmpfsSpec::new(self.mount_point).executable(self.executable);
        if let Some(mib) = self.size_mib {
            spec = spec.with_size_mib(whole("sizeMib", mib, 1)?);
        }
        if let Some(mode) = optional("mode", self.mode, 0)? {
            spec = spec.with_mode(mode);
        }
        if let Some((uid, gid)) = self.owner {
            spec = spec.with_owner(fitting("uid", uid, 0)?, fitting("gid", gid, 0)?);
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(change: impl FnOnce(&mut MountOptions)) -> Result<MountSpec> {
        let mut options = MountOptions {
            host_path: "/srv".into(),
            guest_tag: "srv".into(),
            ..MountOptions::default()
        };
        change(&mut options);
        options.spec()
    }

    #[test]
    fn mounts_are_those_of_rust() {
        let plain = || MountSpec::new("/srv", "srv");
        assert_eq!(mount(|_| {}).unwrap(), plain());
        let owned = mount(|o| o.owner = Some((1.0, 2.0))).unwrap();
        assert_eq!(owned, plain().with_owner(1, 2));
        let recorded = mount(|o| o.recorded_owners = true).unwrap();
        assert_eq!(recorded, plain().with_recorded_owners());
        let ranges = vec![(0.0, 1000.0, 1.0)];
        let map = OwnerMapOptions {
            users: ranges.clone(),
            groups: ranges,
        };
        let alone = vec![IdRange {
            guest: 0,
            host: 1000,
            count: 1,
        }];
        let expected = plain().with_owner_map(IdMap {
            users: alone.clone(),
            groups: alone,
        });
        assert_eq!(mount(|o| o.owner_map = Some(map)).unwrap(), expected);
        let mapped = mount(|o| {
            o.dax = Some("always".into());
            o.dax_window_mib = Some(64.0);
        });
        let expected = plain().with_dax(DaxPolicy::Always).with_dax_window_mib(64);
        assert_eq!(mapped.unwrap(), expected);
        let file = mount(|o| {
            o.file = true;
            o.at = Some("/etc/app.conf".into());
        });
        let expected = MountSpec::file("/srv", "srv").at("/etc/app.conf");
        assert_eq!(file.unwrap(), expected);
    }

    #[test]
    fn options_that_contradict_each_other_are_errors() {
        let said = |change: fn(&mut MountOptions)| mount(change).unwrap_err().to_string();
        assert!(said(|o| o.symlinks = Some("maybe".into())).contains("symlinks"));
        assert!(said(|o| o.dax = Some("never".into())).contains("dax"));
        assert!(said(|o| o.dax_window_mib = Some(2.0)).contains("say dax"));
        assert!(said(|o| o.owner = Some((-1.0, 0.0))).contains("uid"));
        let both = |o: &mut MountOptions| {
            o.owner = Some((0.0, 0.0));
            o.recorded_owners = true;
        };
        assert!(said(both).contains("choose one"));
    }

    #[test]
    fn memory_has_the_limits_it_is_given() {
        let options = TmpfsOptions {
            mount_point: "/scratch".into(),
            size_mib: Some(64.0),
            mode: Some(448.0),
            owner: Some((1.0, 2.0)),
            executable: true,
        };
        let spec = TmpfsSpec::new("/scratch")
            .with_size_mib(64)
            .with_mode(0o700)
            .with_owner(1, 2)
            .executable(true);
        assert_eq!(options.spec().unwrap(), spec);
        let none = TmpfsOptions {
            size_mib: Some(0.5),
            ..TmpfsOptions::default()
        };
        assert!(none.spec().unwrap_err().to_string().contains("sizeMib"));
    }
}
