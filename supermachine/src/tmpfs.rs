//! File systems in a guest's memory.

use crate::{Error, guest_path};
use serde::{Deserialize, Serialize};

/// Linux's `sys/mount.h`.
pub(crate) const MS_NOSUID: u64 = 2;
pub(crate) const MS_NODEV: u64 = 4;
pub(crate) const MS_NOEXEC: u64 = 8;
/// As docker mounts them.
pub(crate) const USUAL_FLAGS: u64 = MS_NOSUID | MS_NODEV | MS_NOEXEC;
/// As /tmp has it: everybody writes, and removes their own.
const USUAL_MODE: u32 = 0o1777;
/// Largest that can be said, as of volumes.
const MAX_MIB: u64 = 8 << 20;

/// A file system in the guest's memory: what is written there is on no disk of the
/// host, takes from the machine's memory, and ends with the machine. Snapshots and
/// forked children have what is in it.
///
/// ```
/// use supermachine::{TmpfsSpec, VmConfig};
///
/// let scratch = TmpfsSpec::new("/scratch").with_size_mib(64).with_mode(0o700);
/// let config = VmConfig::new().with_tmpfs(scratch);
/// ```
///
/// As with docker nothing there is run, is a device, or gives rights; programs can be
/// [let run](TmpfsSpec::executable).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TmpfsSpec {
    mount_point: String,
    size_mib: Option<u64>,
    mode: u32,
    owner: (u32, u32),
    executable: bool,
}

impl TmpfsSpec {
    /// Memory at this path of the guest, which is absolute and is made if it is not
    /// there; half of the guest's at most, and for everybody.
    pub fn new(mount_point: impl Into<String>) -> Self {
        Self {
            mount_point: mount_point.into(),
            size_mib: None,
            mode: USUAL_MODE,
            owner: (0, 0),
            executable: false,
        }
    }

    /// The most that it takes, in MiB, instead of half of the guest's memory.
    pub fn with_size_mib(mut self, size_mib: u64) -> Self {
        self.size_mib = Some(size_mib);
        self
    }

    /// The permission bits of its directory; `0o1777` if not set.
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The user and the group of its directory; root if not set.
    pub fn with_owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Whether programs there can be run.
    pub fn executable(mut self, executable: bool) -> Self {
        self.executable = executable;
        self
    }

    fn refused(&self, problem: &'static str) -> Error {
        Error::Mount {
            tag: self.mount_point.clone(),
            problem,
        }
    }

    fn validate(&self) -> Result<(), Error> {
        guest_path::check(&self.mount_point).map_err(|problem| self.refused(problem))?;
        // To the kernel none at all is no limit.
        if self
            .size_mib
            .is_some_and(|mib| !(1..=MAX_MIB).contains(&mib))
        {
            return Err(self.refused("choose a size of 1 MiB to 8 TiB"));
        }
        if self.mode & !0o7777 != 0 {
            return Err(self.refused("choose a mode of permission bits"));
        }
        Ok(())
    }

    pub(crate) fn mount_point(&self) -> &str {
        &self.mount_point
    }

    /// `MS_*` that it is mounted with.
    pub(crate) fn flags(&self) -> u64 {
        match self.executable {
            true => USUAL_FLAGS & !MS_NOEXEC,
            false => USUAL_FLAGS,
        }
    }

    /// Options of the file system itself.
    pub(crate) fn options(&self) -> String {
        let (uid, gid) = self.owner;
        let size = self.size_mib.map(|mib| format!(",size={mib}m"));
        let size = size.unwrap_or_default();
        format!("mode={:o},uid={uid},gid={gid}{size}", self.mode)
    }
}

/// Refuses those that no machine could have.
pub(crate) fn validate(all: &[TmpfsSpec]) -> Result<(), Error> {
    for (n, tmpfs) in all.iter().enumerate() {
        tmpfs.validate()?;
        let twice = |other: &TmpfsSpec| other.mount_point == tmpfs.mount_point;
        if all[..n].iter().any(twice) {
            return Err(tmpfs.refused("give memory to a place once"));
        }
    }
    Ok(())
}

/// Those of a copy that its snapshot has not, which are mounted when it starts.
pub(crate) fn missing<'a>(
    wanted: &'a [TmpfsSpec],
    there: &[TmpfsSpec],
) -> Result<Vec<&'a TmpfsSpec>, Error> {
    let mut missing = Vec::new();
    for tmpfs in wanted {
        match there.iter().find(|t| t.mount_point == tmpfs.mount_point) {
            None => missing.push(tmpfs),
            Some(same) if same == tmpfs => {}
            Some(_) => {
                return Err(tmpfs.refused(
                    "the snapshot has memory there of another size, mode or owner: bake the \
                     image with this one",
                ));
            }
        }
    }
    Ok(missing)
}

/// What a machine with these has, which is a copy of one with others.
pub(crate) fn together(there: &[TmpfsSpec], more: &[TmpfsSpec]) -> Vec<TmpfsSpec> {
    let mut all = there.to_vec();
    let is_new = |tmpfs: &&TmpfsSpec| !there.contains(tmpfs);
    all.extend(more.iter().filter(is_new).cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_sizes_and_modes_that_no_guest_could_use_are_refused() {
        let problem = |tmpfs: TmpfsSpec| validate(&[tmpfs]).unwrap_err().to_string();
        for at in ["", "tmp", "/", "/.", "/a/../b", "/a\0"] {
            assert!(problem(TmpfsSpec::new(at)).contains("in the guest"), "{at}");
        }
        for mib in [0, MAX_MIB + 1, u64::MAX] {
            assert!(problem(TmpfsSpec::new("/t").with_size_mib(mib)).contains("MiB"));
        }
        assert!(problem(TmpfsSpec::new("/t").with_mode(0o10_000)).contains("mode"));
        let one = TmpfsSpec::new("/t");
        assert!(validate(&[one.clone(), one.clone()]).is_err());
        assert!(validate(&[one, TmpfsSpec::new("/u")]).is_ok());
    }

    #[test]
    fn options_are_the_kernels() {
        let plain = TmpfsSpec::new("/t");
        assert_eq!(plain.options(), "mode=1777,uid=0,gid=0");
        assert_eq!(plain.flags(), MS_NOSUID | MS_NODEV | MS_NOEXEC);
        let all = TmpfsSpec::new("/t")
            .with_size_mib(64)
            .with_mode(0o700)
            .with_owner(1, 2)
            .executable(true);
        assert_eq!(all.options(), "mode=700,uid=1,gid=2,size=64m");
        assert_eq!(all.flags(), MS_NOSUID | MS_NODEV);
    }

    #[test]
    fn copies_mount_what_their_snapshot_has_not() {
        let [a, b] = ["/a", "/b"].map(TmpfsSpec::new);
        let wanted = [a.clone(), b.clone()];
        assert_eq!(missing(&wanted, std::slice::from_ref(&a)).unwrap(), [&b]);
        let other = a.clone().with_size_mib(1);
        let error = missing(&wanted, &[other]).unwrap_err();
        assert!(error.to_string().contains("another size"), "{error}");
        assert_eq!(together(std::slice::from_ref(&a), &wanted), wanted);
        assert_eq!(together(&wanted, &[a]), wanted);
    }
}
