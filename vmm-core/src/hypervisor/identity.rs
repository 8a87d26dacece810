use std::collections::BTreeMap;
use std::fmt;

/// Which engine made a machine, so that its snapshots go to no other. The set
/// is open: whoever adds an engine gives it a name, which never changes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EngineId(&'static str);

impl EngineId {
    /// Apple's Hypervisor.framework.
    pub const FRAMEWORK: Self = Self("hvf");
    /// A processor in software, the same on every host.
    pub const SOFTWARE: Self = Self("soft");

    /// An engine from elsewhere: lower-case letters, digits and hyphens.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Its name in snapshots.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What guests see of the processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuIdentity {
    /// Identification registers, by name.
    pub registers: BTreeMap<String, u64>,
    /// Rate of the guest's counter in Hz.
    pub counter_hz: u64,
}
