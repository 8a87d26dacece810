//! Files of a tree in a guest, by their names.

use super::tar::Packing;
use super::{
    Arriving, Copied, CopyOptions, Extract, Words, absolute, ask, check, converse, cut_off,
    limited, nodes, tool,
};
use crate::Error;
use crate::exec::Opens;
use exec_proto::tree::{Node, TreeReader};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How an image's layer marks the name of what is gone.
const GONE: &[u8] = b".wh.";

/// What is in a directory and below it, by paths.
pub(crate) fn tree_nodes(on: &dyn Opens, root: &[u8]) -> Result<Vec<Node>, Error> {
    nodes(&ask(on, &[b"tree", absolute(root)?])?)
}

/// Has the guest send what has these names below `root`, and not what is in directories.
/// A directory's name comes before those in it.
pub(crate) fn copy_named(
    on: &dyn Opens,
    root: &[u8],
    names: &[Vec<u8>],
    options: &CopyOptions,
    extract: Extract,
) -> Result<(), Error> {
    let mut arriving = Arriving {
        reader: TreeReader::new(),
        extract,
        words: Words(Vec::new()),
    };
    let command = limited(tool(&[b"pack-named", absolute(root)?]), options);
    let (status, asked) = converse(on, &command, &mut arriving, |write| ask_for(names, write))?;
    check(&status?, &arriving.words.0)?;
    asked?;
    match arriving.reader.is_over() {
        true => Ok(()),
        false => Err(cut_off()),
    }
}

/// Writes what has these names below `root` as a layer's archive, in which `gone` is
/// deleted.
pub(crate) fn named_tar<'a>(
    on: &dyn Opens,
    root: &[u8],
    names: &[Vec<u8>],
    gone: impl Iterator<Item = &'a Path>,
    archive: impl Write,
    options: &CopyOptions,
) -> Result<Copied, Error> {
    let mut packing = Packing::new(archive, b"", options);
    // Who applies a layer wants to know first what goes.
    for path in gone {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let name = [GONE, name.as_bytes()].concat();
        let mark = above.join(std::ffi::OsStr::from_bytes(&name));
        packing.empty_file(mark.as_os_str().as_bytes())?;
    }
    let names: Vec<Vec<u8>> = names
        .iter()
        .filter(|name| !is_mark(name))
        .cloned()
        .collect();
    let command = limited(tool(&[b"pack-named", absolute(root)?]), options);
    let (status, asked) = converse(on, &command, &mut packing, |write| ask_for(&names, write))?;
    let copied = packing.finish(&status?)?;
    asked?;
    Ok(copied)
}

/// Whether a path would be taken for the mark of what is gone, which a guest could use
/// to have more removed than it has.
fn is_mark(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/');
    parts.any(|part| part.starts_with(GONE))
}

/// Names end with NULs.
fn ask_for(
    names: &[Vec<u8>],
    write: &mut dyn FnMut(&[u8]) -> Result<bool, Error>,
) -> Result<(), Error> {
    for some in names.chunks(512) {
        let words: Vec<u8> = some
            .iter()
            .flat_map(|name| [name, &b"\0"[..]].concat())
            .collect();
        if !write(&words)? {
            break;
        }
    }
    Ok(())
}
