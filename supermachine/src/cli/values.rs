//! Words of the command line that stand for numbers, times and variables.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, ExtraFile};

/// Longest file of variables in bytes.
const MAX_ENV_FILE_BYTES: u64 = 1 << 20;
const MIB: u64 = 1 << 20;

/// Name and value.
pub type Pair = (OsString, OsString);

/// Memory in MiB: a number of them, or one with a unit (`512m`, `1g`).
pub fn memory_mib(text: &str) -> Result<usize, String> {
    let bytes = bytes_in(text, MIB).map_err(|error| {
        error.unwrap_or("expected a number of MiB, or one with a unit: 512m, 1g".to_owned())
    })?;
    // Less than was asked for would be a surprise.
    usize::try_from(bytes.div_ceil(MIB)).map_err(|_| "too much memory".to_owned())
}

/// A size: a number of bytes, or one with a unit (`500m`, `20g`).
pub fn bytes(text: &str) -> Result<u64, String> {
    bytes_in(text, 1).map_err(|error| {
        error.unwrap_or("expected a number of bytes, or one with a unit: 500m, 20g".to_owned())
    })
}

/// Bytes, of a number in units of `unit` if it names none; the error is `None` for what
/// is no number.
fn bytes_in(text: &str, unit: u64) -> Result<u64, Option<String>> {
    let digits = text.trim_end_matches(|char: char| !char.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| None)?;
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => unit,
        "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => 1 << 30,
        other => return Err(Some(format!("`{other}` is no unit: use b, k, m or g"))),
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| Some("too many bytes".to_owned()))
}

/// Virtual CPUs: whole ones, however docker lets them be written.
pub fn vcpus(text: &str) -> Result<u32, String> {
    let whole = match text.split_once('.') {
        Some((whole, zeroes)) if zeroes.bytes().all(|digit| digit == b'0') => whole,
        Some(_) => return Err("a guest has whole CPUs: 1, 2, …".to_owned()),
        None => text,
    };
    whole.parse().map_err(|_| "expected a number".to_owned())
}

/// Columns and rows of a terminal, as `80x25`.
pub fn screen(text: &str) -> Result<(u16, u16), String> {
    let sizes = text
        .split_once('x')
        .and_then(|(columns, rows)| Some((columns.parse().ok()?, rows.parse().ok()?)));
    sizes.ok_or_else(|| "expected columns and rows: 80x25".to_owned())
}

/// A time: seconds, or a number with a unit (`1500ms`, `90s`, `5m`, `2h`).
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|char: char| !char.is_ascii_digit());
    let number: u64 = digits
        .parse()
        .map_err(|_| "expected seconds, or a number with a unit: 1500ms, 90s, 5m, 2h".to_owned())?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    let time = match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        other => return Err(format!("`{other}` is no unit: use ms, s, m or h")),
    };
    time.ok_or_else(|| "too long a time".to_owned())
}

/// A variable in any bytes: `NAME=VALUE`, or `NAME` for what this process has.
pub fn variable(text: OsString) -> Result<Option<Pair>, &'static str> {
    parse_variable(text.as_bytes()).ok_or("expected NAME=VALUE, or the NAME of a variable")
}

/// The same; the inner `None` is a variable this process does not have, which the
/// command then does not get either.
fn parse_variable(text: &[u8]) -> Option<Option<Pair>> {
    let name_bytes = text.iter().position(|byte| *byte == b'=');
    let (name, value) = text.split_at(name_bytes.unwrap_or(text.len()));
    if name.is_empty() || text.contains(&0) {
        return None;
    }
    let name = OsString::from_vec(name.to_vec());
    let value = match value {
        [_, value @ ..] => Some(OsString::from_vec(value.to_vec())),
        [] => std::env::var_os(&name),
    };
    Some(value.map(|value| (name, value)))
}

/// A variable of a workload, or a label, which are kept as text.
pub fn text_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// A label: `NAME=VALUE`, or `NAME` alone.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match name {
        "" => Err("a label has a name".to_owned()),
        _ => Ok((name.to_owned(), value.to_owned())),
    }
}

