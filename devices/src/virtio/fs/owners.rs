//! Whom files belong to, for the guest and on the host.

/// A user and a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What the guest is told of owners, and what becomes of those that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Owners {
    /// Everything is this one's. On the host it is that of the user whom this process
    /// runs as, and that the guest gives a file away changes nothing.
    Squash(Owner),
    /// Numbers of the guest stand for others of the host, which are the files'. To give
    /// files to others than itself the process needs to be root.
    Map(IdMap),
    /// Owner and mode are what the guest says. They are kept in an extended attribute of
    /// each file and directory, in the form of podman and libkrun; on the host all is
    /// that of the user whom this process runs as. Pipes, sockets and devices that the
    /// guest makes are recorded as well, and are empty files on the host. What has no such
    /// attribute, which links never have, is this one's.
    Recorded(Owner),
}

impl Default for Owners {
    fn default() -> Self {
        Self::Squash(Owner::default())
    }
}

impl From<Owner> for Owners {
    fn from(owner: Owner) -> Self {
        Self::Squash(owner)
    }
}

/// Numbers in a row that stand for as many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct IdRange {
    /// The first in the guest.
    pub guest: u32,
    /// What it is on the host.
    pub host: u32,
    /// How many there are.
    pub count: u32,
}

/// Which users and groups of the guest are which of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct IdMap {
    /// Of users. Who is in none of them owns nothing and can make nothing.
    pub users: Vec<IdRange>,
    /// Of groups.
    pub groups: Vec<IdRange>,
}

/// Most ranges of one kind: each is looked at for each file.
const MAX_RANGES: usize = 32;
/// What Linux shows for an owner who has no number where it is looked from.
const OVERFLOW_ID: u32 = 65_534;
/// Of ids `u32::MAX` means none.
const MAX_ID: u64 = u32::MAX as u64 - 1;

impl IdMap {
    /// Whether each number stands for one and there are not too many ranges.
    pub fn is_sound(&self) -> bool {
        [&self.users, &self.groups]
            .into_iter()
            .all(|ranges| is_sound(ranges))
    }

    /// What the guest sees of an owner of the host.
    pub(super) fn to_guest(&self, host: Owner) -> Owner {
        let seen = |ranges: &[IdRange], id| {
            let found = ranges.iter().find_map(|range| range.to_guest(id));
            found.unwrap_or(OVERFLOW_ID)
        };
        Owner {
            uid: seen(&self.users, host.uid),
            gid: seen(&self.groups, host.gid),
        }
    }

    pub(super) fn host_user(&self, guest: u32) -> Option<u32> {
        self.users.iter().find_map(|range| range.to_host(guest))
    }

    pub(super) fn host_group(&self, guest: u32) -> Option<u32> {
        self.groups.iter().find_map(|range| range.to_host(guest))
    }
}

impl IdRange {
    fn to_guest(self, host: u32) -> Option<u32> {
        let at = host.checked_sub(self.host)?;
        (at < self.count).then(|| self.guest.checked_add(at))?
    }

    fn to_host(self, guest: u32) -> Option<u32> {
        let at = guest.checked_sub(self.guest)?;
        (at < self.count).then(|| self.host.checked_add(at))?
    }
}

fn is_sound(ranges: &[IdRange]) -> bool {
    let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
    let meet = |a: u32, b: u32, x: &IdRange, y: &IdRange| {
        u64::from(a) < end(b, y.count) && u64::from(b) < end(a, x.count)
    };
    let fits = |range: &IdRange| {
        range.count > 0
            && end(range.guest, range.count) <= MAX_ID + 1
            && end(range.host, range.count) <= MAX_ID + 1
    };
    let apart = |(n, x): (usize, &IdRange)| {
        ranges[..n]
            .iter()
            .all(|y| !meet(x.guest, y.guest, x, y) && !meet(x.host, y.host, x, y))
    };
    ranges.len() <= MAX_RANGES && ranges.iter().all(fits) && ranges.iter().enumerate().all(apart)
}

/// What was just made: by whom, with which mode, and which number if it is a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub by: Owner,
    pub mode: u32,
    pub device: u32,
}

impl Made {
    /// A file or a directory, whatever kind the guest says that it is.
    pub fn plain(by: Owner, mode: u32) -> Self {
        Self {
            by,
            mode: mode & 0o7777,
            device: 0,
        }
    }
}

/// What the extended attribute of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub owner: Owner,
    /// Permission bits.
    pub mode: u32,
    /// It is something for the guest that it is not for the host.
    pub special: Option<Special>,
}

/// A pipe, a socket or a device for the guest's kernel. For the host it is an empty file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Special {
    /// Bits of a mode that say what it is.
    pub kind: u32,
    /// Of a device its number, as Linux encodes it for user space.
    pub device: u32,
}

const PIPE: u32 = 0o010_000;
const CHARACTERS: u32 = 0o020_000;
const BLOCKS: u32 = 0o060_000;
const SOCKET: u32 = 0o140_000;

