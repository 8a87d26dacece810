//! From a node to a file of the host.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::handles::{Handle, OpenFile};
use super::super::host::{self, Identity, Stat};
use super::super::nodes::Step;
use super::super::wire::ROOT;
use super::Server;

/// A directory to work in.
#[derive(Debug)]
pub(super) enum Dir<'a> {
    Root(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(root) => *root,
            Self::Below(dir) => dir.as_fd(),
        }
    }
}

/// Where a node was found: the file is what this name means there.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) dir: Dir<'a>,
    pub(super) name: Box<CStr>,
    /// The name is that of a link, and the file where it leads.
    pub(super) followed: bool,
    pub(super) stat: Stat,
}

/// A file to look at or to change.
#[derive(Debug)]
pub(super) enum Target<'a> {
    Found(Found<'a>),
    Open(Handle),
}

/// What a way that has changed ends in is another file than the guest means.
fn stale(error: Errno) -> Errno {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => Errno::STALE,
        other => other,
    }
}

impl Server {
    /// Opens the directory that a node is.
    pub(super) fn dir(&self, node: u64) -> Result<Dir<'_>, Errno> {
        if node == ROOT {
            return Ok(Dir::Root(self.root.as_fd()));
        }
        let (identity, steps) = self.nodes().route(node)?;
        let mut dir = Dir::Root(self.root.as_fd());
        for step in &steps {
            dir = Dir::Below(match step {
                Step::Down(path) => host::open_beneath(&dir, path).map_err(stale)?,
                Step::Follow(name) => host::follow(&dir, name).map_err(stale)?,
            });
        }
        let stat = host::stat(&dir)?;
        if !stat.is_dir() {
            return Err(Errno::NOTDIR);
        }
        if stat.identity != identity {
            return Err(Errno::STALE);
        }
        Ok(dir)
    }

    /// Finds a node under one of its names.
    pub(super) fn find(&self, node: u64) -> Result<Found<'_>, Errno> {
        if node == ROOT {
            let dir = Dir::Root(self.root.as_fd());
            let stat = host::stat(&dir)?;
            return Ok(Found {
                dir,
                name: c".".into(),
                followed: false,
                stat,
            });
        }
        let (identity, links) = self.nodes().links(node)?;
        let mut failure = Errno::STALE;
        for link in links {
            let found = self.dir(link.parent).and_then(|dir| {
                let stat = stat_name(&dir, &link.name, link.followed)?;
                Ok((dir, stat))
            });
            match found {
                Ok((dir, stat)) if stat.identity == identity => {
                    return Ok(Found {
                        dir,
                        name: link.name,
                        followed: link.followed,
                        stat,
                    });
                }
                Ok(_) => {}
                Err(error) => failure = stale(error),
            }
        }
        Err(failure)
    }

    /// The file that a request is about: the one that is open by this handle,
    /// or what the node's names mean; a file without a name is reached as long
    /// as it is open.
    pub(super) fn target(&self, node: u64, handle: Option<u64>) -> Result<Target<'_>, Errno> {
        if let Some(handle) = handle
            && let Ok(open) = self.opened(handle)
            && open.node() == node
        {
            return Ok(Target::Open(open));
        }
        if let Some(file) = self.single(node) {
            return Ok(Target::Open(file));
        }
        match self.find(node) {
            Ok(found) => Ok(Target::Found(found)),
            Err(error) => {
                let handle = self.nodes().handle(node).ok_or(error)?;
                self.opened(handle).map(Target::Open).map_err(|_| error)
            }
        }
    }

    /// An open handle; one that was saved is opened again first.
    pub(super) fn opened(&self, number: u64) -> Result<Handle, Errno> {
        let handle = self.handles().get(number)?;
        let Handle::Saved(saved) = handle else {
            return Ok(handle);
        };
        if self.single.is_some() {
            let handle = self.open_single(saved.flags)?.0;
            self.handles().replace(number, handle.clone());
            return Ok(handle);
        }
        let found = self.find(saved.node)?;
        let handle = match saved.is_dir {
            true => self.directory_handle(saved.node, &found)?,
            false => self.file_handle(saved.node, &found, saved.flags)?.0,
        };
        self.handles().replace(number, handle.clone());
        Ok(handle)
    }

    pub(super) fn opened_file(&self, number: u64) -> Result<std::sync::Arc<OpenFile>, Errno> {
        match self.opened(number)? {
            Handle::File(file) => Ok(file),
            Handle::Dir(_) => Err(Errno::ISDIR),
            Handle::Saved(_) => Err(Errno::STALE),
        }
    }
}

/// What the host says of a name, or of what the link of this name leads to.
pub(super) fn stat_name(dir: &Dir<'_>, name: &CStr, followed: bool) -> Result<Stat, Errno> {
    match followed {
        false => host::stat_entry(dir, name),
        true => host::stat(host::follow(dir, name)?),
    }
}

impl Found<'_> {
    /// Opens the file or directory, and nothing else that may have taken its
    /// place; what the host says of it then.
    pub(super) fn open(&self, flags: OFlags) -> Result<(OwnedFd, Stat), Errno> {
        // Pipes, sockets and devices are not opened.
        if !self.stat.is_file() && !self.stat.is_dir() {
            return Err(Errno::OPNOTSUPP);
        }
        let file = match self.followed {
            false => host::open_entry(&self.dir, &self.name, flags, 0)?,
            true => {
                let safe = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let none = rustix::fs::Mode::empty();
                rustix::fs::openat(&self.dir, &*self.name, flags | safe, none)?
            }
        };
        let stat = self.check(&file)?;
        Ok((file, stat))
    }

    fn check(&self, file: &OwnedFd) -> Result<Stat, Errno> {
        let stat = host::stat(file)?;
        let same = |a: &Identity, b: &Identity| a == b;
        if !same(&stat.identity, &self.stat.identity) {
            return Err(Errno::STALE);
        }
        Ok(stat)
    }

    /// Opens it to change what is not its content, which takes no right to read
    /// or to write.
    pub(super) fn open_any(&self) -> Result<OwnedFd, Errno> {
        match self.open(OFlags::RDONLY) {
            Err(Errno::ACCESS) if self.stat.is_file() => Ok(self.open(OFlags::WRONLY)?.0),
            opened => Ok(opened?.0),
        }
    }
}

impl Target<'_> {
    pub(super) fn stat(&self) -> Result<Stat, Errno> {
        match self {
            Self::Found(found) => Ok(found.stat),
            Self::Open(handle) => with_file(handle, |file| host::stat(file)),
        }
    }

    /// Does something with an open descriptor.
    pub(super) fn with_open<T>(
        &self,
        act: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match self {
            Self::Found(found) => act(found.open_any()?.as_fd()),
            Self::Open(handle) => with_file(handle, act),
        }
    }
}

fn with_file<T>(
    handle: &Handle,
    act: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    match handle {
        Handle::File(file) => act(file.file.as_fd()),
        Handle::Dir(dir) => act(super::lock(&dir.listing).dir().as_fd()),
        Handle::Saved(_) => Err(Errno::STALE),
    }
}
