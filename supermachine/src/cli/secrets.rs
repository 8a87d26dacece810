//! Secrets of a machine: where their values are, and who may have them.

use crate::{Error, Network, NetworkSecret, VmConfig};
use serde::Deserialize;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Longest file with a value, or with certificates.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A secret, without its value: that is on no command line, and in no file of rules.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The variable that the guest looks in.
    id: String,
    /// The variable of ours that has the value; that of the same name, if nothing is said.
    env: Option<String>,
    /// Or the file that has it.
    src: Option<PathBuf>,
    hosts: Vec<String>,
    #[serde(default)]
    headers: Vec<String>,
    /// Authorities that the hosts are known by.
    ca: Option<PathBuf>,
}

/// `--secret`, as docker's builds have it, with the hosts.
pub fn secret(text: &str) -> Result<Given, String> {
    let mut given = Given {
        id: String::new(),
        env: None,
        src: None,
        hosts: Vec::new(),
        headers: Vec::new(),
        ca: None,
    };
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or("expected KEY=VALUE,…")?;
        if value.is_empty() {
            return Err(format!("{key} has no value"));
        }
        let value = value.to_owned();
        match key {
            "id" => given.id = value,
            "env" => given.env = Some(value),
            "src" | "source" => given.src = Some(value.into()),
            "host" => given.hosts.push(value),
            "header" => given.headers.push(value),
            "ca" => given.ca = Some(value.into()),
            // What it is not may be the value: it is not repeated.
            _ => return Err("expected id, env, src, host, header or ca".into()),
        }
    }
    if given.id.is_empty() || given.hosts.is_empty() {
        return Err("expected id=NAME and at least one host=HOST".into());
    }
    Ok(given)
}

/// Gives a machine its secrets.
pub fn give<'a>(
    config: VmConfig,
    given: impl IntoIterator<Item = &'a Given>,
) -> Result<VmConfig, Error> {
    let mut given = given.into_iter();
    given.try_fold(
        config,
        |config, given| Ok(config.with_secret(given.read()?)),
    )
}

impl Given {
    fn read(&self) -> Result<NetworkSecret, Error> {
        let value = match (&self.env, &self.src) {
            (Some(_), Some(_)) => {
                return Err(Error::Unsuitable {
                    what: "a secret from a variable and from a file",
                    needs: "one of the two: write env or src",
                });
            }
            (None, Some(file)) => {
                let text = read(file)?;
                // Editors end files with one.
                text.strip_suffix("\n").unwrap_or(&text).to_owned()
            }
            (name, None) => variable(name.as_deref().unwrap_or(&self.id))?,
        };
        let secret = Network::secret(&self.id, value);
        let hosts = self.hosts.iter();
        let secret = hosts.fold(secret, |secret, host| secret.for_host(host));
        let headers = self.headers.iter();
        let secret = headers.fold(secret, |secret, header| secret.in_header(header));
        Ok(match &self.ca {
            None => secret,
            Some(file) => secret.with_authorities(read(file)?.as_bytes()),
        })
    }
}

fn variable(name: &str) -> Result<String, Error> {
    let value = std::env::var_os(name).map(OsString::into_string);
    value.and_then(Result::ok).ok_or(Error::Unsuitable {
        what: "a secret whose variable is not set",
        needs: "a value: set the variable of the secret's name, or say env=VARIABLE or src=FILE",
    })
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = || Error::host("cannot read the file of a secret", path);
    let mut text = String::new();
    let file = File::open(path).map_err(failed())?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed())?;
    match text.len() as u64 > MAX_FILE_BYTES {
        true => Err(failed()(io::ErrorKind::FileTooLarge.into())),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_says_who_may_have_it_and_where_it_is() {
        let given = secret("id=KEY,env=OTHER,host=a.example,host=b.example:8443,header=x-key");
        let expected = Given {
            id: "KEY".into(),
            env: Some("OTHER".into()),
            src: None,
            hosts: vec!["a.example".into(), "b.example:8443".into()],
            headers: vec!["x-key".into()],
            ca: None,
        };
        assert_eq!(given, Ok(expected));
        for bad in ["", "KEY", "id=KEY", "host=a", "id=,host=a"] {
            assert!(secret(bad).is_err(), "{bad}");
        }
        let error = secret("id=KEY,host=a,value=sk-0123456789").unwrap_err();
        assert!(!error.contains("0123456789"), "{error}");
    }

    #[test]
    fn value_comes_from_a_file_without_the_end_of_its_line() {
        let dir = std::env::temp_dir().join(format!("smsecret-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("key");
        std::fs::write(&file, "sk-0123456789abcdef\n").unwrap();
        let given = secret(&format!("id=KEY,src={},host=a.example", file.display())).unwrap();
        let expected = Network::secret("KEY", "sk-0123456789abcdef").for_host("a.example");
        assert_eq!(given.read().unwrap(), expected);
        let both = Given {
            env: Some("HOME".into()),
            ..given.clone()
        };
        assert_eq!(both.read().unwrap_err().code(), "unsuitable");
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(given.read().unwrap_err().code(), "host");
        let unset = secret("id=SUPERMACHINE_TEST_NO_SUCH_SECRET,host=a.example").unwrap();
        assert_eq!(unset.read().unwrap_err().code(), "unsuitable");
    }
}
