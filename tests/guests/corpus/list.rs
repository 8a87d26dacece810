//! Everything there is below a directory, one line for each name: on this host, and by a
//! program in a guest.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Prints the same of each image below /images, whose layers it mounts as the agent does.
pub const IN_GUEST: &str = r#"
import hashlib, os, stat, subprocess

def run(*argv):
    subprocess.run(('/bin/busybox',) + argv, check=True)

def shown(raw):
    return ''.join(chr(b) if 0x21 <= b < 0x7f and b != 0x25 else '%%%02x' % b for b in raw)

def content(path, kind):
    if kind == 'l':
        return shown(os.readlink(path))
    if kind == 'f':
        with open(path, 'rb') as file:
            return hashlib.sha256(file.read()).hexdigest()
    return '-'

def xattrs(path):
    names = sorted(os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False))
    pairs = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
    return ','.join(shown(name) + '=' + value.hex() for name, value in pairs) or '-'

KINDS = [(stat.S_ISDIR, 'd'), (stat.S_ISREG, 'f'), (stat.S_ISLNK, 'l'), (stat.S_ISCHR, 'c'),
         (stat.S_ISBLK, 'b'), (stat.S_ISFIFO, 'p')]

def walk(top):
    yield top
    if stat.S_ISDIR(os.lstat(top).st_mode):
        for name in sorted(os.listdir(top)):
            yield from walk(top + b'/' + name)

def show(root):
    first = {}
    for path in walk(root):
        s = os.lstat(path)
        kind = next((kind for test, kind in KINDS if test(s.st_mode)), '?')
        name = shown(path[len(root):]) or '/'
        size = s.st_size if kind in 'fl' else 0
        device = '%d:%d' % (os.major(s.st_rdev), os.minor(s.st_rdev)) if kind in 'cb' else '-'
        links, same = 0, '-'
        if kind != 'd':
            links = s.st_nlink
            same = first.setdefault((s.st_dev, s.st_ino), name)
        print(name, kind, '%o' % stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid, int(s.st_mtime),
              size, device, links, same, content(path, kind), xattrs(path))

run('mount', '-t', 'tmpfs', 'tmpfs', '/mnt')
mounted = 0
for image in sorted(os.listdir('/images')):
    base = '/mnt/' + image
    lower = []
    for layer in sorted(os.listdir('/images/' + image), reverse=True):
        at = '/mnt/l%d' % mounted
        mounted += 1
        os.makedirs(at)
        run('mount', '-t', 'squashfs', '-o', 'loop,ro', '/images/%s/%s' % (image, layer), at)
        lower.append(at)
    for part in ('upper', 'work', 'root'):
        os.makedirs(base + '/' + part)
    options = 'lowerdir=%s,upperdir=%s/upper,workdir=%s/work' % (':'.join(lower), base, base)
    run('mount', '-t', 'overlay', '-o', options, 'overlay', base + '/root')
    print('==', image)
    show(os.fsencode(base + '/root'))
"#;

/// What a name is, and has.
pub fn of(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first = BTreeMap::new();
    walk(root, &mut |path, metadata| {
        let below = &path.as_os_str().as_bytes()[root.as_os_str().len()..];
        let name = match below {
            b"" => "/".to_owned(),
            below => shown(below),
        };
        lines.push(line(path, &name, metadata, &mut first));
    });
    lines
}

fn walk(path: &Path, each: &mut dyn FnMut(&Path, &Metadata)) {
    let metadata = fs::symlink_metadata(path).expect("what umoci unpacked");
    each(path, &metadata);
    if metadata.is_dir() {
        let entries = fs::read_dir(path).expect("a directory that umoci unpacked");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a name").path()).collect();
        paths.sort_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
        for path in paths {
            walk(&path, each);
        }
    }
}

fn line(
    path: &Path,
    name: &str,
    metadata: &Metadata,
    first: &mut BTreeMap<(u64, u64), String>,
) -> String {
    let kind = metadata.file_type();
    let (letter, content) = if kind.is_dir() {
        ('d', "-".to_owned())
    } else if kind.is_file() {
        let bytes = fs::read(path).expect("a file that umoci unpacked");
        let digest = Sha256::digest(bytes);
        (
            'f',
            digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        )
    } else if kind.is_symlink() {
        let target = fs::read_link(path).expect("a link that umoci unpacked");
        ('l', shown(target.as_os_str().as_bytes()))
    } else if kind.is_char_device() {
        ('c', "-".to_owned())
    } else if kind.is_block_device() {
        ('b', "-".to_owned())
    } else {
        ('p', "-".to_owned())
    };
    let size = if "fl".contains(letter) {
        metadata.size()
    } else {
        0
    };
    let device = match "cb".contains(letter) {
        true => format!(
            "{}:{}",
            rustix::fs::major(metadata.rdev()),
            rustix::fs::minor(metadata.rdev())
        ),
        false => "-".to_owned(),
    };
    let (links, same) = match letter {
        'd' => (0, "-".to_owned()),
        _ => {
            let key = (metadata.dev(), metadata.ino());
            let same = first.entry(key).or_insert_with(|| name.to_owned());
            (metadata.nlink(), same.clone())
        }
    };
    format!(
        "{name} {letter} {:o} {} {} {} {size} {device} {links} {same} {content} {}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        xattrs(path)
    )
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names[..]).expect("attributes");
    let mut names: Vec<&[u8]> = names[..length].split(|byte| *byte == 0).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    let pairs = names.iter().map(|name| {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, *name, &mut value[..]).expect("an attribute");
        let value: String = value[..length]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{}={value}", shown(name))
    });
    let pairs: Vec<String> = pairs.collect();
    match pairs.is_empty() {
        true => "-".to_owned(),
        false => pairs.join(","),
    }
}

/// Bytes as one word.
fn shown(bytes: &[u8]) -> String {
    let each = bytes.iter().map(|byte| match byte {
        0x21..0x7f if *byte != b'%' => char::from(*byte).to_string(),
        byte => format!("%{byte:02x}"),
    });
    each.collect()
}
