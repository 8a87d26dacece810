use crate::{Entitlements, Error, sign_file};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The name of nobody, as Apple's `codesign` has it.
const AD_HOC: &str = "-";

/// Who signs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// Nobody: the signature says what the program is, and is good for this Mac.
    #[default]
    AdHoc,
    /// Somebody with a certificate in the keychain of this Mac, such as
    /// `Developer ID Application: …`. Apple's `codesign` does that, with the hardened
    /// runtime and a time stamp, as notarization wants.
    Named(String),
}

impl From<&str> for Identity {
    fn from(name: &str) -> Self {
        match name {
            AD_HOC => Self::AdHoc,
            name => Self::Named(name.to_owned()),
        }
    }
}

impl Identity {
    /// Signs a file in place of the one that is there.
    ///
    /// # Errors
    /// As [`sign_file`]; [`Error::NoTool`] for a named identity where Apple's `codesign` is
    /// not, and [`Error::Tool`] where it fails.
    pub fn sign(&self, path: &Path, entitlements: &Entitlements) -> Result<(), Error> {
        match self {
            Self::AdHoc => sign_file(path, entitlements),
            Self::Named(name) => by_tool(name.as_ref(), path, entitlements),
        }
    }
}

fn by_tool(name: &OsStr, path: &Path, entitlements: &Entitlements) -> Result<(), Error> {
    let list = entitlements.xml()?;
    let began = Command::new("codesign")
        .args(["--force", "--timestamp", "--options", "runtime"])
        .args(["--entitlements", "/dev/stdin", "--sign"])
        .arg(name)
        .arg("--")
        .arg(fs::canonicalize(path).map_err(Error::file("find", path))?)
        .stdin(Stdio::piped())
        .spawn();
    let mut tool = match began {
        Ok(tool) => tool,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoTool),
        Err(error) => return Err(Error::file("start Apple's codesign for", path)(error)),
    };
    if let Some(mut input) = tool.stdin.take() {
        // If it does not read all of it, its status says why.
        let _ = input.write_all(&list);
    }
    let status = tool
        .wait()
        .map_err(Error::file("wait for Apple's codesign of", path))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Tool(status))
}
