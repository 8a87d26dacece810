//! A reader of flattened device trees (Devicetree Specification 0.4, §5),
//! strict about what it reads, to hold the writer against.

use std::collections::BTreeMap;

/// Length of the header in bytes.
const HEADER_BYTES: usize = 40;
const MAGIC: u32 = 0xd00d_feed;
/// Version of the format, and the oldest it can be read as.
const VERSION: u32 = 17;
const COMPATIBLE_VERSION: u32 = 16;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The properties of each node, by its path.
#[derive(Debug)]
pub(super) struct Tree<'a>(BTreeMap<String, BTreeMap<&'a str, &'a [u8]>>);

impl<'a> Tree<'a> {
    pub(super) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn property(&self, node: &str, name: &str) -> Option<&'a [u8]> {
        self.0.get(node)?.get(name).copied()
    }
}

/// Reads a blob, or says what is wrong with it.
pub(super) fn parse(blob: &[u8]) -> Result<Tree<'_>, &'static str> {
    let header = |index: usize| word(blob, index * 4).ok_or("the header is cut off");
    if header(0)? != MAGIC {
        return Err("not a device tree");
    }
    if header(1)? as usize != blob.len() {
        return Err("another length than it says");
    }
    if (header(5)?, header(6)?) != (VERSION, COMPATIBLE_VERSION) {
        return Err("another version");
    }
    let block = |start: u32, bytes: u32| {
        let start = start as usize;
        let end = start.checked_add(bytes as usize)?;
        (start >= HEADER_BYTES).then(|| blob.get(start..end))?
    };
    let structure = block(header(2)?, header(9)?).ok_or("its structure is outside")?;
    let strings = block(header(3)?, header(8)?).ok_or("its strings are outside")?;
    // At least the entry of zeroes that ends the list.
    let reserved = block(header(4)?, 16).ok_or("its reservations are outside")?;
    if !header(2)?.is_multiple_of(4) || !header(4)?.is_multiple_of(8) {
        return Err("a block is not aligned");
    }
    if reserved.iter().any(|byte| *byte != 0) {
        return Err("memory is reserved that we never asked for");
    }
    read_structure(structure, strings)
}

fn read_structure<'a>(bytes: &'a [u8], strings: &'a [u8]) -> Result<Tree<'a>, &'static str> {
    let mut nodes = BTreeMap::<String, BTreeMap<&str, &[u8]>>::new();
    // The path of each open node, the root's empty, and whether it has a
    // child, after which it can have no more properties.
    let mut open: Vec<(String, bool)> = Vec::new();
    let mut at = 0;
    loop {
        let token = word(bytes, at).ok_or("its structure has no end")?;
        at += 4;
        match token {
            BEGIN_NODE => {
                let name = c_str(bytes, at)?;
                at = (at + name.len() + 1).next_multiple_of(4);
                let path = match open.last_mut() {
                    None if nodes.is_empty() && name.is_empty() => String::new(),
                    None => return Err("another root"),
                    Some(_) if name.is_empty() => return Err("a node without a name"),
                    Some((parent, has_child)) => {
                        *has_child = true;
                        format!("{parent}/{name}")
                    }
                };
                let key = if path.is_empty() { "/" } else { &path };
                if nodes.insert(key.to_owned(), BTreeMap::new()).is_some() {
                    return Err("two nodes of one name");
                }
                open.push((path, false));
            }
            END_NODE => drop(open.pop().ok_or("a node ends that never began")?),
            PROPERTY => {
                let len = word(bytes, at).ok_or("a property is cut off")? as usize;
                let name = word(bytes, at + 4).ok_or("a property is cut off")? as usize;
                let value = bytes.get(at + 8..).and_then(|rest| rest.get(..len));
                let value = value.ok_or("a property is cut off")?;
                at = (at + 8 + len).next_multiple_of(4);
                let node = match open.last() {
                    Some((path, false)) if path.is_empty() => nodes.get_mut("/"),
                    Some((path, false)) => nodes.get_mut(path),
                    _ => return Err("a property outside of its node"),
                };
                let node = node.ok_or("a property of no node")?;
                if node.insert(c_str(strings, name)?, value).is_some() {
                    return Err("two properties of one name");
                }
            }
            NOP => {}
            END if open.is_empty() && !nodes.is_empty() && at == bytes.len() => {
                return Ok(Tree(nodes));
            }
            END => return Err("it ends too early"),
            _ => return Err("an unknown token"),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*word))
}

fn c_str(bytes: &[u8], at: usize) -> Result<&str, &'static str> {
    let text = bytes.get(at..).ok_or("a name is outside")?;
    let len = text.iter().position(|byte| *byte == 0);
    let text = &text[..len.ok_or("a name has no end")?];
    str::from_utf8(text).map_err(|_| "a name is not text")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header and the empty list of reservations, then these blocks.
    fn blob(structure: &[u32], strings: &[u8]) -> Vec<u8> {
        let len = |bytes: usize| u32::try_from(bytes).unwrap();
        let structure_bytes = len(structure.len() * 4);
        let (at, strings_bytes) = (56 + structure_bytes, len(strings.len()));
        let total = at + strings_bytes;
        let header = [MAGIC, total, 56, at, 40, 17, 16, 0, strings_bytes];
        let rest = [structure_bytes, 0, 0, 0, 0];
        let words = header.iter().chain(&rest).chain(structure);
        let words = words.flat_map(|word| word.to_be_bytes());
        words.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn a_small_tree_is_read() {
        let blob = blob(&[1, 0, 3, 4, 0, 7, 1, 0x6100_0000, 2, 2, 9], b"p\0");
        let tree = parse(&blob).unwrap();
        assert_eq!(tree.nodes().collect::<Vec<_>>(), ["/", "/a"]);
        assert_eq!(tree.property("/", "p"), Some(&[0, 0, 0, 7][..]));
        assert_eq!(tree.property("/a", "p"), None);
    }

    #[test]
    fn damage_is_seen() {
        let refused = |structure: &[u32], strings: &[u8]| {
            parse(&blob(structure, strings)).unwrap_err();
        };
        refused(&[], b"");
        refused(&[9], b"");
        refused(&[1, 0, 9], b"");
        refused(&[1, 0, 2, 2, 9], b"");
        refused(&[1, 0, 2, 9, 9], b"");
        refused(&[1, 0, 2, 1, 0, 2, 9], b"");
        refused(&[1, 0, 3, 99, 0, 2, 9], b"p\0");
        refused(&[1, 0, 3, 0, 2, 2, 9], b"p\0");
        refused(&[1, 0, 3, 0, 0, 2, 9], b"p");
        refused(&[1, 0, 3, 0, 0, 3, 0, 0, 2, 9], b"p\0");
        refused(&[1, 0, 5, 2, 9], b"");
        let whole = blob(&[1, 0, 2, 9], b"");
        parse(&whole).unwrap();
        for len in 0..whole.len() {
            parse(&whole[..len]).unwrap_err();
        }
    }
}
