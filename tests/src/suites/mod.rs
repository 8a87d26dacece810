//! Suites of others for file systems, on a mount in a guest: of ours with and without
//! mapped files, and of QEMU with our device by vhost-user and with the distribution's
//! virtiofsd.

pub mod pjdfstest;
pub mod programs;
pub mod qemu;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_bake::{BakeOptions, Reference, Store, bake};
use supermachine::{DaxPolicy, Image, MountSpec, Vm};

use crate::{config, target_dir};
use qemu::{Daemon, Machine};

/// Where a guest has the directory.
pub const SHARE: &str = "/share";
/// Where it has the programs.
pub const PROGRAMS: &str = "/suite";
/// Users that pjdfstest does things as, besides root.
const PASSWD: &str = "root:x:0:0::/root:/bin/sh\n\
    nobody:x:65534:65534::/:/bin/sh\n\
    one:x:2000:2000::/:/bin/sh\n\
    two:x:2001:2001::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\none:x:2000:\ntwo:x:2001:\n";

/// Memory of a guest: npm needs most of it.
const MEMORY_MIB: u16 = 1024;

/// How a suite went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many of its tests passed.
    pub passed: usize,
    /// Those that need what the guest does not have.
    pub skipped: Vec<String>,
    /// The others, with what they say.
    pub failed: BTreeMap<String, String>,
}

/// Who has the directory in a guest, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A machine of ours.
    Ours,
    /// One that maps files instead of reading them.
    OursMapped,
    /// QEMU, with our device.
    OursInQemu,
    /// QEMU, with the distribution's.
    Virtiofsd,
}

impl Side {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Ours,
        Self::OursMapped,
        Self::OursInQemu,
        Self::Virtiofsd,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursMapped => "ours-dax",
            Self::OursInQemu => "ours-qemu",
            Self::Virtiofsd => "virtiofsd",
        }
    }
}

/// A program for guests: its name and its bytes.
pub type Program = (String, Vec<u8>);

/// What guests have: the layout of their image, its layers as files that can be mounted,
/// and the programs beside it, of which one is busybox.
pub struct Kit {
    /// The image.
    pub layout: PathBuf,
    /// Its layers, the lowest first.
    pub layers: Vec<PathBuf>,
    /// The programs.
    pub programs: Vec<Program>,
}

impl Kit {
    /// Of an image, whose layers it makes unless they are there.
    ///
    /// # Errors
    /// A text of what failed.
    pub fn of(layout: PathBuf, programs: Vec<Program>) -> Result<Self, String> {
        let store = Store::open(target_dir().join("suites/layers")).map_err(|e| e.to_string())?;
        let reference = format!("oci:{}", layout.display());
        let reference = Reference::parse(&reference).map_err(|e| e.to_string())?;
        let image = bake(&reference, &BakeOptions::default(), &store);
        let layers = image.map_err(|e| e.to_string())?.layers;
        Ok(Self {
            layout,
            layers,
            programs,
        })
    }
}

/// A guest with the directory mounted, the programs and the users.
pub enum Place {
    /// A machine of ours.
    Ours(Box<Vm>),
    /// A machine of QEMU's.
    Qemu(Machine),
}

impl Place {
    /// Starts one that has `shared`.
    ///
    /// # Errors
    /// A text of what failed.
    pub fn start(side: Side, shared: &Path, kit: &Kit) -> Result<Self, String> {
        let daemon = match side {
            Side::Ours | Side::OursMapped => {
                let vm = ours(side == Side::OursMapped, shared, kit)?;
                return Ok(Self::Ours(Box::new(vm)));
            }
            Side::OursInQemu => Daemon::ours(shared)?,
            Side::Virtiofsd => Daemon::distribution(shared)?,
        };
        let users = [("etc/passwd", PASSWD), ("etc/group", GROUP)];
        Machine::start(daemon, kit, &users).map(Self::Qemu)
    }

    /// What a command line of the shell writes, with its exit status as the last line.
    ///
    /// # Errors
    /// A text, if the guest does not come to an end with it.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<String, String> {
        match self {
            Self::Ours(vm) => {
                let command = format!("({command}) 2>&1; echo $?");
                let run = vm.exec_builder().argv(["/bin/sh", "-c", &command]);
                let outcome = run.timeout(limit).output().map_err(|e| e.to_string())?;
                match outcome.timed_out {
                    true => Err(format!("it took longer than {limit:?}")),
                    false => Ok(String::from_utf8_lossy(&outcome.stdout).into_owned()),
                }
            }
            Self::Qemu(machine) => machine.run(command, limit),
        }
    }
}

fn ours(is_mapped: bool, shared: &Path, kit: &Kit) -> Result<Vm, String> {
    let mut mount = MountSpec::new(shared, "share")
        .at(SHARE)
        .with_recorded_owners();
    if is_mapped {
        mount = mount.with_dax(DaxPolicy::Always).with_dax_window_mib(256);
    }
    let config = config()
        .with_memory_mib(MEMORY_MIB.into())
        .with_mount(mount);
    let image = Image::load(&format!("oci:{}", kit.layout.display())).map_err(|e| e.to_string())?;
    let vm = image.start(&config).map_err(|e| e.to_string())?;
    let named = |(name, bytes): &Program| (format!("{PROGRAMS}/{name}"), bytes.clone(), 0o755);
    let mut files: Vec<_> = kit.programs.iter().map(named).collect();
    files.push(("/etc/passwd".into(), PASSWD.into(), 0o644));
    files.push(("/etc/group".into(), GROUP.into(), 0o644));
    for (path, bytes, mode) in files {
        let staged = vm.exec_builder().stage_file_mode(path.clone(), bytes, mode);
        let done = staged.argv(["true"]).output().map_err(|e| e.to_string())?;
        if !done.success() {
            return Err(format!("cannot put {path} into the guest: {done:?}"));
        }
    }
    Ok(vm)
}
