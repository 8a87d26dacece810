//! What `/dev/kvm` of this host can do, told without running a guest on it.

use std::io;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvmFinding {
    /// The host is not Linux.
    #[error("not a Linux host")]
    NotLinux,
    /// There is no such device.
    #[error("/dev/kvm is missing: no hardware virtualization, or its module is not loaded")]
    Missing,
    /// The device may not be opened.
    #[error("/dev/kvm is forbidden to this user: join its group, or run as root")]
    Forbidden,
    /// The device does not work.
    #[error("/dev/kvm is there but fails (error {0})")]
    Broken(i32),
    /// Guest kernel code is emulated: nested virtualization without hardware
    /// support. Million instructions per second.
    #[error(
        "/dev/kvm emulates guest kernel code, about {0} million instructions per second: \
         no kernel boots on it in useful time"
    )]
    Emulates(u64),
    /// Guest kernel code runs on the hardware.
    #[error("/dev/kvm runs guest code natively; this version has no engine for it yet")]
    Native,
    /// The device opens. It is measured on x86-64 only, and with the feature `kvm`.
    #[error("/dev/kvm opens; this version has no engine for it yet")]
    Unmeasured,
}

/// Below this, guest code is being emulated; the slowest hardware is far above.
#[cfg(all(feature = "kvm", target_os = "linux", target_arch = "x86_64"))]
const NATIVE_INSTRUCTIONS_PER_SECOND: u64 = 100_000_000;

/// Looks at `/dev/kvm`, and measures it where it opens. Takes some tens of
/// milliseconds on a host that emulates.
pub fn probe() -> KvmFinding {
    if !cfg!(target_os = "linux") {
        return KvmFinding::NotLinux;
    }
    match std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        Ok(_) => measure(),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => KvmFinding::Missing,
            io::ErrorKind::PermissionDenied => KvmFinding::Forbidden,
            _ => KvmFinding::Broken(error.raw_os_error().unwrap_or(0)),
        },
    }
}

#[cfg(all(feature = "kvm", target_os = "linux", target_arch = "x86_64"))]
fn measure() -> KvmFinding {
    match super::kvm_speed::instructions_per_second() {
        Ok(rate) if rate < NATIVE_INSTRUCTIONS_PER_SECOND => {
            KvmFinding::Emulates(rate.div_ceil(1_000_000))
        }
        Ok(_) => KvmFinding::Native,
        Err(errno) => KvmFinding::Broken(errno),
    }
}

#[cfg(not(all(feature = "kvm", target_os = "linux", target_arch = "x86_64")))]
fn measure() -> KvmFinding {
    KvmFinding::Unmeasured
}
