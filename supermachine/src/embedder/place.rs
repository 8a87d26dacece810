//! Where a machine is found by others.

use crate::link::protocol::Setup;
use crate::link::runtime_dir::RuntimeDir;
use crate::link::sockets::stem;
use crate::{Error, VmConfig};
use exec_proto::READY_PORT;
use std::ffi::OsString;
use std::os::unix::net::UnixListener;

// The machine lets only privileged processes of the guest call there.
const _: () = assert!(READY_PORT == vmm_core::spec::AGENT_HOST_PORT);

/// The directory with the names of a machine's sockets.
pub struct Place {
    pub dir: RuntimeDir,
    /// Where the machine's agent calls.
    pub ready: UnixListener,
}

impl Place {
    pub fn make() -> Result<Self, Error> {
        let dir = RuntimeDir::create()?;
        let mut path = OsString::from(stem(dir.path()));
        path.push(format!("_{READY_PORT}"));
        let ready = UnixListener::bind(&path)
            .and_then(|ready| ready.set_nonblocking(true).map(|()| ready))
            .map_err(Error::host("cannot listen on", path))?;
        Ok(Self { dir, ready })
    }

    /// What a worker there is to prepare.
    pub fn setup(&self, config: &VmConfig, vcpus: u32) -> Setup {
        Setup {
            engine: config.engine,
            tier: config.tier,
            vcpus,
            runtime_dir: self.dir.path().to_path_buf(),
            console: config.console,
        }
    }
}
