//! PAX extended headers (POSIX.1, "pax Extended Header").

/// The records of one extended header, in order.
pub(super) type Records<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Splits `data` into records `"%d %s=%s\n"`. `None` on any deviation: a
/// record whose length says something other than its newline is how entries
/// get smuggled past one reader and into another.
pub(super) fn parse(mut data: &[u8]) -> Option<Records<'_>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|byte| *byte == b' ')?;
        let len = usize::try_from(decimal(&data[..space])?).ok()?;
        // The length counts itself, the space and the newline.
        if len < space + 3 || len > data.len() || data[len - 1] != b'\n' {
            return None;
        }
        let record = &data[space + 1..len - 1];
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return None;
        }
        records.push((key, value));
        data = &data[len..];
    }
    Some(records)
}

/// An unsigned decimal number without sign, space or empty text.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A decimal time with optional sign and fraction, rounded down.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = rest.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if !negative {
        return Some(whole);
    }
    let below = i64::from(fraction.iter().any(|digit| *digit != b'0'));
    Some(-whole - below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_newlines_and_equals_signs() {
        let records = parse(b"13 path=a\n=b\n9 a=bcde\n").unwrap();
        assert_eq!(records, [(&b"path"[..], &b"a\n=b"[..]), (b"a", b"bcde")]);
    }

    #[test]
    fn wrong_lengths_are_rejected() {
        for bad in [
            &b"12 path=a\n=b\n"[..],
            b"99 path=a\n",
            b"3 a\n",
            b"0 \n",
            b" 6 a=b\n",
            b"+6 a=b\n",
            b"5 =bc\n",
            b"99999999999999999999999 a=b\n",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_round_toward_the_past() {
        assert_eq!(seconds(b"12.9"), Some(12));
        assert_eq!(seconds(b"-12.9"), Some(-13));
        assert_eq!(seconds(b"-12.0"), Some(-12));
        assert_eq!(seconds(b"1e3"), None);
        assert_eq!(seconds(b""), None);
    }
}
