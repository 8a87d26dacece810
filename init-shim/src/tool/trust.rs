//! The authority that a machine with secrets trusts, where its programs look for such.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Failure, at};

/// The authority alone.
const AUTHORITY: &str = "run/supermachine/authority.crt";
/// It and those of the image.
const ALL: &str = "run/supermachine/authorities.crt";
/// Files with all authorities of an image: of Debian, Alpine and Arch; of Fedora and its
/// kin; of openSUSE; of Alpine's OpenSSL. The first that is there is also what [`ALL`]
/// begins with.
const BUNDLES: [&str; 5] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
];
/// Where Debian's and Alpine's tool for making the first of them finds others to add.
const ADDED: &str = "usr/local/share/ca-certificates";
/// Longest file that is taken for one of certificates: those there are have 250 KB.
const MAX_BUNDLE_BYTES: u64 = 16 << 20;
/// Lines around what was added, by which a copy of a machine finds what its original had.
const BEGIN: &[u8] = b"# supermachine: secrets of this machine\n";
const END: &[u8] = b"# supermachine: end\n";

/// Has programs of the guest trust the authority of this certificate, and no other that
/// was added here before.
pub(super) fn trust(certificate: &[u8]) -> Result<(), Failure> {
    install(Path::new("/"), certificate)
}

fn install(root: &Path, certificate: &[u8]) -> Result<(), Failure> {
    let block = [BEGIN, certificate, END].concat();
    let mut all = Vec::new();
    for bundle in BUNDLES {
        // What cannot be read or written there (a root that is read-only) is in the files
        // that variables name.
        if let Ok(found) = add(&root.join(bundle), &block)
            && all.is_empty()
        {
            all = found;
        }
    }
    let added = root.join(ADDED);
    if added.is_dir() {
        let _ = fs::write(added.join("supermachine.crt"), certificate);
    }
    if all.is_empty() {
        all = block;
    }
    for (file, content) in [(AUTHORITY, certificate), (ALL, &all)] {
        let path = root.join(file);
        if let Some(parent) = path.parent() {
            at(parent, fs::create_dir_all(parent))?;
        }
        at(&path, replace(&path, content))?;
    }
    Ok(())
}

/// Writes a file anew, for everybody to read.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o644);
    options.open(path)?.write_all(content)
}

/// Adds a block at the end of a file, in place of one from before; what is in it then, or
/// would be if it could be written.
fn add(path: &Path, block: &[u8]) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > MAX_BUNDLE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let before = fs::read(path)?;
    let (mut content, had_one) = without_block(&before);
    if !content.ends_with(b"\n") && !content.is_empty() {
        content.push(b'\n');
    }
    let kept = content.len();
    content.extend_from_slice(block);
    if content == before {
        // The same file by another name.
        return Ok(content);
    }
    let _ = match had_one {
        true => fs::write(path, &content),
        // Whoever reads it meanwhile finds what was there.
        false => OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut file| {
                let fresh = content.get(before.len().min(kept)..).unwrap_or_default();
                file.write_all(fresh)
            }),
    };
    Ok(content)
}

/// A file's content without what was added before, and whether there was something.
fn without_block(content: &[u8]) -> (Vec<u8>, bool) {
    let find = |text: &[u8], from: usize| {
        let rest = content.get(from..).unwrap_or_default();
        let at = rest.windows(text.len()).position(|window| window == text);
        at.map(|at| from + at)
    };
    let place = find(BEGIN, 0).and_then(|begin| Some((begin, find(END, begin)? + END.len())));
    match place {
        None => (content.to_vec(), false),
        Some((begin, end)) => {
            let (before, after) = (content.get(..begin), content.get(end..));
            let rest = [before.unwrap_or_default(), after.unwrap_or_default()].concat();
            (rest, true)
        }
    }
}

/// The certificate's bytes, if it looks like one: nothing else is put among authorities.
pub(super) fn certificate(word: &std::ffi::OsStr) -> Result<&[u8], Failure> {
    let bytes = word.as_bytes();
    let is_one = bytes.starts_with(b"-----BEGIN CERTIFICATE-----\n")
        && bytes.ends_with(b"-----END CERTIFICATE-----\n");
    is_one.then_some(bytes).ok_or_else(Failure::usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::path::PathBuf;

    const ONE: &[u8] = b"-----BEGIN CERTIFICATE-----\none\n-----END CERTIFICATE-----\n";
    const OTHER: &[u8] = b"-----BEGIN CERTIFICATE-----\nother\n-----END CERTIFICATE-----\n";

    /// A directory that goes with the test.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("smtrust-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, path: &str, content: &[u8]) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn read(&self, path: &str) -> String {
            String::from_utf8(fs::read(self.0.join(path)).unwrap()).unwrap()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn authority_is_added_to_the_images_own() {
        let root = Root::new("own");
        root.file(BUNDLES[0], b"of the image");
        std::os::unix::fs::symlink("certs/ca-certificates.crt", root.0.join("etc/ssl/cert.pem"))
            .unwrap();
        root.file(&format!("{ADDED}/README"), b"");
        install(&root.0, ONE).unwrap();
        let block = format!(
            "{}{}{}",
            String::from_utf8_lossy(BEGIN),
            String::from_utf8_lossy(ONE),
            String::from_utf8_lossy(END)
        );
        let expected = format!("of the image\n{block}");
        for file in [BUNDLES[0], "etc/ssl/cert.pem", ALL] {
            assert_eq!(root.read(file), expected, "{file}");
        }
        for file in [
            AUTHORITY,
            "usr/local/share/ca-certificates/supermachine.crt",
        ] {
            assert_eq!(root.read(file).as_bytes(), ONE, "{file}");
        }
    }

    #[test]
    fn authority_of_a_copy_takes_the_place_of_its_originals() {
        let root = Root::new("again");
        root.file(BUNDLES[2], b"of the image\n");
        install(&root.0, ONE).unwrap();
        install(&root.0, OTHER).unwrap();
        install(&root.0, OTHER).unwrap();
        for file in [BUNDLES[2], ALL, AUTHORITY] {
            let text = root.read(file);
            assert_eq!(text.matches("other").count(), 1, "{file}: {text}");
            assert!(!text.contains("one\n"), "{file}: {text}");
        }
        assert!(root.read(ALL).starts_with("of the image\n"));
    }

    #[test]
    fn image_without_authorities_has_one() {
        let root = Root::new("none");
        // What is no file is left alone.
        fs::create_dir_all(root.0.join(BUNDLES[0])).unwrap();
        install(&root.0, ONE).unwrap();
        assert!(root.read(ALL).contains("one\n"));
        assert!(root.0.join(BUNDLES[0]).is_dir());
    }

    #[test]
    fn only_certificates_are_put_among_authorities() {
        for bad in ["", "-----BEGIN CERTIFICATE-----\n", "# supermachine: end\n"] {
            assert!(certificate(OsStr::new(bad)).is_err(), "{bad}");
        }
        assert!(certificate(OsStr::from_bytes(ONE)).is_ok());
    }
}
