//! Who made a snapshot, and whether it can run here.

use crate::error::cap;
use crate::limits::{MAX_CPU_REGISTERS, MAX_STRING_BYTES};
use crate::{Result, SnapshotError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The engine that ran the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The software processor: its snapshots run on every host.
    Soft,
    /// Apple's Hypervisor.framework.
    Hvf,
    /// Linux KVM.
    Kvm,
}

impl Engine {
    /// The engine's byte in a magic number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Soft => 1,
            Self::Hvf => 2,
            Self::Kvm => 3,
        }
    }

    /// The engine of a magic number's byte.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Soft),
            2 => Some(Self::Hvf),
            3 => Some(Self::Kvm),
            _ => None,
        }
    }

    /// Whether what the host's pages are like may change between capture and
    /// restore.
    const fn is_portable(self) -> bool {
        matches!(self, Self::Soft)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Soft => "soft",
            Self::Hvf => "hvf",
            Self::Kvm => "kvm",
        })
    }
}

/// The guest's processor architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit Arm.
    Aarch64,
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
}

impl Architecture {
    /// The architecture's byte in a magic number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Aarch64 => 1,
            Self::X86_64 => 2,
        }
    }

    /// The architecture of a magic number's byte.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Aarch64),
            2 => Some(Self::X86_64),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
        })
    }
}

/// What the guest has seen of the machine under it. Written at capture, and
/// made again by whoever wants to restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// The engine.
    pub engine: Engine,
    /// The architecture.
    pub architecture: Architecture,
    /// Version of the Arm interrupt controller, 0 where there is none.
    pub gic_version: u8,
    /// Ticks per second of the guest's counter.
    pub counter_hz: u64,
    /// Granule of the mapping of guest memory in bytes. Only compared for
    /// engines that use the host's.
    pub granule_bytes: u32,
    /// CPU feature registers (`ID_AA64*`) by name.
    pub cpu: BTreeMap<String, u64>,
    /// Hash of the guest kernel.
    pub kernel: String,
    /// Hash of the guest's init and agent.
    pub init: String,
    /// Version of the software that wrote the snapshot; told, not compared.
    pub producer: String,
}

impl Stamp {
    /// Whether a machine with this stamp runs on a host with stamp `here`.
    ///
    /// # Errors
    /// The first difference found.
    pub fn check(&self, here: &Self) -> Result<()> {
        if self.engine != here.engine {
            return Err(SnapshotError::WrongEngine {
                found: self.engine,
                here: here.engine,
            });
        }
        if self.architecture != here.architecture {
            return Err(SnapshotError::WrongArchitecture {
                found: self.architecture,
                here: here.architecture,
            });
        }
        same("GIC version", self.gic_version, here.gic_version)?;
        same("counter frequency", self.counter_hz, here.counter_hz)?;
        if !self.engine.is_portable() {
            same("page granule", self.granule_bytes, here.granule_bytes)?;
        }
        same("kernel", &self.kernel, &here.kernel)?;
        same("init", &self.init, &here.init)?;
        for name in self.cpu.keys().chain(here.cpu.keys()) {
            let (found, here) = (self.cpu.get(name), here.cpu.get(name));
            if found != here {
                let shown = |value: Option<&u64>| {
                    value.map_or_else(|| "absent".to_owned(), |value| format!("{value:#x}"))
                };
                return Err(SnapshotError::WrongHost {
                    field: name.clone(),
                    found: shown(found),
                    here: shown(here),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn validate(&self) -> Result<()> {
        cap(
            "number of CPU registers",
            self.cpu.len() as u64,
            MAX_CPU_REGISTERS as u64,
        )?;
        let texts = [&self.kernel, &self.init, &self.producer];
        for text in texts.into_iter().chain(self.cpu.keys()) {
            cap("string", text.len() as u64, MAX_STRING_BYTES as u64)?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + fmt::Display>(field: &str, found: T, here: T) -> Result<()> {
    if found == here {
        return Ok(());
    }
    Err(SnapshotError::WrongHost {
        field: field.to_owned(),
        found: found.to_string(),
        here: here.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stamp;

    #[test]
    fn software_snapshot_does_not_care_about_the_page_size_of_the_host() {
        let here = Stamp {
            granule_bytes: 16384,
            ..stamp()
        };
        assert!(stamp().check(&here).is_ok());
        let hvf = |granule_bytes| Stamp {
            engine: Engine::Hvf,
            granule_bytes,
            ..stamp()
        };
        assert!(hvf(4096).check(&hvf(16384)).is_err());
    }

    #[test]
    fn every_difference_is_named() {
        type Change = (&'static str, fn(&mut Stamp));
        let changes: [Change; 6] = [
            ("engine", |stamp| stamp.engine = Engine::Hvf),
            ("architecture", |stamp| {
                stamp.architecture = Architecture::X86_64;
            }),
            ("GIC version", |stamp| stamp.gic_version = 2),
            ("counter frequency", |stamp| stamp.counter_hz += 1),
            ("kernel", |stamp| stamp.kernel.push('x')),
            ("ID_AA64ZFR0_EL1", |stamp| {
                stamp.cpu.insert("ID_AA64ZFR0_EL1".into(), 1);
            }),
        ];
        for (name, change) in changes {
            let mut here = stamp();
            change(&mut here);
            for error in [stamp().check(&here), here.check(&stamp())] {
                let error = error.unwrap_err();
                assert!(error.to_string().contains(name), "{error}");
                assert!(error.wants_rebake());
            }
        }
    }
}
