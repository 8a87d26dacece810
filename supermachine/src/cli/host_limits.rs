//! What a machine may take of its host.

use super::values;
use crate::VmConfig;

#[derive(clap::Args)]
pub struct HostLimits {
    /// Most memory of this host that the machine's process may have, in MiB or with a
    /// unit; on Linux, where the user may make control groups
    #[arg(long, value_name = "MIB", value_parser = values::memory_mib)]
    host_memory: Option<usize>,
    /// Most processors of this host that the machine's process gets, as 0.5; on Linux,
    /// where the user may make control groups
    #[arg(long, value_name = "N")]
    host_cpus: Option<f64>,
}

impl HostLimits {
    /// What these options say, added to a configuration.
    pub fn add_to(&self, mut config: VmConfig) -> VmConfig {
        if let Some(memory_mib) = self.host_memory {
            config = config.with_host_memory_mib(memory_mib as u64);
        }
        if let Some(cpus) = self.host_cpus {
            config = config.with_host_cpus(cpus);
        }
        config
    }
}
