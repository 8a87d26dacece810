//! What a Mach-O file is, and what it takes from others.

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::macho::{
    CPU_TYPE_ARM64, DYNAMIC_LOOKUP_ORDINAL, FileType, MH_DYLIB, MH_EXECUTE, MachHeader64,
    PLATFORM_MACOS,
};
use object::read::macho::{LoadCommandVariant, MachHeader, Nlist};
use std::path::Path;

/// The oldest system that a file may need more than, as `hvf/link/zig-cc` has it.
const OLDEST: u16 = 13;
/// Where the system has its libraries.
const SYSTEM: [&str; 2] = ["/usr/lib/", "/System/Library/Frameworks/"];

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is started.
    Program,
    /// Node loads it.
    Addon,
}

impl Use {
    fn file_type(self) -> FileType {
        match self {
            Self::Program => MH_EXECUTE,
            Self::Addon => MH_DYLIB,
        }
    }
}

/// What was found in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Libraries that it needs.
    pub libraries: Vec<String>,
    /// Names that it takes from whoever loads it.
    pub looked_up: Vec<String>,
    /// Names that it has for others.
    exported: Vec<String>,
    oldest: Option<u16>,
}

/// Checks that a file is for arm64 Macs of our oldest system, and takes what it needs
/// from libraries of that system.
///
/// A name without a library is what the loader does not find until it is called, or at
/// all: the linker may not have known where it is. So there must be none.
pub fn inspect(path: &Path, for_use: Use) -> Result<Found> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let found = read(&bytes, for_use).with_context(|| path.display().to_string())?;
    check(&found, for_use).with_context(|| path.display().to_string())?;
    Ok(found)
}

fn read(bytes: &[u8], for_use: Use) -> Result<Found> {
    let header = MachHeader64::<LE>::parse(bytes, 0).context("this is no Mach-O file")?;
    ensure!(
        header.cputype.get(LE) == CPU_TYPE_ARM64,
        "it is for another processor than arm64"
    );
    ensure!(
        header.filetype.get(LE) == for_use.file_type(),
        "it is of another type of file"
    );
    let mut found = Found::default();
    let mut commands = header.load_commands(LE, bytes, 0)?;
    let mut symbols = None;
    while let Some(command) = commands.next()? {
        match command.variant()? {
            LoadCommandVariant::Dylib(library) => {
                let name = command.string(LE, library.dylib.name)?;
                found.libraries.push(String::from_utf8(name.to_vec())?);
            }
            LoadCommandVariant::BuildVersion(version, _) => {
                ensure!(
                    version.platform.get(LE) == PLATFORM_MACOS,
                    "it is for another system than macOS"
                );
                found.oldest = Some(version.minos.get(LE).major());
            }
            LoadCommandVariant::Symtab(table) => {
                symbols = Some(table.symbols::<MachHeader64<LE>, _>(LE, bytes)?);
            }
            _ => {}
        }
    }
    let symbols = symbols.context("it has no symbols")?;
    for symbol in symbols.iter() {
        let kind = symbol.n_type();
        if kind.is_stab() || !kind.is_ext() {
            continue;
        }
        let name = symbol.name(LE, symbols.strings())?;
        let name = String::from_utf8(name.to_vec())?;
        if symbol.is_definition() {
            found.exported.push(name);
            continue;
        }
        let library = symbol.library_ordinal(LE);
        match library.index() {
            Some(number) => ensure!(
                usize::from(number) <= found.libraries.len(),
                "{name} is of a library that it does not name"
            ),
            None if library == DYNAMIC_LOOKUP_ORDINAL => found.looked_up.push(name),
            // Of itself, where it is not, or of a program that loads plug-ins.
            None => bail!("{name} is of no library: {library:?}"),
        }
    }
    Ok(found)
}

fn check(found: &Found, for_use: Use) -> Result<()> {
    let oldest = found
        .oldest
        .context("it does not say what system it needs")?;
    ensure!(oldest <= OLDEST, "it needs macOS {oldest}");
    for library in &found.libraries {
        ensure!(
            SYSTEM.iter().any(|place| library.starts_with(place)),
            "it needs {library}, which is no part of macOS"
        );
    }
    ensure!(
        found.looked_up.is_empty(),
        "it has {:?} looked up wherever they are",
        found.looked_up
    );
    let register = "_napi_register_module_v1";
    ensure!(
        for_use != Use::Addon || found.exported.iter().any(|name| name == register),
        "Node finds no {register} in it"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        Found {
            libraries: vec!["/usr/lib/libSystem.B.dylib".into()],
            looked_up: Vec::new(),
            exported: vec!["_napi_register_module_v1".into()],
            oldest: Some(13),
        }
    }

    #[test]
    fn only_what_a_mac_has_is_needed() {
        check(&found(), Use::Addon).unwrap();
        type Change = fn(&mut Found);
        let cases: [(Change, &str); 5] = [
            (|found| found.oldest = Some(14), "macOS 14"),
            (|found| found.oldest = None, "what system"),
            (
                |found| found.libraries.push("@rpath/libnode.dylib".into()),
                "libnode",
            ),
            (
                |found| found.looked_up.push("_napi_throw".into()),
                "napi_throw",
            ),
            (|found| found.exported.clear(), "napi_register_module_v1"),
        ];
        for (change, says) in cases {
            let mut other = found();
            change(&mut other);
            let error = check(&other, Use::Addon).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let program = Found {
            exported: Vec::new(),
            ..found()
        };
        check(&program, Use::Program).unwrap();
    }

    #[test]
    fn what_is_no_file_for_arm64_macs_is_refused() {
        for bytes in [&b""[..], b"\x7fELF", &[0; 64], &[0xcf, 0xfa, 0xed, 0xfe]] {
            assert!(read(bytes, Use::Program).is_err());
        }
    }
}
