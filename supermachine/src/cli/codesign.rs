//! `supermachine codesign`: programs that may run machines on a Mac.

use crate::Error;
use codesign::{Entitlements, Identity};
use std::io;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// Who signs: a certificate in this Mac's keychain, by Apple's codesign; by default
    /// nobody, which is enough for programs that stay on one Mac
    #[arg(long, value_name = "IDENTITY", default_value = "-")]
    identity: String,
    /// Property list of entitlements beside that for virtual machines
    #[arg(long, value_name = "FILE")]
    entitlements: Option<PathBuf>,
    /// Programs, each a file for one kind of processor
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// Signs each file.
pub fn run(arguments: &Arguments) -> Result<u8, Error> {
    let mut entitlements = Entitlements::hypervisor();
    if let Some(file) = &arguments.entitlements {
        let list = std::fs::read(file).map_err(Error::host("cannot read", file))?;
        let more = Entitlements::read(&list);
        entitlements = entitlements.with(&more.map_err(|error| failed(file, error))?);
    }
    let identity = Identity::from(arguments.identity.as_str());
    for path in &arguments.paths {
        identity
            .sign(path, &entitlements)
            .map_err(|error| failed(path, error))?;
    }
    Ok(0)
}

fn failed(path: &Path, error: codesign::Error) -> Error {
    Error::host("cannot sign with", path)(io::Error::other(error))
}
