use crate::Error;
use plist::{Dictionary, Value};
use std::io::Cursor;

/// The entitlement of programs that run virtual machines with Hypervisor.framework.
pub const HYPERVISOR: &str = "com.apple.security.hypervisor";

/// Longest property list that is read, in bytes: real ones have some hundred.
const MAX_LIST_BYTES: usize = 1 << 20;
/// Most arrays and dictionaries in a list.
const MAX_CONTAINERS: usize = 64;
/// How deep values may be in one another.
const MAX_DEPTH: usize = 16;

// ASN.1 tags: ITU-T X.690 8.1.2; the last two are Apple's own.
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const UTF8_STRING: u8 = 0x0c;
const SEQUENCE: u8 = 0x30;
const DICTIONARY: u8 = 0xb0;
const ENTITLEMENTS: u8 = 0x70;

/// What a program may do on a Mac that others may not: a property list with a dictionary
/// of names and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entitlements(Dictionary);

impl Entitlements {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// That of programs that run virtual machines.
    pub fn hypervisor() -> Self {
        let mut entries = Dictionary::new();
        entries.insert(HYPERVISOR.into(), Value::Boolean(true));
        Self(entries)
    }

    /// Those of a property list.
    ///
    /// # Errors
    /// [`Error::Entitlements`] for what is no such list of at most 1 MiB, and for values
    /// other than truth values, whole numbers, strings, arrays and dictionaries.
    pub fn read(list: &[u8]) -> Result<Self, Error> {
        if list.len() > MAX_LIST_BYTES {
            return Err(Error::Entitlements("longer than 1 MiB".into()));
        }
        // The library reads what is in one another by calls in one another.
        let opens = |word: &[u8]| {
            list.windows(word.len())
                .filter(|found| *found == word)
                .count()
        };
        if opens(b"<array") + opens(b"<dict") > MAX_CONTAINERS {
            return Err(Error::Entitlements(format!(
                "more than {MAX_CONTAINERS} arrays and dictionaries"
            )));
        }
        let value = Value::from_reader_xml(Cursor::new(list))
            .map_err(|error| Error::Entitlements(format!("not a property list: {error}")))?;
        let Value::Dictionary(entries) = value else {
            return Err(Error::Entitlements(
                "the property list is no dictionary".into(),
            ));
        };
        let read = Self(entries);
        read.der()?;
        Ok(read)
    }

    /// Whether an entitlement is there and true.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_boolean) == Some(true)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of `self`, and those of `others`, which win.
    #[must_use]
    pub fn with(mut self, others: &Self) -> Self {
        for (name, value) in &others.0 {
            self.0.insert(name.clone(), value.clone());
        }
        self
    }

    /// As a property list in XML.
    ///
    /// # Errors
    /// [`Error::Entitlements`] for values that XML cannot have.
    pub fn xml(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut sorted = self.0.clone();
        sorted.sort_keys();
        Value::Dictionary(sorted)
            .to_writer_xml(&mut bytes)
            .map_err(|error| Error::Entitlements(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// As DER: a version and a dictionary.
    pub(crate) fn der(&self) -> Result<Vec<u8>, Error> {
        let mut contents = element(INTEGER, &[1]);
        contents.extend(dictionary(&self.0, MAX_DEPTH)?);
        Ok(element(ENTITLEMENTS, &contents))
    }
}

fn dictionary(entries: &Dictionary, depth: usize) -> Result<Vec<u8>, Error> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(name, _)| name.as_bytes());
    let mut contents = Vec::new();
    for (name, entry) in sorted {
        let mut pair = element(UTF8_STRING, name.as_bytes());
        pair.extend(value(entry, depth)?);
        contents.extend(element(SEQUENCE, &pair));
    }
    Ok(element(DICTIONARY, &contents))
}

fn value(value_: &Value, depth: usize) -> Result<Vec<u8>, Error> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Error::Entitlements("values are too deep".into()));
    };
    Ok(match value_ {
        Value::Boolean(is_true) => element(BOOLEAN, &[if *is_true { 0xff } else { 0 }]),
        Value::String(text) => element(UTF8_STRING, text.as_bytes()),
        Value::Integer(number) => {
            let number = number
                .as_signed()
                .ok_or_else(|| Error::Entitlements("a number is too large".into()))?;
            element(INTEGER, shortest(&number.to_be_bytes()))
        }
        Value::Array(values) => {
            let mut contents = Vec::new();
            for each in values {
                contents.extend(value(each, depth)?);
            }
            element(SEQUENCE, &contents)
        }
        Value::Dictionary(entries) => dictionary(entries, depth)?,
        _ => {
            return Err(Error::Entitlements(
                "a value is no truth value, whole number, string, array or dictionary".into(),
            ));
        }
    })
}

