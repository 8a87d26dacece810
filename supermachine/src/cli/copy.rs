//! `supermachine cp`.

use super::machine;
use super::output::{self, Progress, is_terminal};
use crate::files::{self, CopyOptions, FileKind};
use crate::running::RunningVm;
use crate::{Error, ErrorKind};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// Keep owners; without this, what is copied in is root's, and what is copied
    /// out is yours
    #[arg(short, long)]
    archive: bool,
    /// What to copy: a path, or VM:PATH in a machine; of a directory its content
    /// alone, if the path ends with /.; - for a tar archive on standard input
    #[arg(value_name = "SOURCE")]
    source: OsString,
    /// Where to: into that directory if it is there, else under that name; - for a tar
    /// archive on standard output
    #[arg(value_name = "TARGET")]
    target: OsString,
}

/// A path here, or in a machine.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Host(&'a Path),
    Guest {
        vm: &'a str,
        path: &'a Path,
    },
    /// A tar archive on a standard stream.
    Archive,
}

/// A machine's name has no slash, so `./a:b` is a path here.
fn place(text: &OsStr) -> Place<'_> {
    let bytes = text.as_bytes();
    if bytes == b"-" {
        return Place::Archive;
    }
    let at = bytes.iter().position(|byte| *byte == b':');
    let parts = at.and_then(|at| {
        let vm = std::str::from_utf8(&bytes[..at]).ok()?;
        (!vm.is_empty() && !vm.contains('/')).then_some((vm, &bytes[at + 1..]))
    });
    match parts {
        Some((vm, path)) => Place::Guest {
            vm,
            path: Path::new(OsStr::from_bytes(path)),
        },
        None => Place::Host(Path::new(text)),
    }
}

/// Copies, as docker's `cp` does.
pub fn run(arguments: &Arguments) -> Result<u8, Error> {
    let options = CopyOptions {
        keep_owners: arguments.archive,
        ..CopyOptions::default()
    };
    match (place(&arguments.source), place(&arguments.target)) {
        (Place::Host(source), Place::Guest { vm, path }) => {
            let vm = machine::find(vm)?.running()?;
            let target = target(source, path, |path| is_guest_directory(&vm, path))?;
            files::copy_in(&vm, source, target.as_os_str().as_bytes(), &options)?;
        }
        (Place::Guest { vm, path }, Place::Host(target_path)) => {
            let vm = machine::find(vm)?.running()?;
            let is_directory = |path: &Path| Ok(path.is_dir());
            let target = target(path, target_path, is_directory)?;
            files::copy_out(&vm, path.as_os_str().as_bytes(), &target, &options)?;
        }
        (Place::Archive, Place::Guest { vm, path }) => {
            let vm = machine::find(vm)?.running()?;
            if !is_guest_directory(&vm, path)? {
                return Err(Error::Unsuitable {
                    what: "unpacking an archive",
                    needs: "a directory in the machine: make it first",
                });
            }
            vm.copy_in_tar(Input, path.as_os_str().as_bytes(), &options)?;
        }
        (Place::Guest { vm, path }, Place::Archive) => {
            if is_terminal(io::stdout()) {
                return Err(Error::Unsuitable {
                    what: "an archive on a terminal",
                    needs: "standard output to lead elsewhere: `> FILE`, or a pipe",
                });
            }
            let vm = machine::find(vm)?.running()?;
            let packed = vm.copy_out_tar(path.as_os_str().as_bytes(), Output, &options);
            packed.map_err(|error| match error {
                Error::System { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                    Error::Output { source }
                }
                error => error,
            })?;
        }
        _ => {
            return Err(Error::Unsuitable {
                what: "a copy",
                needs: "a machine on one side: VM:PATH",
            });
        }
    }
    Ok(0)
}

/// Standard input, also if it does not block.
struct Input;

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        output::read(io::stdin().as_fd(), buffer)
    }
}

/// Standard output, also if it does not block.
pub(super) struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        output::write_all(io::stdout().as_fd(), bytes, &Progress::default())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where something goes that is copied to `target`: into it if it is a directory,
/// unless the content alone is wanted.
fn target(
    source: &Path,
    target: &Path,
    is_directory: impl Fn(&Path) -> Result<bool, Error>,
) -> Result<PathBuf, Error> {
    let ends_with = |path: &Path, end: &[u8]| path.as_os_str().as_bytes().ends_with(end);
    if !is_directory(target)? {
        if ends_with(target, b"/") {
            return Err(Error::Unsuitable {
                what: "a target that ends with /",
                needs: "a directory there: make it first",
            });
        }
        return Ok(target.to_owned());
    }
    let wants_content = ends_with(source, b"/.") || source == Path::new(".");
    match source.file_name() {
        Some(name) if !wants_content => Ok(target.join(name)),
        // Of the root and the like too: they have no name to keep.
        _ => Ok(target.to_owned()),
    }
}

fn is_guest_directory(vm: &RunningVm, path: &Path) -> Result<bool, Error> {
    match files::stat(vm, path.as_os_str().as_bytes(), true) {
        Ok(found) => Ok(found.kind == FileKind::Directory),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_behind_a_name_means_a_machine() {
        let guest = |vm, path: &'static str| Place::Guest {
            vm,
            path: Path::new(path),
        };
        assert_eq!(place(OsStr::new("web:/etc")), guest("web", "/etc"));
        assert_eq!(place(OsStr::new("web:a:b")), guest("web", "a:b"));
        assert_eq!(place(OsStr::new("-")), Place::Archive);
        for here in ["/a:b", "./a:b", "a/b:c", ":x", "plain", "./-"] {
            assert_eq!(place(OsStr::new(here)), Place::Host(Path::new(here)));
        }
    }

    #[test]
    fn targets_are_as_docker_has_them() {
        let to = |source: &str, to: &str, is_there: bool| {
            target(Path::new(source), Path::new(to), |_| Ok(is_there)).ok()
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(to("/a/f", "/d", true), path("/d/f"));
        assert_eq!(to("/a/f", "/d", false), path("/d"));
        assert_eq!(to("/a/.", "/d", true), path("/d"));
        assert_eq!(to("/", "/d", true), path("/d"));
        assert_eq!(to("/a/f", "/d/", false), None);
    }
}