impl Special {
    /// What a mode means, and the number that was said with it; `None` if it is a file
    /// for the host as well.
    pub fn of(mode: u32, device: u32) -> Option<Self> {
        match mode & 0o170_000 {
            kind @ (CHARACTERS | BLOCKS) => Some(Self { kind, device }),
            kind @ (PIPE | SOCKET) => Some(Self { kind, device: 0 }),
            _ => None,
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split('-');
        let kind = match parts.next()? {
            "pipe" => return Self::of(PIPE, 0),
            "socket" => return Self::of(SOCKET, 0),
            "char" => CHARACTERS,
            "block" => BLOCKS,
            _ => return None,
        };
        let mut number = |most| {
            let number = parts.next()?.parse::<u32>().ok();
            number.filter(|number| *number <= most)
        };
        // As long as they are in Linux.
        let (major, minor) = (number(0xfff)?, number(0xf_ffff)?);
        Self::of(kind, minor & 0xff | major << 8 | (minor & !0xff) << 12)
    }

    fn text(self) -> String {
        let major = self.device >> 8 & 0xfff;
        let minor = self.device & 0xff | self.device >> 12 & 0xf_ff00;
        match self.kind {
            PIPE => "pipe".to_owned(),
            SOCKET => "socket".to_owned(),
            BLOCKS => format!("block-{major}-{minor}"),
            _ => format!("char-{major}-{minor}"),
        }
    }
}

impl Record {
    /// Longest text that is looked at.
    pub const MAX_BYTES: usize = 64;

    /// Reads `UID:GID:MODE` and what kind of file it is, if it is no plain one. The mode
    /// is in octal; whatever follows is others'.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.trim_end_matches('\0').split(':');
        let mut id = || parts.next()?.parse::<u32>().ok();
        let owner = Owner {
            uid: id()?,
            gid: id()?,
        };
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        Some(Self {
            owner,
            mode: mode & 0o7777,
            special: parts.next().and_then(Special::parse),
        })
    }

    pub fn text(&self) -> String {
        let Owner { uid, gid } = self.owner;
        let plain = format!("{uid}:{gid}:0{:o}", self.mode);
        match self.special {
            Some(special) => format!("{plain}:{}", special.text()),
            None => plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(guest: u32, host: u32, count: u32) -> IdRange {
        IdRange { guest, host, count }
    }

    #[test]
    fn numbers_stand_for_each_other_within_their_ranges() {
        let map = IdMap {
            users: vec![range(0, 1000, 1), range(1, 100_000, 10)],
            groups: vec![range(0, 20, 1)],
        };
        assert!(map.is_sound());
        let seen = |uid, gid| map.to_guest(Owner { uid, gid });
        assert_eq!(seen(1000, 20), Owner { uid: 0, gid: 0 });
        assert_eq!(
            seen(100_009, 21),
            Owner {
                uid: 10,
                gid: 65_534
            }
        );
        assert_eq!(map.host_user(10), Some(100_009));
        assert_eq!(map.host_user(11), None);
        assert_eq!((map.host_group(0), map.host_group(1)), (Some(20), None));
    }

    #[test]
    fn ranges_that_meet_or_are_endless_are_no_map() {
        for (ranges, sound) in [
            (vec![range(0, 0, u32::MAX)], true),
            (vec![range(1, 0, u32::MAX)], false),
            (vec![range(0, 1, u32::MAX)], false),
            (vec![range(0, 0, 0)], false),
            (vec![range(0, 10, 5), range(5, 15, 5)], true),
            (vec![range(0, 10, 5), range(4, 20, 5)], false),
            (vec![range(0, 10, 5), range(5, 14, 5)], false),
            (vec![range(0, 0, 1); 2], false),
            ((0..32).map(|n| range(n, n, 1)).collect(), true),
            ((0..33).map(|n| range(n, n, 1)).collect(), false),
        ] {
            let map = IdMap {
                users: ranges.clone(),
                groups: Vec::new(),
            };
            assert_eq!(map.is_sound(), sound, "{ranges:?}");
        }
    }

    #[test]
    fn records_are_those_of_others_and_lies_are_none() {
        let record = Record {
            owner: Owner { uid: 7, gid: 8 },
            mode: 0o640,
            special: None,
        };
        assert_eq!(record.text(), "7:8:0640");
        assert_eq!(Record::parse(b"7:8:0640"), Some(record));
        assert_eq!(Record::parse(b"7:8:100640:file"), Some(record));
        for (word, kind, device) in [
            ("pipe", PIPE, 0),
            ("socket", SOCKET, 0),
            ("char-4095-1048575", CHARACTERS, u32::MAX),
            ("block-8-1", BLOCKS, 0x801),
        ] {
            let special = Some(Special { kind, device });
            let record = Record { special, ..record };
            assert_eq!(record.text(), format!("7:8:0640:{word}"));
            assert_eq!(Record::parse(record.text().as_bytes()), Some(record));
            assert!(record.text().len() <= Record::MAX_BYTES);
        }
        for word in ["char", "char-4096-0", "block-0-1048576", "block-1", "door"] {
            let text = format!("7:8:0640:{word}");
            assert_eq!(Record::parse(text.as_bytes()), Some(record), "{word}");
        }
        for bad in [
            &b""[..],
            b"7",
            b"7:8",
            b"7:8:",
            b"7:8:9",
            b"-1:8:0",
            b"4294967296:0:0",
            b"\xff:0:0",
        ] {
            assert_eq!(Record::parse(bad), None, "{bad:?}");
        }
    }
}
