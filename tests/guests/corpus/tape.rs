//! Archives with entries that no usual program writes.

use std::borrow::Cow;

use tar::{EntryType, Header};

/// A block of an archive.
const BLOCK: usize = 512;
/// Bytes that a header has for a name.
const NAME_BYTES: usize = 100;

/// How a name that is too long for a header is written, or an extended attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Long {
    Gnu,
    Pax,
}

/// One entry.
#[derive(Clone)]
pub struct Item<'a> {
    pub path: Cow<'a, [u8]>,
    pub kind: EntryType,
    pub mode: u32,
    pub owner: (u64, u64),
    pub mtime: u64,
    pub link: Cow<'a, [u8]>,
    pub data: Cow<'a, [u8]>,
    pub device: (u32, u32),
    pub long: Long,
    pub pax: Vec<(&'a str, Cow<'a, [u8]>)>,
}

/// Seconds of entries that have no time of their own.
pub const THEN: u64 = 1_500_000_000;

pub fn item<'a>(path: &'a (impl AsRef<[u8]> + ?Sized), kind: EntryType) -> Item<'a> {
    Item {
        path: Cow::Borrowed(path.as_ref()),
        kind,
        mode: match kind {
            EntryType::Directory => 0o755,
            EntryType::Symlink => 0o777,
            _ => 0o644,
        },
        owner: (0, 0),
        mtime: THEN,
        link: Cow::Borrowed(b""),
        data: Cow::Borrowed(b""),
        device: (0, 0),
        long: Long::Gnu,
        pax: Vec::new(),
    }
}

impl<'a> Item<'a> {
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    pub fn mtime(mut self, mtime: u64) -> Self {
        self.mtime = mtime;
        self
    }

    pub fn pax(mut self, key: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.pax.push((key, Cow::Borrowed(value.as_ref())));
        self
    }

    pub fn long(mut self, long: Long) -> Self {
        self.long = long;
        self
    }
}

/// An archive that grows.
#[derive(Default, Clone)]
pub struct Tape(Vec<u8>);

impl Tape {
    pub fn add(mut self, item: Item<'_>) -> Self {
        let mut pax = item.pax.clone();
        for (name, key, kind) in [
            (&item.path, "path", EntryType::GNULongName),
            (&item.link, "linkpath", EntryType::GNULongLink),
        ] {
            if name.len() <= NAME_BYTES {
                continue;
            }
            match item.long {
                Long::Pax => pax.push((key, name.clone())),
                Long::Gnu => {
                    let mut data = name.to_vec();
                    data.push(0);
                    self.raw(b"././@LongLink", kind, &data, &item);
                }
            }
        }
        if !pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in pax {
                records.extend(record(key, &value));
            }
            self.raw(b"PaxHeaders/x", EntryType::XHeader, &records, &item);
        }
        self.raw(&item.path, item.kind, &item.data, &item);
        self
    }

    fn raw(&mut self, name: &[u8], kind: EntryType, data: &[u8], item: &Item<'_>) {
        let mut header = Header::new_gnu();
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(NAME_BYTES)].to_vec();
        let (name, link) = (cut(name), cut(&item.link));
        header.as_old_mut().name[..name.len()].copy_from_slice(&name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(&link);
        header.set_entry_type(kind);
        header.set_mode(item.mode);
        header.set_uid(item.owner.0);
        header.set_gid(item.owner.1);
        header.set_mtime(item.mtime);
        header.set_size(data.len() as u64);
        header
            .set_device_major(item.device.0)
            .expect("GNU's has one");
        header
            .set_device_minor(item.device.1)
            .expect("GNU's has one");
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    pub fn dir(self, path: &str) -> Self {
        self.add(item(path, EntryType::Directory))
    }

    pub fn file(self, path: &str, data: &str) -> Self {
        let mut file = item(path, EntryType::Regular);
        file.data = Cow::Borrowed(data.as_bytes());
        self.add(file)
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        let mut link = item(path, EntryType::Symlink);
        link.link = Cow::Borrowed(target.as_bytes());
        self.add(link)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        let mut link = item(path, EntryType::Link);
        link.link = Cow::Borrowed(target.as_bytes());
        self.add(link)
    }

    pub fn device(self, path: &str, kind: EntryType, device: (u32, u32)) -> Self {
        let mut node = item(path, kind);
        node.device = device;
        self.add(node)
    }

    /// The whole archive.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

/// A record of a PAX header: its length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}
