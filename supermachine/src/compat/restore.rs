//! Descriptions of machines that go on from saved ones.

use super::{DEFAULT_EXEC_GUEST_PORT, ResourceError, VmResources, VolumeSpec};
use crate::{DEFAULT_GUEST_PORT, Error, Image, TcpForwarder, Trigger, Vm, VmConfig};
use std::ops::Deref;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages of 4 KiB in a MiB.
const PAGES_PER_MIB: usize = 256;
const BYTES_PER_MIB: u64 = 1 << 20;
/// Longest name that is made of a file's: it stays one of a volume with a number behind.
const MAX_NAME_CHARS: usize = 56;

/// A machine that goes on from a saved one, as [`VmResources::restore`] makes it.
#[derive(Debug)]
pub struct RestoredVm {
    vm: Vm,
    saved: Option<Image>,
    http: Option<TcpForwarder>,
    /// The sockets that were asked for, and what they lead to.
    links: Vec<(PathBuf, PathBuf)>,
}

impl RestoredVm {
    /// What was saved when the triggers had come, if there were any.
    pub fn saved(&self) -> Option<&Image> {
        self.saved.as_ref()
    }

    /// What leads to the guest's HTTP service, if that was asked for.
    pub fn http(&self) -> Option<&TcpForwarder> {
        self.http.as_ref()
    }
}

impl Deref for RestoredVm {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.vm
    }
}

impl Drop for RestoredVm {
    fn drop(&mut self) {
        for (link, to) in &self.links {
            // Somebody else may have the name by now.
            if std::fs::read_link(link).is_ok_and(|now| now == *to) {
                let _ = std::fs::remove_file(link);
            }
        }
    }
}

impl VmResources {
    /// Goes on from [`restore_from`](Self::restore_from), a directory of
    /// [`Vm::snapshot`] or of a bake, and returns when the machine serves commands and
    /// has been saved, if a trigger is set:
    ///
    /// | field | does |
    /// |---|---|
    /// | `balloon_target_pages` | the guest has so much less memory than the snapshot, rounded up to MiB |
    /// | `endpoints.vsock_mux`, `vsock_exec` | are links to the machine's sockets, as long as it lives |
    /// | `endpoints.http_port` | this port of the host's loopback interface leads to port 80 of the guest, as by [`Vm::expose_tcp`] |
    /// | `snapshot.after_ms`, `at_heartbeat`, `on_listener` | waits for it; for all of them, in this order. A listener is one on port 80 |
    /// | `snapshot.quiesce_ms` | then waits for so long |
    /// | `snapshot.out_path` | then saves the machine there, and has it go on |
    /// | `volumes` | each is mounted at its `guest_path`, as a [volume](VmConfig::with_volume) of the name of its file. One that is not there is made, with a file system, of its size in whole MiB; one that is there has to have a file system. The snapshot has to have a disk for each: [`crate::OciImageBuilder::volume_slots`] |
    /// | `cow_restore` | nothing: memory is always shared until it is written |
    /// | `memory_mib`, `vcpus`, kernel, initial RAM disk, command line | nothing: they are those of the snapshot, if `config` does not say otherwise |
    ///
    /// `config` says what a description cannot: engine, assets, name.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] for what a copy cannot have: block devices, a socket that
    /// takes over connections, another port of the agent, a port that is no number. Otherwise as
    /// [`Image::from_snapshot`], [`Image::start`] and [`Vm::snapshot`];
    /// [`Error::Host`] if a link cannot be made.
    pub fn restore(&self, config: &VmConfig) -> Result<RestoredVm, Error> {
        let path = self.restorable()?;
        let http_port = self.http_port()?;
        let image = Image::from_snapshot_with(path, config)?;
        let config = self.with_volumes(self.with_balloon(config, &image));
        let mut restored = RestoredVm {
            vm: image.start(&config)?,
            saved: None,
            http: None,
            links: Vec::new(),
        };
        let vm = &restored.vm;
        if let Some(port) = http_port {
            restored.http = Some(vm.expose_tcp(port, DEFAULT_GUEST_PORT)?);
        }
        let endpoints = &self.endpoints;
        let wanted = [
            (&endpoints.vsock_mux, vm.vsock_path()),
            (&endpoints.vsock_exec, vm.exec_path().to_owned()),
        ];
        for (link, to) in wanted {
            let Some(link) = link.as_ref().map(PathBuf::from) else {
                continue;
            };
            let failed = Error::host("cannot make the machine's socket known as", &link);
            symlink(&to, &link).map_err(failed)?;
            restored.links.push((link, to));
        }
        if let Some(directory) = &self.snapshot.out_path {
            restored.saved = self.save(&restored.vm, Path::new(directory))?;
        }
        Ok(restored)
    }

    /// The snapshot, if nothing is asked for that no copy has.
    fn restorable(&self) -> Result<&Path, Error> {
        self.validate_for_run()?;
        let refused = |what, needs| Err(Error::Unsuitable { what, needs });
        let endpoints = &self.endpoints;
        let agent = endpoints.vsock_exec_guest_port;
        if !self.block_devices.is_empty() {
            return refused(
                "a saved machine with block devices",
                "those it was saved with; files that it can write to are VmResources::volumes",
            );
        }
        if endpoints.vsock_mux_handoff.is_some() {
            return refused(
                "VmResources::vsock_mux_handoff",
                "somebody who connects to vsock_mux and passes the bytes on",
            );
        }
        if agent.is_some_and(|port| port != DEFAULT_EXEC_GUEST_PORT) {
            return refused("an agent of a saved machine", "the port it was saved with");
        }
        match &self.restore_from {
            Some(path) => Ok(Path::new(path)),
            None => Err(ResourceError::MissingKernel.into()),
        }
    }

