//! Names in directories: found, made, moved and removed.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::super::host::{self, Stat};
use super::super::nodes::{Link, Step};
use super::super::owners::Made;
use super::super::wire::{Body, ENTRY_BYTES, Fields};
use super::super::{Owner, SymlinkPolicy, wire};
use super::find::{Dir, stat_name};
use super::{Server, VALIDITY};

impl Server {
    pub(super) fn look_up(&self, parent: u64, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let name = arguments.name()?;
        let dir = self.dir(parent)?;
        match self.enter(parent, &dir, name) {
            Ok(body) => Ok(body),
            // The guest may remember for a while that it is not there.
            Err(Errno::NOENT) => {
                let mut body = Body::default();
                body.u64(0).u64(0).u64(VALIDITY.seconds);
                body.0.resize(ENTRY_BYTES, 0);
                Ok(body)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the guest of an entry, as far as it may see it.
    fn enter(&self, parent: u64, dir: &Dir<'_>, name: &CStr) -> Result<Body, Errno> {
        let stat = host::stat_entry(dir, name)?;
        let (stat, followed) = self.permit(parent, dir, name, stat)?;
        let stat = match followed {
            true => stat,
            false => self.with_record(dir, name, stat)?,
        };
        let body = self.tell(parent, name, followed, &stat)?;
        if !followed {
            self.watch_entry((parent, dir), name, told_node(&body)?, &stat);
        }
        Ok(body)
    }

    /// What the policy for links makes of an entry; whether it is what a link
    /// leads to.
    fn permit(
        &self,
        parent: u64,
        dir: &Dir<'_>,
        name: &CStr,
        stat: Stat,
    ) -> Result<(Stat, bool), Errno> {
        if !stat.is_link() {
            return Ok((stat, false));
        }
        match self.rules.symlinks {
            // The guest reads where it leads, and looks there in its own tree.
            SymlinkPolicy::Opaque => Ok((stat, false)),
            SymlinkPolicy::Deny if self.leads_out(parent, dir, name)? => Err(Errno::ACCESS),
            SymlinkPolicy::Follow if self.leads_out(parent, dir, name)? => {
                match stat_name(dir, name, true) {
                    Ok(stat) => Ok((stat, true)),
                    // It leads nowhere.
                    Err(_) => Ok((stat, false)),
                }
            }
            SymlinkPolicy::Deny | SymlinkPolicy::Follow => Ok((stat, false)),
        }
    }

    /// Whether a link leads out of the shared directory: by its text, or by
    /// other links on the way.
    fn leads_out(&self, parent: u64, dir: &Dir<'_>, name: &CStr) -> Result<bool, Errno> {
        let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
        let (_, steps) = match parent {
            wire::ROOT => Default::default(),
            parent => self.nodes().route(parent)?,
        };
        // Below a link that was followed it is out anyway: what counts there is
        // whether the link leaves the place that was followed to.
        let path = match steps.last() {
            Some(Step::Down(path)) => path.to_bytes(),
            Some(Step::Follow(_)) | None => b"",
        };
        let depth = match path {
            b"" => 0,
            path => 1 + path.iter().filter(|byte| **byte == b'/').count(),
        };
        if text_leads_out(target.to_bytes(), depth) {
            return Ok(true);
        }
        let is_below_root = steps.iter().all(|step| matches!(step, Step::Down(_)));
        if !is_below_root {
            return Ok(false);
        }
        let mut whole = path.to_vec();
        if !whole.is_empty() {
            whole.push(b'/');
        }
        whole.extend(name.to_bytes_with_nul());
        let whole = CStr::from_bytes_with_nul(&whole).map_err(|_| Errno::INVAL)?;
        Ok(host::leaves(&self.root, whole).unwrap_or(false))
    }

    /// Notes that the guest knows a file by a name, and describes it.
    pub(super) fn tell(
        &self,
        parent: u64,
        name: &CStr,
        followed: bool,
        stat: &Stat,
    ) -> Result<Body, Errno> {
        let link = Link {
            parent,
            name: name.into(),
            followed,
        };
        let node = self.nodes().look_up(link, stat)?;
        let mut body = Body::default();
        body.entry(node, VALIDITY, &self.shown(stat));
        Ok(body)
    }

    /// As [`Self::tell`], for what the request has made, by what `make` does after it is
    /// there: it is removed if that fails, or if the guest can know no more files.
    fn tell_made(
        &self,
        (parent, dir, name): (u64, &Dir<'_>, &CStr),
        is_directory: bool,
        make: impl FnOnce() -> Result<Stat, Errno>,
    ) -> Result<Body, Errno> {
        let told = make().and_then(|stat| {
            self.made(parent, dir, name);
            self.tell(parent, name, false, &stat)
        });
        told.inspect_err(|_| host::unmake(dir, name, is_directory))
    }

    pub(super) fn read_link(&self, node: u64) -> Result<Body, Errno> {
        let found = self.find(node)?;
        if !found.stat.is_link() {
            return Err(Errno::INVAL);
        }
        let target = rustix::fs::readlinkat(&found.dir, &*found.name, Vec::new())?;
        Ok(Body(target.into_bytes()))
    }

    pub(super) fn make_link(
        &self,
        parent: u64,
        mut arguments: Fields<'_>,
        by: Owner,
    ) -> Result<Body, Errno> {
        if self.rules.symlinks == SymlinkPolicy::Deny {
            return Err(Errno::PERM);
        }
        let name = arguments.name()?;
        let target = arguments.string()?;
        self.may_make(by)?;
        let dir = self.dir(parent)?;
        rustix::fs::symlinkat(target, &dir, name)?;
        self.tell_made((parent, &dir, name), false, || {
            let stat = host::stat_entry(&dir, name)?;
            self.give_link(&dir, name, by, stat)
        })
    }

    pub(super) fn make_file(
        &self,
        parent: u64,
        mut arguments: Fields<'_>,
        by: Owner,
    ) -> Result<Body, Errno> {
        let mode = arguments.u32()?;
        let device = arguments.u32()?;
        arguments.skip(8)?; // umask, padding
        let name = arguments.name()?;
        // Pipes, sockets and devices are the guest's own: it has them in its own tree, or
        // where it is kept what they are to it.
        if !matches!(mode & host::TYPE, 0 | 0o100_000) && !self.records() {
            return Err(Errno::PERM);
        }
        self.may_make(by)?;
        let dir = self.dir(parent)?;
        let host_mode = self.host_mode(mode, false);
        let (file, stat) = create_file(&dir, name, OFlags::WRONLY, host_mode)?;
        self.tell_made((parent, &dir, name), false, || {
            let made = Made { by, mode, device };
            // The file is closed here: that says that it was written, too.
            self.give(&dir, file, made, stat)
        })
    }

    pub(super) fn make_directory(
        &self,
        parent: u64,
        mut arguments: Fields<'_>,
        by: Owner,
    ) -> Result<Body, Errno> {
        self.may_make(by)?;
        let asked = arguments.u32()?;
        let mode = self.host_mode(asked, true);
        arguments.skip(4)?; // umask, which the guest's kernel has applied
        let name = arguments.name()?;
        let dir = self.dir(parent)?;
        rustix::fs::mkdirat(&dir, name, host::mode_of(mode))?;
        let mut made = Stat::default();
        let body = self.tell_made((parent, &dir, name), true, || {
            let file = host::open_entry(&dir, name, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
            let stat = with_mode(&file, mode)?;
            made = self.give(&dir, file, Made::plain(by, asked), stat)?;
            Ok(made)
        })?;
        self.watch_entry((parent, &dir), name, told_node(&body)?, &made);
        Ok(body)
    }

    pub(super) fn remove(
        &self,
        parent: u64,
        mut arguments: Fields<'_>,
        directory: bool,
    ) -> Result<Body, Errno> {
        let name = arguments.name()?;
        let flags = match directory {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        rustix::fs::unlinkat(self.dir(parent)?, name, flags)?;
        self.left(parent, name, None);
        Ok(Body::default())
    }

    pub(super) fn rename(
        &self,
        parent: u64,
        mut arguments: Fields<'_>,
        has_flags: bool,
    ) -> Result<Body, Errno> {
        let new_parent = arguments.u64()?;
        let flags = match has_flags {
            true => {
                let flags = arguments.u32()?;
                arguments.skip(4)?;
                flags
            }
            false => 0,
        };
        let name = arguments.name()?;
        let new_name = arguments.name()?;
        let (from, to) = (self.dir(parent)?, self.dir(new_parent)?);
        host::rename((&from, name), (&to, new_name), flags)?;
        // The guest's kernel moves what it knows, without looking it up.
        let places = [(new_parent, &to, new_name), (parent, &from, name)];
        for (parent, dir, name) in places {
            // At the old place there is something after an exchange only.
            let found = host::stat_entry(dir, name);
            self.left(parent, name, found.ok().map(|stat| stat.identity));
            if let Ok(stat) = found {
                let link = Link {
                    parent,
                    name: name.into(),
                    followed: false,
                };
                self.nodes().rename(link, &stat.identity);
            }
        }
        Ok(Body::default())
    }

    /// Gives a file one more name.
    pub(super) fn add_name(&self, parent: u64, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let node = arguments.u64()?;
        let name = arguments.name()?;
        let found = self.find(node)?;
        // A file outside would be inside then, and links lead where they did not.
        if found.followed || found.stat.is_dir() {
            return Err(Errno::PERM);
        }
        let dir = self.dir(parent)?;
        let none = AtFlags::empty();
        rustix::fs::linkat(&found.dir, &*found.name, &dir, name, none)?;
        self.tell_made((parent, &dir, name), false, || {
            let stat = host::stat_entry(&dir, name)?;
            self.with_record(&dir, name, stat)
        })
    }
}

/// The node that an answer tells of, which it begins with.
pub(super) fn told_node(body: &Body) -> Result<u64, Errno> {
    Fields(&body.0).u64()
}

/// Whether the text of a link leads above a directory from `depth` below it.
fn text_leads_out(target: &[u8], depth: usize) -> bool {
    if target.first() == Some(&b'/') {
        return true;
    }
    let mut depth = depth;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

/// Permissions that a file is given on the host: without what would let others of
/// the host act as its owner, and so that its owner, who is whom this process
/// belongs to, can open it again.
pub(super) fn kept_mode(mode: u32, directory: bool) -> u32 {
    let kept = mode & 0o1777;
    match (kept & 0o400, directory) {
        (0, true) => kept | 0o700,
        (0, false) => kept | 0o600,
        _ => kept,
    }
}

/// Gives what was just made its mode, whatever the umask of this process left.
fn with_mode(file: &OwnedFd, mode: u32) -> Result<Stat, Errno> {
    let stat = host::stat(file)?;
    if stat.mode & 0o1777 == mode {
        return Ok(stat);
    }
    rustix::fs::fchmod(file, host::mode_of(mode))?;
    host::stat(file)
}

/// Makes a file that is not there yet, with this mode on the host.
pub(super) fn create_file(
    dir: impl AsFd,
    name: &CStr,
    flags: OFlags,
    mode: u32,
) -> Result<(OwnedFd, Stat), Errno> {
    let flags = flags | OFlags::CREATE | OFlags::EXCL;
    let file = host::open_entry(&dir, name, flags, mode)?;
    let stat = with_mode(&file, mode).inspect_err(|_| host::unmake(&dir, name, false))?;
    Ok((file, stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_out_by_their_text() {
        for (target, depth, out) in [
            (&b"/etc/passwd"[..], 5, true),
            (b"..", 0, true),
            (b"..", 1, false),
            (b"../..", 1, true),
            (b"a/../..", 0, true),
            (b"a/..", 0, false),
            (b"./a//b/../../..", 0, true),
            (b"../packages/x", 1, false),
            (b"", 0, false),
        ] {
            assert_eq!(text_leads_out(target, depth), out, "{target:?} at {depth}");
        }
    }

    #[test]
    fn files_stay_open_to_their_owner_and_give_nobody_its_rights() {
        assert_eq!(kept_mode(0o104_755, false), 0o755);
        assert_eq!(kept_mode(0o2775, true), 0o775);
        assert_eq!(kept_mode(0o1777, true), 0o1777);
        assert_eq!(kept_mode(0, false), 0o600);
        assert_eq!(kept_mode(0, true), 0o700);
        assert_eq!(kept_mode(0o444, false), 0o444);
    }
}