/// A number in two's complement, without the bytes that say nothing.
fn shortest(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, second, ..] = rest {
        let says_nothing =
            (*first == 0 && *second & 0x80 == 0) || (*first == 0xff && *second & 0x80 != 0);
        if !says_nothing {
            break;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    rest
}

/// A tag, the length in its shortest form, and the contents.
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let length = contents.len().to_be_bytes();
    match u8::try_from(contents.len()) {
        Ok(short) if short < 0x80 => bytes.push(short),
        _ => {
            let zeroes = length.iter().take_while(|&&byte| byte == 0).count();
            let said = length.get(zeroes..).unwrap_or_default();
            // At most eight.
            bytes.push(0x80 | u8::try_from(said.len()).unwrap_or(8));
            bytes.extend(said);
        }
    }
    bytes.extend(contents);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1, and a dictionary of one pair.
    #[test]
    fn der_of_the_hypervisors_entitlement() {
        let mut expected = vec![0x70, 0x2b, 2, 1, 1, 0xb0, 0x26, 0x30, 0x24, 0x0c, 29];
        expected[1] = 3 + 2 + 2 + 31 + 3;
        expected[6] = 2 + 31 + 3;
        expected[8] = 31 + 3;
        expected.extend(HYPERVISOR.as_bytes());
        expected.extend([1, 1, 0xff]);
        assert_eq!(HYPERVISOR.len(), 29);
        assert_eq!(Entitlements::hypervisor().der().unwrap(), expected);
    }

    #[test]
    fn lengths_and_numbers_take_their_shortest_form() {
        assert_eq!(element(4, &[7; 3])[..2], [4, 3]);
        assert_eq!(element(4, &[7; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(element(4, &[7; 0x1234])[..4], [4, 0x82, 0x12, 0x34]);
        assert_eq!(shortest(&0_i64.to_be_bytes()), [0]);
        assert_eq!(shortest(&127_i64.to_be_bytes()), [127]);
        assert_eq!(shortest(&128_i64.to_be_bytes()), [0, 128]);
        assert_eq!(shortest(&(-1_i64).to_be_bytes()), [0xff]);
        assert_eq!(shortest(&(-129_i64).to_be_bytes()), [0xff, 0x7f]);
    }

    #[test]
    fn entitlements_survive_being_written_and_read() {
        let mut entries = Dictionary::new();
        entries.insert("b".into(), Value::Array(vec!["x".into(), 5.into()]));
        entries.insert("a".into(), Value::Boolean(false));
        let both = Entitlements(entries).with(&Entitlements::hypervisor());
        let read = Entitlements::read(&both.xml().unwrap()).unwrap();
        assert_eq!(read, both);
        assert!(read.has(HYPERVISOR) && !read.has("a") && !read.has("b"));
    }

    #[test]
    fn what_cannot_be_signed_is_refused() {
        let list = |inner: &str| format!("<plist version=\"1.0\">{inner}</plist>").into_bytes();
        assert!(Entitlements::read(b"no list").is_err());
        assert!(Entitlements::read(&list("<array/>")).is_err());
        assert!(Entitlements::read(&list("<dict><key>a</key><real>1.5</real></dict>")).is_err());
        let deep = format!("{}{}", "<array>".repeat(40), "</array>".repeat(40));
        assert!(Entitlements::read(&list(&format!("<dict><key>a</key>{deep}</dict>"))).is_err());
        let many = list(&"<dict>".repeat(100_000));
        let said = Entitlements::read(&many).unwrap_err().to_string();
        assert!(said.contains("64 arrays"), "{said}");
        assert!(Entitlements::read(&vec![b' '; MAX_LIST_BYTES + 1]).is_err());
    }
}