    fn http_port(&self) -> Result<Option<u16>, Error> {
        let port = self.endpoints.http_port.as_deref();
        let port = port.map(str::parse).transpose();
        port.map_err(|_| Error::Unsuitable {
            what: "VmResources::http_port",
            needs: "a number of a TCP port",
        })
    }

    fn with_balloon(&self, config: &VmConfig, image: &Image) -> VmConfig {
        let pages = self.balloon_target_pages.unwrap_or(0);
        let Some(memory_mib) = config.memory_mib.or(image.memory_mib()) else {
            return config.clone();
        };
        match given_back_mib(pages) {
            0 => config.clone(),
            // What is too little is said where memory is checked.
            less => config
                .clone()
                .with_memory_mib(memory_mib.saturating_sub(less)),
        }
    }

    /// The published volumes as those of a machine here.
    fn with_volumes(&self, mut config: VmConfig) -> VmConfig {
        for volume in &self.volumes {
            let name = volume_name(volume, &config);
            let file = PathBuf::from(&volume.host_path);
            config.volume_files.insert(name.clone(), file);
            let spec = crate::VolumeSpec::new(name, &*volume.guest_path);
            let size_mib = volume.size_bytes.div_ceil(BYTES_PER_MIB);
            config.volumes.push(spec.with_size_mib(size_mib));
        }
        config
    }

    fn save(&self, vm: &Vm, directory: &Path) -> Result<Option<Image>, Error> {
        let snapshot = &self.snapshot;
        let triggers = [
            snapshot
                .after_ms
                .map(|ms| Trigger::After(Duration::from_millis(ms))),
            snapshot.at_heartbeat.map(Trigger::Heartbeat),
            snapshot.on_listener.then_some(Trigger::Listener),
        ];
        if triggers.iter().all(Option::is_none) {
            return Ok(None);
        }
        for trigger in triggers.into_iter().flatten() {
            trigger.await_in(vm, DEFAULT_GUEST_PORT)?;
        }
        std::thread::sleep(Duration::from_millis(snapshot.quiesce_ms));
        vm.snapshot(directory).map(Some)
    }
}

/// What a volume is called here: as its file, without what is in no name, and not as
/// another one of the machine.
fn volume_name(volume: &VolumeSpec, config: &VmConfig) -> String {
    let path = Path::new(&volume.host_path);
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name: String = file.chars().filter(plain).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = match name.is_empty() {
        true => "volume".to_owned(),
        false => name.chars().take(MAX_NAME_CHARS).collect(),
    };
    let is_free = |name: &String| config.volumes.iter().all(|other| other.name != *name);
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(is_free).unwrap_or(name)
}

/// Pages of 4 KiB as MiB, rounded up.
fn given_back_mib(pages: u32) -> usize {
    usize::try_from(pages)
        .unwrap_or(usize::MAX)
        .div_ceil(PAGES_PER_MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_copy_has_is_refused_before_anything_is_opened() {
        let saved = || VmResources::from_snapshot("/no/such/snapshot");
        let cases = [
            (
                VmResources::for_kernel("Image", "initrd"),
                "restore snapshot",
            ),
            (saved().with_vcpus(0), "vCPU count"),
            (saved().with_block_device("disk"), "VmResources::volumes"),
            (saved().with_http_port("http"), "TCP port"),
            (saved().with_vsock_mux_handoff("x"), "vsock_mux"),
            (saved().with_vsock_exec_guest_port(2000), "saved with"),
        ];
        for (resources, words) in cases {
            let error = resources.restore(&VmConfig::new()).unwrap_err();
            let text = crate::error::with_causes(&error);
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn volumes_are_files_under_names_of_their_own() {
        let volume = |file: &str| VolumeSpec::new(file, "/v").with_size_bytes((64 << 20) + 1);
        let long = format!("/d/{}", "n".repeat(200));
        let mut resources = VmResources::new();
        let paths = ["/a/data.img", "/b/data.img", "/c/ü x.img", "/", "..", &long];
        for path in paths {
            resources = resources.with_volume(volume(path));
        }
        let config = VmConfig::new().with_volume(crate::VolumeSpec::new("volume", "/other"));
        let config = resources.with_volumes(config);
        crate::volume::validate(&config.volumes).unwrap();
        let of_store = &config.volumes[0];
        assert!(!config.volume_files.contains_key(&of_store.name));
        let long = "n".repeat(MAX_NAME_CHARS);
        let names = [
            "data.img",
            "data.img-2",
            "x.img",
            "volume-2",
            "volume-3",
            &*long,
        ];
        for ((spec, name), path) in config.volumes[1..].iter().zip(names).zip(paths) {
            assert_eq!((&*spec.name, spec.size_mib), (name, Some(65)));
            assert_eq!(config.volume_files[name], Path::new(path));
        }
    }

    #[test]
    fn pages_given_back_are_whole_mebibytes() {
        let mib = [0, 1, 256, 257, u32::MAX].map(given_back_mib);
        assert_eq!(mib, [0, 1, 1, 2, 1 << 24]);
    }
}