/// A file for an image: `HOST:GUEST`, or `HOST:GUEST:MODE` with octal digits.
pub fn extra_file(text: &str) -> Result<ExtraFile, String> {
    let (host, rest) = text.split_once(':').ok_or("expected HOST:GUEST[:MODE]")?;
    if host.is_empty() || rest.is_empty() {
        return Err("expected HOST:GUEST[:MODE]".to_owned());
    }
    match rest.rsplit_once(':') {
        None => Ok(ExtraFile::new(host, rest)),
        Some((guest, mode)) => match u16::from_str_radix(mode, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(ExtraFile::new(host, guest).with_mode(mode)),
            _ => Err(format!(
                "`{mode}` is no mode: expected octal digits, such as 0600"
            )),
        },
    }
}

/// The variables of files as docker reads them: one a line as on the command
/// line, nothing is unquoted, lines that are empty or begin with `#` are left out.
pub fn env_files(paths: &[PathBuf]) -> Result<Vec<Pair>, Error> {
    let mut variables = Vec::new();
    for path in paths {
        for line in read_env_file(path)?.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let variable = parse_variable(line).ok_or_else(|| {
                let reason = std::io::Error::other("a line is neither NAME=VALUE nor a NAME");
                Error::host("cannot use the file of variables", path)(reason)
            })?;
            variables.extend(variable);
        }
    }
    Ok(variables)
}

fn read_env_file(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = || Error::host("cannot read the file of variables", path);
    let file = std::fs::File::open(path).map_err(failed())?;
    let mut bytes = Vec::new();
    file.take(MAX_ENV_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed())?;
    if bytes.len() as u64 > MAX_ENV_FILE_BYTES {
        return Err(failed()(std::io::Error::other("it is larger than 1 MiB")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_rounded_up_to_mebibytes() {
        for (text, mib) in [
            ("256", 256),
            ("512m", 512),
            ("1g", 1024),
            ("2GiB", 2048),
            ("262144k", 256),
            ("268435457b", 257),
            ("0", 0),
        ] {
            assert_eq!(memory_mib(text), Ok(mib), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1.5g",
            "1t",
            "99999999999999999999",
            "99999999999999g",
        ] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn extra_files_have_two_paths_and_perhaps_a_mode() {
        let plain = ExtraFile::new("a/b", "/c");
        assert_eq!(extra_file("a/b:/c"), Ok(plain.clone()));
        assert_eq!(extra_file("a/b:/c:0600"), Ok(plain.with_mode(0o600)));
        for text in ["", "a", "a:", ":/c", "a:/c:", "a:/c:8", "a:/c:17777"] {
            assert!(extra_file(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_unless_they_say_otherwise() {
        assert_eq!(
            (bytes("7"), bytes("2g"), bytes("3k")),
            (Ok(7), Ok(2 << 30), Ok(3072))
        );
        for text in ["", "g", "-1", "1.5g", "99999999999999g"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_seconds_unless_they_say_otherwise() {
        for (text, ms) in [
            ("3", 3000),
            ("1500ms", 1500),
            ("90s", 90_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1", "1.5", "1d", "99999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_whole() {
        assert_eq!((vcpus("2"), vcpus("4.0")), (Ok(2), Ok(4)));
        for text in ["0.5", "", "x", "-1", "1.x"] {
            assert!(vcpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_of_variables_are_read_as_docker_reads_them() {
        let path = std::env::temp_dir().join(format!("sm-env-file-{}", std::process::id()));
        let text =
            b"# comment\n\n  A=1\nB=\"two words\" # kept\r\nC=\xff=\nSM_NOT_SET_ANYWHERE\nPATH\n";
        std::fs::write(&path, text).unwrap();
        let found = env_files(std::slice::from_ref(&path)).unwrap();
        let path_variable = (OsString::from("PATH"), std::env::var_os("PATH").unwrap());
        let pair =
            |name: &str, value: &[u8]| (OsString::from(name), OsString::from_vec(value.to_vec()));
        let expected = [
            pair("A", b"1"),
            pair("B", b"\"two words\" # kept"),
            pair("C", b"\xff="),
            path_variable,
        ];
        assert_eq!(found, expected);
        std::fs::write(&path, "=x\n").unwrap();
        assert!(env_files(std::slice::from_ref(&path)).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(env_files(&[path]).is_err());
    }
}
