//! The `sm.*` keys of the kernel command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::network::Interface;

/// Where the writable upper layer lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upper {
    /// Memory, up to this many MiB; by default half of what the guest has.
    Memory {
        /// Size limit in MiB.
        limit_mib: Option<u64>,
    },
    /// A block device with an ext4 file system.
    Disk(PathBuf),
}

/// What the guest may do to a directory of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Change it.
    ReadWrite,
    /// Read it.
    ReadOnly,
    /// Read it, and change what it sees of it, in memory.
    CopyOnWrite,
}

/// A directory of the host, or one file, that is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedDirectory {
    /// What its device calls it.
    pub tag: String,
    /// What may be done to it.
    pub access: Access,
    /// Where it is to be.
    pub place: PathBuf,
    /// It is one file, which its device has by the name `file`.
    pub is_file: bool,
}

/// What the host wants of the boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Number of read-only squashfs layers, on `/dev/vda` upwards, lowest first.
    /// Without any the initramfs stays the root.
    pub layers: usize,
    /// The machine gets its layers, and then these options once more, from its host when
    /// it runs.
    pub root_later: bool,
    /// The writable layer.
    pub upper: Upper,
    /// Most processes of one command.
    pub process_limit: Option<u64>,
    /// Host name.
    pub hostname: Option<String>,
    /// Name servers for `/etc/resolv.conf`.
    pub dns: Vec<String>,
    /// The network interface, if there is one.
    pub network: Option<Interface>,
    /// Directories of the host, in the order they are mounted in. Given as
    /// `sm.mount=TAG:rw:PLACE`, with `ro` for what is only read and `cow` for what is
    /// changed in memory alone, or `rw-file` and `ro-file` if it is one file; any number of
    /// times, with bytes of the place as `%` and
    /// two hexadecimal digits where they must be.
    pub mounts: Vec<SharedDirectory>,
    /// Commands to run one after the other instead of serving, their output to
    /// the console. Given as `sm.selftest=PROGRAM,ARG,…`, any number of times.
    pub selftest: Vec<Vec<String>>,
}

/// Most layers: the kernel's limit for an overlay (`OVL_MAX_STACK`).
const MAX_LAYERS: usize = 500;

/// A value on the command line that means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadOption {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

impl std::fmt::Display for BadOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bad value for {}: {:?}", self.key, self.value)
    }
}

impl std::error::Error for BadOption {}

/// True for what may stand in a host name or address.
fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'%'))
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::to_owned).collect()
}

fn shared_directory(value: &str) -> Option<SharedDirectory> {
    let (tag, rest) = value.split_once(':')?;
    let (access, place) = rest.split_once(':')?;
    let (access, is_file) = match access {
        "rw" => (Access::ReadWrite, false),
        "ro" => (Access::ReadOnly, false),
        "cow" => (Access::CopyOnWrite, false),
        "rw-file" => (Access::ReadWrite, true),
        "ro-file" => (Access::ReadOnly, true),
        _ => return None,
    };
    let place = unescaped(place)?;
    // It names a directory, too.
    let is_name = !matches!(tag, "" | "." | "..") && !tag.contains('/');
    (is_name && place.first() == Some(&b'/')).then(|| SharedDirectory {
        tag: tag.to_owned(),
        access,
        place: OsString::from_vec(place).into(),
        is_file,
    })
}

/// The bytes that a value stands for.
fn unescaped(value: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        rest = after;
        let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        // It would end the path.
        if byte == 0 {
            return None;
        }
        bytes.push(byte);
    }
    Some(bytes)
}

impl Options {
    /// Reads a kernel command line; keys of others are ignored, as is anything
    /// the kernel itself understands.
    ///
    /// # Errors
    /// The first `sm.*` key that is unknown or has a bad value.
    pub fn parse(command_line: &str) -> Result<Self, BadOption> {
        let mut options = Self {
            layers: 0,
            root_later: false,
            upper: Upper::Memory { limit_mib: None },
            process_limit: None,
            hostname: None,
            dns: Vec::new(),
            network: None,
            mounts: Vec::new(),
            selftest: Vec::new(),
        };
        let mut memory_limit = None;
        for word in command_line.split_ascii_whitespace() {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let Some(name) = key.strip_prefix("sm.") else {
                continue;
            };
            let bad = || BadOption {
                key: key.to_owned(),
                value: value.to_owned(),
            };
            match name {
                "layers" => {
                    let count = value.parse().ok();
                    options.layers = count.filter(|n| *n <= MAX_LAYERS).ok_or_else(bad)?;
                }
                "root" if value == "later" => options.root_later = true,
                "upper" if value == "tmpfs" => options.upper = Upper::Memory { limit_mib: None },
                "upper" => {
                    let name = value.strip_prefix("/dev/").filter(|n| is_plain(n));
                    name.ok_or_else(bad)?;
                    options.upper = Upper::Disk(value.into());
                }
                "upper_mib" => {
                    let mib = value.parse().ok().filter(|mib| *mib > 0);
                    memory_limit = Some(mib.ok_or_else(bad)?);
                }
                "processes" => {
                    let limit = value.parse().ok().filter(|limit| *limit > 0);
                    options.process_limit = Some(limit.ok_or_else(bad)?);
                }
                "hostname" if is_plain(value) && value.len() <= 64 => {
                    options.hostname = Some(value.to_owned());
                }
                "dns" => {
                    options.dns = list(value);
                    if !options.dns.iter().all(|server| is_plain(server)) {
                        return Err(bad());
                    }
                }
                "net" => options.network = Some(Interface::parse(value).ok_or_else(bad)?),
                "mount" => options
                    .mounts
                    .push(shared_directory(value).ok_or_else(bad)?),
                "selftest" if !value.is_empty() => options.selftest.push(list(value)),
                _ => return Err(bad()),
            }
        }
        if let Upper::Memory { limit_mib } = &mut options.upper {
            *limit_mib = memory_limit;
        }
        Ok(options)
    }
}

