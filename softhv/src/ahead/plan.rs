//! What to do ahead, and how it is stored.
//!
//! ```text
//! 0   8  "SMCODE\0\2"
//! 8   4  number of blocks
//! 12  4  number of pages
//! 16     for each block its key less the one before it (the first: less 0), the sign in
//!        the lowest bit, seven bits in a byte, the lowest first, bit 7 where more follow
//!        for each page its number less the one before it, in the same way
//! ```
//!
//! A key is the block's physical address, with what it was decoded for in the two
//! lowest bits ([`crate::mode::Mode::key`]).

/// The last byte is the version.
const MAGIC: &[u8; 8] = b"SMCODE\0\x02";
const HEADER_BYTES: usize = 16;
/// Blocks of a plan at most; a first command of a shell needs some 8,000.
pub const MAX_BLOCKS: usize = 1 << 15;
/// Pages of a plan at most: 8 MiB. The first steps of a copy write some 500.
pub const MAX_PAGES: usize = 2048;
/// Bytes of a plan at most.
pub const MAX_BYTES: usize = hvf::sys::MAX_CODE_NOTES;
/// Bits of a key: those of the widest guest physical address.
const KEY_BITS: u32 = 48;
/// Bytes of a number at most.
const MAX_NUMBER_BYTES: u32 = 8;

/// What the first steps of a machine needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    keys: Vec<u64>,
    pages: Vec<u64>,
}

impl Plan {
    /// The blocks with `keys`, in the order in which they were needed, and the numbers
    /// of `pages` that were written: the first ones, if there are too many, and none
    /// that no plan may have.
    #[must_use]
    pub fn of(keys: impl IntoIterator<Item = u64>, pages: impl IntoIterator<Item = u64>) -> Self {
        let good = |key: &u64| is_key(*key);
        Self {
            keys: keys.into_iter().filter(good).take(MAX_BLOCKS).collect(),
            pages: pages.into_iter().filter(good).take(MAX_PAGES).collect(),
        }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// The numbers of the pages.
    #[must_use]
    pub fn pages(&self) -> &[u64] {
        &self.pages
    }

    /// Its bytes: [`MAX_BYTES`] at most, of the blocks that fit.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut pages = Vec::new();
        let page_count = put_all(&mut pages, &self.pages, MAX_BYTES / 2);
        let mut bytes = vec![0; HEADER_BYTES];
        let count = put_all(&mut bytes, &self.keys, MAX_BYTES - pages.len());
        bytes.extend(pages);
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&count.to_le_bytes());
        bytes[12..16].copy_from_slice(&page_count.to_le_bytes());
        bytes
    }

    /// Reads what [`Plan::encode`] wrote; `None` if it is anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_BYTES {
            return None;
        }
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (keys, rest) = rest.split_first_chunk::<4>()?;
        let (pages, mut body) = rest.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*keys) as usize;
        let page_count = u32::from_le_bytes(*pages) as usize;
        if magic != MAGIC || count > MAX_BLOCKS || page_count > MAX_PAGES {
            return None;
        }
        let plan = Self {
            keys: take_all(&mut body, count)?,
            pages: take_all(&mut body, page_count)?,
        };
        body.is_empty().then_some(plan)
    }
}

/// Writes `values` until there are `room` bytes; how many that were.
fn put_all(bytes: &mut Vec<u8>, values: &[u64], room: usize) -> u32 {
    let (mut before, mut count) = (0_i64, 0);
    for value in values {
        if bytes.len() + MAX_NUMBER_BYTES as usize > room {
            break;
        }
        let value = value.cast_signed();
        let step = value - before;
        let mut rest = ((step << 1) ^ (step >> 63)).cast_unsigned();
        while rest > 0x7f {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        before = value;
        count += 1;
    }
    count
}

/// Takes `count` values from the front of `bytes`.
fn take_all(bytes: &mut &[u8], count: usize) -> Option<Vec<u64>> {
    // Each takes a byte at least.
    if count > bytes.len() {
        return None;
    }
    let mut values = Vec::with_capacity(count);
    let mut before = 0_i64;
    for _ in 0..count {
        let coded = number(bytes)?;
        let step = (coded >> 1).cast_signed() ^ -(coded & 1).cast_signed();
        before = before.checked_add(step)?;
        let value = before.cast_unsigned();
        if !is_key(value) {
            return None;
        }
        values.push(value);
    }
    Some(values)
}

/// Whether a plan may have this key or number.
fn is_key(key: u64) -> bool {
    key >> KEY_BITS == 0
}

/// Takes a number from the front of `bytes`.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..MAX_NUMBER_BYTES {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << (7 * at);
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_is_what_it_was_before_it_was_stored() {
        let most = (1 << KEY_BITS) - 1;
        let keys = [0x8000_0001, 0x8000_0041, 0x8000_0000, 0, most, 3, most - 1];
        let plan = Plan::of(keys, [7, 8, 9, 2]);
        assert_eq!((plan.keys(), plan.pages()), (&keys[..], &[7, 8, 9, 2][..]));
        assert_eq!(Plan::decode(&plan.encode()), Some(plan));
        assert_eq!(
            Plan::decode(&Plan::default().encode()),
            Some(Plan::default())
        );
    }

    #[test]
    fn plans_hold_no_more_than_they_may() {
        let key = |n: u64| ((n % 2) << 40) | (n << 2);
        let plan = Plan::of((0..).map(key).take(MAX_BLOCKS + 1), 0..9999);
        assert_eq!(plan.keys().len(), MAX_BLOCKS);
        let bytes = plan.encode();
        assert!(bytes.len() <= MAX_BYTES);
        let read = Plan::decode(&bytes).unwrap();
        assert!(read.keys().len() > 10_000, "far apart as they are");
        assert!(plan.keys().starts_with(read.keys()));
        assert_eq!(read.pages().len(), MAX_PAGES);
        assert_eq!(Plan::of([1 << KEY_BITS, 4], []).keys(), [4]);
    }

    #[test]
    fn anything_else_is_no_plan() {
        let good = Plan::of([0x8000_0000, 0x8000_0100], [5]).encode();
        for cut in 0..good.len() {
            assert_eq!(Plan::decode(&good[..cut]), None, "{cut} bytes");
        }
        assert_eq!(Plan::decode(&[&good[..], &[0]].concat()), None);
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            Plan::decode(&bytes)
        };
        assert_eq!(changed(7, 1), None, "another version");
        assert_eq!(changed(8, 4), None, "more than there are");
        assert_eq!(changed(12, 2), None, "more pages than there are");
        assert_eq!(changed(15, 0xff), None, "far more");
        assert_eq!(changed(11, 0xff), None, "far more");
        // Before the first address, and behind the last.
        let with =
            |body: &[u8]| Plan::decode(&[&good[..8], &[1, 0, 0, 0, 0, 0, 0, 0], body].concat());
        assert!(with(&[2]).is_some());
        assert_eq!(with(&[1]), None);
        assert_eq!(
            with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            None
        );
        assert_eq!(with(&[0x80; 9]), None);
        assert_eq!(Plan::decode(&vec![0; MAX_BYTES + 1]), None);
    }
}
