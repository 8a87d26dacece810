//! Directories and files of the host, and memory, that guests see as file systems.

use bindings_core as core;
use napi_derive::napi;

/// A directory or a file of the host that a guest may mount.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct MountSpec {
    /// The directory or the file.
    pub host_path: String,
    /// What the guest mounts it by: `mount -t virtiofs TAG DIR`.
    pub guest_tag: String,
    /// It is one file, and `at` is where the guest has it.
    pub file: Option<bool>,
    /// What becomes of symbolic links; `opaque` by default.
    #[napi(ts_type = "'deny' | 'opaque' | 'follow'")]
    pub symlinks: Option<String>,
    /// Refuse every change.
    pub read_only: Option<bool>,
    /// Keep changes in the guest: the directory stays as it is.
    pub copy_on_write: Option<bool>,
    /// Where in the guest it is mounted before anything runs.
    pub at: Option<String>,
    /// Whose all files are, for the guest; root's by default.
    pub owner: Option<Owner>,
    /// Numbers of the guest that stand for others of the host, instead of `owner`.
    pub owner_map: Option<OwnerMap>,
    /// Keep owners and modes as the guest says beside the files, instead of `owner`: on the
    /// host all is still the user's who runs this.
    pub recorded_owners: Option<bool>,
    /// Have the guest map files instead of reading them (DAX): the large ones or all.
    #[napi(ts_type = "'large' | 'always'")]
    pub dax: Option<String>,
    /// The size in MiB of the window for mapped files, a multiple of 2; 256 by default.
    pub dax_window_mib: Option<f64>,
}

/// A user and a group.
#[napi(object, object_to_js = false)]
pub struct Owner {
    /// The user's number.
    pub uid: f64,
    /// The group's number.
    pub gid: f64,
}

/// Numbers of users and of groups.
#[napi(object, object_to_js = false)]
pub struct OwnerMap {
    /// Of users.
    pub users: Vec<IdRange>,
    /// Of groups.
    pub groups: Vec<IdRange>,
}

/// Numbers in a row.
#[napi(object, object_to_js = false)]
pub struct IdRange {
    /// The first in the guest.
    pub guest: f64,
    /// The first on the host.
    pub host: f64,
    /// How many.
    pub count: f64,
}

/// A file system in the guest's memory.
#[napi(object, object_to_js = false)]
pub struct TmpfsSpec {
    /// Where the guest has it.
    pub mount_point: String,
    /// The most that it takes in MiB; half of the guest's memory by default.
    pub size_mib: Option<f64>,
    /// Permission bits of its directory; 0o1777 by default.
    pub mode: Option<f64>,
    /// Whose its directory is; root's by default.
    pub owner: Option<Owner>,
    /// Whether programs there can be run; they cannot by default.
    pub executable: Option<bool>,
}

fn both(owner: Owner) -> (f64, f64) {
    (owner.uid, owner.gid)
}

fn ranges(ranges: Vec<IdRange>) -> Vec<(f64, f64, f64)> {
    let ranges = ranges.into_iter();
    ranges
        .map(|range| (range.guest, range.host, range.count))
        .collect()
}

pub fn mounts(mounts: Option<Vec<MountSpec>>) -> Vec<core::MountOptions> {
    let mounts = mounts.unwrap_or_default().into_iter();
    mounts
        .map(|mount| core::MountOptions {
            host_path: mount.host_path.into(),
            guest_tag: mount.guest_tag,
            file: mount.file.unwrap_or_default(),
            symlinks: mount.symlinks,
            read_only: mount.read_only.unwrap_or_default(),
            copy_on_write: mount.copy_on_write.unwrap_or_default(),
            at: mount.at,
            owner: mount.owner.map(both),
            owner_map: mount.owner_map.map(|map| core::OwnerMapOptions {
                users: ranges(map.users),
                groups: ranges(map.groups),
            }),
            recorded_owners: mount.recorded_owners.unwrap_or_default(),
            dax: mount.dax,
            dax_window_mib: mount.dax_window_mib,
        })
        .collect()
}

pub fn tmpfs(tmpfs: Option<Vec<TmpfsSpec>>) -> Vec<core::TmpfsOptions> {
    let tmpfs = tmpfs.unwrap_or_default().into_iter();
    tmpfs
        .map(|tmpfs| core::TmpfsOptions {
            mount_point: tmpfs.mount_point,
            size_mib: tmpfs.size_mib,
            mode: tmpfs.mode,
            owner: tmpfs.owner.map(both),
            executable: tmpfs.executable.unwrap_or_default(),
        })
        .collect()
}