/// Name of the `index`-th virtio disk: vda to vdz, then vdaa and so on.
#[must_use]
pub fn disk_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        letters.push(char::from(b"abcdefghijklmnopqrstuvwxyz"[rest % 26]));
        rest /= 26;
        if rest == 0 {
            break;
        }
        rest -= 1;
    }
    letters.push('d');
    letters.push('v');
    letters.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_among_those_of_others() {
        let line = "console=ttyAMA0 quiet sm.layers=3 sm.upper=/dev/vdd sm.hostname=box-1 \
                    sm.processes=300 sm.dns=1.1.1.1,fe80::1%eth0 root=/dev/ram sm.selftest=/bin/uname,-a\n";
        let options = Options::parse(line).unwrap();
        assert_eq!(options.layers, 3);
        assert_eq!(options.upper, Upper::Disk("/dev/vdd".into()));
        assert_eq!(options.hostname.as_deref(), Some("box-1"));
        assert_eq!(options.process_limit, Some(300));
        assert_eq!(options.dns, ["1.1.1.1", "fe80::1%eth0"]);
        assert_eq!(options.selftest, [["/bin/uname", "-a"]]);
    }

    #[test]
    fn directories_are_mounted_in_their_order_and_at_any_place() {
        let line = "sm.mount=a:rw:/work%20dir/%25%ff sm.mount=b.c:ro:/ro sm.mount=d:cow:/d \
                    sm.mount=e:rw-file:/e sm.mount=f:ro-file:/f";
        let mounts = Options::parse(line).unwrap().mounts;
        let expected = [
            ("a", Access::ReadWrite, &b"/work dir/%\xff"[..], false),
            ("b.c", Access::ReadOnly, b"/ro", false),
            ("d", Access::CopyOnWrite, b"/d", false),
            ("e", Access::ReadWrite, b"/e", true),
            ("f", Access::ReadOnly, b"/f", true),
        ];
        assert_eq!(mounts.len(), expected.len());
        for (mount, (tag, access, place, is_file)) in mounts.iter().zip(expected) {
            assert_eq!((&*mount.tag, mount.access), (tag, access));
            assert_eq!(mount.is_file, is_file);
            assert_eq!(mount.place.as_os_str().as_encoded_bytes(), place);
        }
    }

    #[test]
    fn nothing_given_means_initramfs_and_memory() {
        let options = Options::parse("quiet").unwrap();
        assert_eq!(options.layers, 0);
        assert!(!options.root_later);
        assert!(Options::parse("sm.root=later").unwrap().root_later);
        assert_eq!(options.upper, Upper::Memory { limit_mib: None });
        let options = Options::parse("sm.upper_mib=64 sm.upper=tmpfs").unwrap();
        assert_eq!(
            options.upper,
            Upper::Memory {
                limit_mib: Some(64)
            }
        );
    }

    #[test]
    fn bad_values_and_unknown_keys_are_named() {
        for word in [
            "sm.layers=x",
            "sm.layers=501",
            "sm.layers=-1",
            "sm.root=",
            "sm.root=now",
            "sm.upper=vdb",
            "sm.upper=/dev/../etc",
            "sm.upper_mib=0",
            "sm.processes=0",
            "sm.processes=many",
            "sm.hostname=",
            "sm.hostname=a/b",
            "sm.dns=a,,b",
            "sm.net=",
            "sm.net=10.0.0.2/8",
            "sm.selftest=",
            "sm.mount=",
            "sm.mount=tag",
            "sm.mount=tag:rw:",
            "sm.mount=tag:rw:work",
            "sm.mount=tag:wo:/work",
            "sm.mount=tag:cow-file:/work",
            "sm.mount=:rw:/work",
            "sm.mount=..:rw:/work",
            "sm.mount=a/b:rw:/work",
            "sm.mount=tag:rw:/%",
            "sm.mount=tag:rw:/%4",
            "sm.mount=tag:rw:/%zz",
            "sm.mount=tag:rw:/%00",
            "sm.nonsense=1",
        ] {
            let error = Options::parse(word).unwrap_err();
            assert!(word.starts_with(&error.key), "{error}");
        }
    }

    #[test]
    fn disks_are_named_as_the_kernel_names_them() {
        let names = [0, 1, 25, 26, 27, 51, 52, 499].map(disk_name);
        let expected = ["vda", "vdb", "vdz", "vdaa", "vdab", "vdaz", "vdba", "vdsf"];
        assert_eq!(names, expected);
    }
}
