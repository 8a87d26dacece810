//! Numbers of languages that have one kind of them.

use std::time::Duration;

use crate::{BindingError, Result};

/// A whole number from `least` on, as large as such a language can tell from its
/// neighbours.
pub fn whole(what: &str, value: f64, least: u64) -> Result<u64> {
    /// 2^53: beyond it, numbers are missing.
    const MOST: f64 = 9_007_199_254_740_992.0;
    if value.fract() != 0.0 || !(0.0..=MOST).contains(&value) {
        return Err(BindingError::invalid(format!(
            "{what} must be a whole number, not {value}"
        )));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = value as u64;
    if whole < least {
        return Err(BindingError::invalid(format!(
            "{what} must be at least {least}, not {whole}"
        )));
    }
    Ok(whole)
}

/// The same of a smaller type.
pub fn fitting<T: TryFrom<u64>>(what: &str, value: f64, least: u64) -> Result<T> {
    T::try_from(whole(what, value, least)?)
        .map_err(|_| BindingError::invalid(format!("{what} is too large: {value}")))
}

/// The same, if it is there.
pub fn optional<T: TryFrom<u64>>(what: &str, value: Option<f64>, least: u64) -> Result<Option<T>> {
    value.map(|value| fitting(what, value, least)).transpose()
}

/// So many milliseconds.
pub fn milliseconds(what: &str, value: Option<f64>) -> Result<Option<Duration>> {
    let value = optional(what, value, 0)?;
    Ok(value.map(Duration::from_millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_that_can_be_told_apart_pass() {
        assert_eq!(whole("n", 0.0, 0), Ok(0));
        assert_eq!(whole("n", 512.0, 1), Ok(512));
        for bad in [-1.0, 0.5, f64::NAN, f64::INFINITY, -f64::INFINITY, 1e300] {
            let error = whole("memoryMib", bad, 0).unwrap_err();
            assert_eq!(error.code, "invalid-argument");
            assert!(error.message.contains("memoryMib"), "{error}");
        }
        assert!(whole("n", 0.0, 1).is_err());
        assert!(fitting::<u16>("port", 65_536.0, 0).is_err());
        assert_eq!(
            milliseconds("t", Some(1_500.0)),
            Ok(Some(Duration::from_millis(1_500)))
        );
    }
}
