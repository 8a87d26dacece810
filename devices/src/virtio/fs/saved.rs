//! What a file system device saves: what the guest knows, by names and
//! identities. No path of the host is in it: whoever restores it gives a
//! directory.

use std::ffi::CString;

use super::TAG_BYTES;
use super::handles::SavedHandle;
use super::host::{Identity, Moment};
use super::nodes::{Link, SavedNode};
use super::server::{Saved, SavedWindow, Server, Shown};
use super::wire::{ROOT, check_name};
use crate::virtio::state::StateFields;
use crate::virtio::{DeviceState, RestoreError, StateFormat};

/// Saved state of a [`Fs`](super::Fs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsState {
    /// The tag that the guest mounts it by.
    pub tag: String,
    saved: Saved,
}

impl FsState {
    pub(super) fn of(tag: &str, server: &Server) -> Self {
        Self {
            tag: tag.to_owned(),
            saved: server.save(),
        }
    }

    pub(super) fn give_to(&self, server: &Server) -> Result<(), RestoreError> {
        let restored = server.restore(&self.saved);
        restored.ok_or(RestoreError::Invalid("nodes or window"))
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
        version: 2,
    };

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let saved = &self.saved;
        put_text(&mut out, self.tag.as_bytes());
        put(&mut out, saved.next_node);
        put(&mut out, saved.nodes.len() as u64);
        saved.nodes.iter().for_each(|node| put_node(&mut out, node));
        put(&mut out, saved.next_handle);
        put(&mut out, saved.handles.len() as u64);
        for handle in &saved.handles {
            put(&mut out, handle.number);
            put(&mut out, handle.node);
            out.push(handle.is_dir.into());
            out.extend(handle.flags.to_le_bytes());
        }
        put(&mut out, saved.window.address);
        put(&mut out, saved.window.bytes);
        put(&mut out, saved.window.shown.len() as u64);
        for (place, shown) in &saved.window.shown {
            put(&mut out, *place);
            put(&mut out, shown.node);
            put(&mut out, shown.offset);
            out.push(shown.writes.into());
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
        let window = window(&mut fields)?;
        fields.end()?;
        (next_node > ROOT).then_some(Self {
            tag,
            saved: Saved {
                next_node,
                nodes,
                next_handle,
                handles,
                window,
            },
        })
    }
}

fn window(fields: &mut StateFields<'_>) -> Option<SavedWindow> {
    let mut window = SavedWindow {
        address: fields.u64()?,
        bytes: fields.u64()?,
        shown: Vec::new(),
    };
    for _ in 0..fields.u64()? {
        let place = fields.u64()?;
        let shown = Shown {
            node: fields.u64()?,
            offset: fields.u64()?,
            writes: fields.bool()?,
        };
        window.shown.push((place, shown));
    }
    Some(window)
}
