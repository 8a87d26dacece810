//! The host name, and the files of the guest that repeat it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::files::replace_file;
use crate::sys;

const HOSTS: &str = "/etc/hosts";
const HOSTNAME: &str = "/etc/hostname";
/// A longer hosts file is replaced instead of being edited.
const HOSTS_LIMIT: u64 = 64 * 1024;

/// The host's name on the machine's network.
const HOST: &str = "host.supermachine.internal";

fn first_hosts(name: &str, host: &[IpAddr]) -> String {
    let host = host.iter().map(|address| format!("{address}\t{HOST}\n"));
    let host: String = host.collect();
    format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback {name}\n{host}")
}

/// Gives a booting machine its name, and the host's, which is at these addresses. Links
/// that an image has in place of the files are replaced, never followed.
pub(crate) fn set_first(name: &str, host: &[IpAddr]) {
    // A machine without a name of its own is still of use.
    let _ = sys::set_hostname(name.as_bytes());
    let _ = replace_file(Path::new(HOSTS), 0o644, first_hosts(name, host).as_bytes());
    let line = format!("{name}\n");
    let _ = replace_file(Path::new(HOSTNAME), 0o644, line.as_bytes());
}

/// Gives a running machine another name. What else the hosts file says stays.
pub(super) fn change(name: &[u8]) -> io::Result<()> {
    let old = sys::hostname();
    if old == name {
        return Ok(());
    }
    sys::set_hostname(name)?;
    let name = String::from_utf8_lossy(name);
    // The name is the kernel's; files that cannot be written, on a full disk
    // say, are no reason to lose the machine.
    let hosts = |text: &[u8]| renamed(text, &old, name.as_bytes());
    if edit(Path::new(HOSTS), hosts).is_err() {
        let _ = replace_file(Path::new(HOSTS), 0o644, first_hosts(&name, &[]).as_bytes());
    }
    let line = format!("{name}\n").into_bytes();
    if edit(Path::new(HOSTNAME), |_| line.clone()).is_err() {
        let _ = replace_file(Path::new(HOSTNAME), 0o644, &line);
    }
    Ok(())
}

/// Rewrites a small file in its place, which costs a third of replacing it.
/// Anything but a plain file of one name is refused.
fn edit(path: &Path, change: impl FnOnce(&[u8]) -> Vec<u8>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 || metadata.len() > HOSTS_LIMIT {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut old = Vec::new();
    Read::by_ref(&mut file)
        .take(HOSTS_LIMIT)
        .read_to_end(&mut old)?;
    write_all(&file, &change(&old), old.len())
}

fn write_all(file: &File, bytes: &[u8], old_len: usize) -> io::Result<()> {
    file.write_all_at(bytes, 0)?;
    if bytes.len() < old_len {
        file.set_len(bytes.len() as u64)?;
    }
    Ok(())
}

/// A hosts file with `old` called `new`; if nobody was called so, the new name
/// is added.
pub fn renamed(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let mut found = false;
    for line in text.split_inclusive(|b| *b == b'\n') {
        let end = line.iter().position(|b| *b == b'#').unwrap_or(line.len());
        let (facts, comment) = line.split_at(end);
        for (index, word) in facts
            .split_inclusive(|b| b.is_ascii_whitespace())
            .enumerate()
        {
            let name = word.trim_ascii_end();
            // The first word is the address.
            if index > 0 && !old.is_empty() && name == old {
                found = true;
                out.extend_from_slice(new);
                out.extend_from_slice(word.get(name.len()..).unwrap_or_default());
            } else {
                out.extend_from_slice(word);
            }
        }
        out.extend_from_slice(comment);
    }
    if !found {
        if out.last().is_some_and(|b| *b != b'\n') {
            out.push(b'\n');
        }
        out.extend_from_slice(b"127.0.0.1\t");
        out.extend_from_slice(new);
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn name_changes_and_other_entries_stay() {
        let before = first_hosts("old", &[]) + "10.0.0.7 db old.example old # old\n";
        let after = text(&renamed(before.as_bytes(), b"old", b"new-1"));
        assert_eq!(
            after,
            first_hosts("new-1", &[]) + "10.0.0.7 db old.example new-1 # old\n"
        );
    }

    #[test]
    fn unknown_name_is_added_on_a_line_of_its_own() {
        let after = renamed(b"1.2.3.4 x", b"old", b"new");
        assert_eq!(text(&after), "1.2.3.4 x\n127.0.0.1\tnew\n");
        assert_eq!(text(&renamed(b"", b"", b"new")), "127.0.0.1\tnew\n");
    }

    #[test]
    fn file_is_edited_in_place_and_links_are_refused() {
        let dir = std::env::temp_dir().join(format!("sm-names-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("hosts");
        std::fs::write(&file, "long old content").unwrap();
        edit(&file, |old| old[..4].to_vec()).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"long");
        let link = dir.join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(edit(&link, |_| Vec::new()).is_err());
        std::fs::hard_link(&file, dir.join("second")).unwrap();
        assert!(edit(&file, |_| Vec::new()).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"long");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
