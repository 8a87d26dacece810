//! What a file system device saves: what the guest knows, by names and
//! identities. No path of the host is in it: whoever restores it gives a
//! directory.

use std::ffi::CString;

use super::TAG_BYTES;
use super::handles::SavedHandle;
use super::host::{Identity, Moment};
use super::nodes::{Link, SavedNode};
use super::server::Server;
use super::wire::{ROOT, check_name};
use crate::virtio::state::StateFields;
use crate::virtio::{DeviceState, RestoreError, StateFormat};

/// Saved state of a [`Fs`](super::Fs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsState {
    /// The tag that the guest mounts it by.
    pub tag: String,
    next_node: u64,
    nodes: Vec<SavedNode>,
    next_handle: u64,
    handles: Vec<SavedHandle>,
}

impl FsState {
    pub(super) fn of(tag: &str, server: &Server) -> Self {
        let (next_node, nodes, next_handle, handles) = server.save();
        Self {
            tag: tag.to_owned(),
            next_node,
            nodes,
            next_handle,
            handles,
        }
    }

    pub(super) fn give_to(&self, server: &Server) -> Result<(), RestoreError> {
        let nodes = (self.next_node, &*self.nodes);
        let handles = (self.next_handle, &*self.handles);
        server
            .restore(nodes, handles)
            .ok_or(RestoreError::Invalid("nodes"))
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_le_bytes());
    out.extend(text);
}

fn text<'a>(fields: &mut StateFields<'a>, most: usize) -> Option<&'a [u8]> {
    let length = usize::from(fields.u16()?);
    if length > most {
        return None;
    }
    let rest = fields.rest();
    let (text, rest) = rest.split_at_checked(length)?;
    *fields = StateFields::new(rest);
    Some(text)
}

fn put_node(out: &mut Vec<u8>, node: &SavedNode) {
    put(out, node.number);
    put(out, node.identity.dev);
    put(out, node.identity.ino);
    put(out, node.identity.birth.seconds.cast_unsigned());
    out.extend(node.identity.birth.nanos.to_le_bytes());
    out.push(node.is_dir.into());
    put(out, node.lookups);
    put(out, node.links.len() as u64);
    for link in &node.links {
        put(out, link.parent);
        out.push(link.followed.into());
        put_text(out, link.name.to_bytes());
    }
}

fn node(fields: &mut StateFields<'_>) -> Option<SavedNode> {
    let number = fields.u64()?;
    let identity = Identity {
        dev: fields.u64()?,
        ino: fields.u64()?,
        birth: Moment {
            seconds: fields.u64()?.cast_signed(),
            nanos: fields.u32()?,
        },
    };
    let is_dir = fields.bool()?;
    let lookups = fields.u64()?;
    let mut links = Vec::new();
    for _ in 0..fields.u64()? {
        let parent = fields.u64()?;
        let followed = fields.bool()?;
        let name = CString::new(text(fields, super::wire::MAX_NAME_BYTES)?).ok()?;
        check_name(&name).ok()?;
        links.push(Link {
            parent,
            name: name.into(),
            followed,
        });
    }
    Some(SavedNode {
        number,
        identity,
        is_dir,
        lookups,
        links,
    })
}

impl DeviceState for FsState {
    const FORMAT: StateFormat = StateFormat {
        kind: "fs",
        version: 1,
    };

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&mut out, self.tag.as_bytes());
        put(&mut out, self.next_node);
        put(&mut out, self.nodes.len() as u64);
        self.nodes.iter().for_each(|node| put_node(&mut out, node));
        put(&mut out, self.next_handle);
        put(&mut out, self.handles.len() as u64);
        for handle in &self.handles {
            put(&mut out, handle.number);
            put(&mut out, handle.node);
            out.push(handle.is_dir.into());
            out.extend(handle.flags.to_le_bytes());
        }
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = StateFields::new(bytes);
        let tag = String::from_utf8(text(&mut fields, TAG_BYTES)?.to_vec()).ok()?;
        let next_node = fields.u64()?;
        // Vectors grow with what is there and not with what is said.
        let mut nodes = Vec::new();
        for _ in 0..fields.u64()? {
            nodes.push(node(&mut fields)?);
        }
        let next_handle = fields.u64()?;
        let mut handles = Vec::new();
        for _ in 0..fields.u64()? {
            handles.push(SavedHandle {
                number: fields.u64()?,
                node: fields.u64()?,
                is_dir: fields.bool()?,
                flags: fields.u32()?,
            });
        }
        fields.end()?;
        (next_node > ROOT).then_some(Self {
            tag,
            next_node,
            nodes,
            next_handle,
            handles,
        })
    }
}
