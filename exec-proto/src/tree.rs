//! Files and directories as a stream: what the agent's file tool writes and reads.
//!
//! A stream is a row of nodes and an end. A node is a `u32` length and so many
//! bytes; a file's content follows its node in pieces of the same form, up to one
//! of no bytes. A length of 0 where a node would be ends the stream.

use alloc::vec::Vec;

use crate::wire::{Reader, put_bytes};
use crate::{Kind, MAX_DATA_BYTES, MAX_PATH_BYTES, ProtoError};

/// What the agent's own program is called when it works on files
/// ([`crate::ExecFlags::agent_tool`]).
pub const TOOL_NAME: &str = "supermachine-files";
/// Most bytes of one node: its names and extended attributes.
pub const MAX_NODE_BYTES: usize = 1 << 20;
/// Most bytes of an attribute's value (`XATTR_SIZE_MAX` of Linux).
pub const MAX_XATTR_BYTES: usize = 64 * 1024;
/// Longest name of an attribute (`XATTR_NAME_MAX` of Linux).
pub const MAX_XATTR_NAME_BYTES: usize = 255;
/// The attribute by which overlayfs marks a directory that hides what is below it.
pub const OVERLAY_OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Permission bits, setuid, setgid and sticky included.
const MODE_BITS: u32 = 0o7777;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeKind {
    /// A regular file; its content may follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// The same file as one earlier in the stream, by its path there.
    HardLink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A file or directory without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it is, from the root of what is copied; empty for the root itself.
    /// No component is empty, `.` or `..`. In a list, its name.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes when it was looked at: of a file that changes, not that
    /// of the content that follows.
    pub size: u64,
    /// Names it has.
    pub links: u64,
    /// When its content was changed last, in seconds since 1970.
    pub mtime_s: i64,
    /// And nanoseconds, less than a thousand million.
    pub mtime_ns: u32,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Node {
    /// Appends the node.
    ///
    /// # Errors
    /// [`ProtoError::BadTree`] for a node that the other side would refuse.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.put(out);
        let payload = out.get(start + 4..).unwrap_or_default();
        if payload.len() > MAX_NODE_BYTES {
            out.truncate(start);
            return Err(bad("names and attributes too large"));
        }
        let checked = Self::decode(payload).map(|_| payload.len());
        match checked {
            Ok(bytes) => {
                let length = u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
                if let Some(place) = out.get_mut(start..start + 4) {
                    place.copy_from_slice(&length);
                }
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let (kind, target, (major, minor)): (u8, &[u8], (u32, u32)) = match &self.kind {
            NodeKind::File => (0, b"", (0, 0)),
            NodeKind::Directory => (1, b"", (0, 0)),
            NodeKind::Symlink(target) => (2, target, (0, 0)),
            NodeKind::HardLink(path) => (3, path, (0, 0)),
            NodeKind::CharDevice { major, minor } => (4, b"", (*major, *minor)),
            NodeKind::BlockDevice { major, minor } => (5, b"", (*major, *minor)),
            NodeKind::Fifo => (6, b"", (0, 0)),
            NodeKind::Socket => (7, b"", (0, 0)),
        };
        out.push(kind);
        for field in [self.mode, self.uid, self.gid, major, minor, self.mtime_ns] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.links.to_le_bytes());
        out.extend_from_slice(&self.mtime_s.to_le_bytes());
        put_bytes(out, &self.path);
        put_bytes(out, target);
        let count = u32::try_from(self.xattrs.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for (name, value) in &self.xattrs {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }

    fn decode(payload: &[u8]) -> Result<Self, ProtoError> {
        // A stream travels in such frames; its own errors say what it is.
        Self::read(Reader::new(Kind::Stdout, payload)).map_err(|error| match error {
            ProtoError::BadPayload { what, .. } => bad(what),
            other => other,
        })
    }

    fn read(mut fields: Reader<'_>) -> Result<Self, ProtoError> {
        let kind = fields.u8()?;
        let (mode, uid, gid) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (major, minor, mtime_ns) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (size, links, mtime_s) = (fields.u64()?, fields.u64()?, fields.i64()?);
        let path = fields.c_bytes(MAX_PATH_BYTES - 1)?.to_vec();
        let target = fields.c_bytes(MAX_PATH_BYTES - 1)?.to_vec();
        let count = fields.u32()?;
        let mut xattrs = Vec::new();
        for _ in 0..count {
            let name = fields.c_bytes(MAX_XATTR_NAME_BYTES)?.to_vec();
            xattrs.push((name, fields.bytes(MAX_XATTR_BYTES)?.to_vec()));
        }
        let kind = match kind {
            0 => NodeKind::File,
            1 => NodeKind::Directory,
            2 if !target.is_empty() => NodeKind::Symlink(target.clone()),
            3 if is_inside(&target) => NodeKind::HardLink(target.clone()),
            4 => NodeKind::CharDevice { major, minor },
            5 => NodeKind::BlockDevice { major, minor },
            6 => NodeKind::Fifo,
            7 => NodeKind::Socket,
            _ => return Err(fields.bad("unknown kind of node, or a link to nowhere")),
        };
        let has_target = matches!(kind, NodeKind::Symlink(_) | NodeKind::HardLink(_));
        let has_device = matches!(
            kind,
            NodeKind::CharDevice { .. } | NodeKind::BlockDevice { .. }
        );
        if mode & !MODE_BITS != 0
            || mtime_ns >= 1_000_000_000
            || (!has_target && !target.is_empty())
            || (!has_device && (major, minor) != (0, 0))
        {
            return Err(fields.bad("a field that makes no sense"));
        }
        if !is_inside(&path) {
            return Err(fields.bad("a path that leads outside"));
        }
        fields.end()?;
        Ok(Self {
            path,
            kind,
            mode,
            uid,
            gid,
            size,
            links,
            mtime_s,
            mtime_ns,
            xattrs,
        })
    }
}

/// Whether a path is empty or leads down from where it begins.
fn is_inside(path: &[u8]) -> bool {
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
    path.is_empty() || path.split(|byte| *byte == b'/').all(is_name)
}

fn bad(what: &'static str) -> ProtoError {
    ProtoError::BadTree { what }
}

/// The name in the stream of what is called `own` in the directory named `above`; the
/// stream's first directory has no name.
#[must_use]
pub fn name_below(above: &[u8], own: &[u8]) -> Vec<u8> {
    match above {
        b"" => own.to_vec(),
        above => [above, b"/", own].concat(),
    }
}

/// Appends a piece of a file's content. An empty one is left out: it would end the
/// file.
pub fn encode_data(out: &mut Vec<u8>, data: &[u8]) {
    for piece in data.chunks(MAX_DATA_BYTES) {
        put_bytes(out, piece);
    }
}

/// Appends the end of a file's content, or of the stream.
pub fn encode_end(out: &mut Vec<u8>) {
    put_bytes(out, b"");
}

/// What a stream has next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeEvent {
    /// A node. If it is a file, its content comes next.
    Node(Node),
    /// A piece of the file's content.
    Data(Vec<u8>),
    /// The file's content is complete.
    FileEnd,
    /// The stream is complete.
    End,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Nodes,
    Content,
    Over,
}

/// Takes a stream apart, in memory for one node or piece.
#[derive(Debug, Default)]
pub struct TreeReader {
    buffer: Vec<u8>,
    used: usize,
    place: Place,
    failed: Option<ProtoError>,
}

impl TreeReader {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes of the stream. All events they complete are to be taken by
    /// [`Self::next_event`] before more are given, or memory grows.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event, if what was fed has it whole.
    ///
    /// # Errors
    /// [`ProtoError::BadTree`] for bytes that are no stream; the same again after
    /// that.
    pub fn next_event(&mut self) -> Result<Option<TreeEvent>, ProtoError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// The next node of a list, in which files have no content.
    ///
    /// # Errors
    /// As [`Self::next_event`].
    pub fn next_node(&mut self) -> Result<Option<Node>, ProtoError> {
        let event = self.next_event()?;
        if self.place == Place::Content {
            self.place = Place::Nodes;
        }
        match event {
            Some(TreeEvent::Node(node)) => Ok(Some(node)),
            _ => Ok(None),
        }
    }

    /// Whether the stream was complete.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.place == Place::Over
    }

    fn advance(&mut self) -> Result<Option<TreeEvent>, ProtoError> {
        let rest = self.buffer.get(self.used..).unwrap_or_default();
        if self.place == Place::Over {
            return match rest {
                [] => Ok(None),
                _ => Err(bad("bytes behind the end")),
            };
        }
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        let most = match self.place {
            Place::Content => MAX_DATA_BYTES,
            Place::Nodes | Place::Over => MAX_NODE_BYTES,
        };
        if length > most {
            return Err(bad("a node or piece too long"));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let event = match (self.place, length) {
            (Place::Content, 0) => TreeEvent::FileEnd,
            (Place::Content, _) => TreeEvent::Data(payload.to_vec()),
            (_, 0) => TreeEvent::End,
            (_, _) => TreeEvent::Node(Node::decode(payload)?),
        };
        self.place = match &event {
            TreeEvent::Node(node) if node.kind == NodeKind::File => Place::Content,
            TreeEvent::Node(_) | TreeEvent::FileEnd => Place::Nodes,
            TreeEvent::Data(_) => Place::Content,
            TreeEvent::End => Place::Over,
        };
        self.used += 4 + length;
        Ok(Some(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn node(path: &[u8], kind: NodeKind) -> Node {
        Node {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 1,
            gid: u32::MAX,
            size: 1 << 40,
            links: 2,
            mtime_s: -5,
            mtime_ns: 999_999_999,
            xattrs: vec![(b"user.a".to_vec(), b"\0=".to_vec())],
        }
    }

    fn events(stream: &[u8], step: usize) -> Result<Vec<TreeEvent>, ProtoError> {
        let mut reader = TreeReader::new();
        let mut events = Vec::new();
        for piece in stream.chunks(step) {
            reader.feed(piece);
            while let Some(event) = reader.next_event()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    #[test]
    fn streams_are_read_back_however_they_arrive() {
        let nodes = [
            node(b"", NodeKind::Directory),
            node(b"a/b", NodeKind::Symlink(b"../../etc".to_vec())),
            node(b"a/c", NodeKind::HardLink(b"f".to_vec())),
            node(b"null", NodeKind::CharDevice { major: 1, minor: 3 }),
            node(b"f", NodeKind::File),
        ];
        let mut stream = Vec::new();
        for node in &nodes {
            node.encode(&mut stream).unwrap();
        }
        encode_data(&mut stream, &vec![7; MAX_DATA_BYTES + 1]);
        encode_end(&mut stream);
        encode_end(&mut stream);
        let whole = events(&stream, stream.len()).unwrap();
        assert_eq!(whole.len(), nodes.len() + 4);
        assert_eq!(whole.last(), Some(&TreeEvent::End));
        for step in [1, 3, 4096] {
            assert_eq!(events(&stream, step).unwrap(), whole);
        }
        stream.push(0);
        assert!(events(&stream, 100).is_err());
    }

    #[test]
    fn paths_that_lead_outside_are_refused_on_both_sides() {
        for path in [
            &b"/etc"[..],
            b"..",
            b"a/../b",
            b"a//b",
            b"a/",
            b".",
            b"a\0b",
        ] {
            let mut out = Vec::new();
            assert!(node(path, NodeKind::Directory).encode(&mut out).is_err());
            let link = NodeKind::HardLink(path.to_vec());
            assert!(node(b"x", link).encode(&mut out).is_err());
            assert!(out.is_empty());
        }
        assert!(
            node(&[b'a'; 4096], NodeKind::Fifo)
                .encode(&mut Vec::new())
                .is_err()
        );
    }

    #[test]
    fn lengths_are_checked_before_anything_is_kept_for_them() {
        let longest = u32::try_from(MAX_NODE_BYTES).unwrap();
        for length in [u32::MAX, longest + 1] {
            assert!(events(&length.to_le_bytes(), 4).is_err());
        }
        let mut reader = TreeReader::new();
        reader.feed(&100_u32.to_le_bytes());
        assert_eq!(reader.next_event(), Ok(None));
        assert!(!reader.is_over());
    }
}
