//! Puts devices behind windows and interrupts, as the description asks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use devices::reactor::Reactor;
use devices::virtio::balloon::BalloonState;
use devices::virtio::blk::{Blk, BlkConfig, BlkState};
use devices::virtio::fs::{DaxPolicy, Fs, FsConfig, FsParts, FsState, HostEdits};
use devices::virtio::mem::MemState;
use devices::virtio::mmio::{MmioCounters, VirtioMmio};
use devices::virtio::net::NetState;
use devices::virtio::rng::{Rng, RngState};
use devices::virtio::vsock::{Vsock, VsockConfig, VsockListener, VsockState};
use devices::virtio::{DeviceState, StateFormat, Traffic, VirtioDevice};
use devices::{Bus, IrqLine, MmioDevice};

use super::elastic::Elastic;
use super::error::MachineError;
use super::events::DeviceEvents;
use super::line::VmLine;
use super::window::Windows;
use crate::arch::{Arch, Board, VirtioSlots};
use crate::hypervisor::DynVm;
use crate::memory::GuestMemory;
use crate::spec::{AGENT_HOST_PORT, Endpoints, HostFile, Network, Overlay, Share, Volume};
use crate::watch;

/// The guest's vsock context id: the first that is not reserved. Each machine
/// has its own host side, so that all can have the same.
pub const GUEST_CID: u64 = 3;
/// Devices that every machine has, and what states they take: sockets, random
/// numbers, balloon and memory.
const FIXED_FORMATS: [StateFormat; FIXED_VIRTIO] = [
    VsockState::FORMAT,
    RngState::FORMAT,
    BalloonState::FORMAT,
    MemState::FORMAT,
];
pub(super) const FIXED_VIRTIO: usize = 4;

/// How often things happened at one virtio device since its machine was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceCounters {
    /// Which device it is, by its place in the layout.
    pub slot: u32,
    /// What it is, as saved state names it: `blk`, `vsock`.
    pub kind: &'static str,
    /// What its transport counted.
    pub mmio: MmioCounters,
    /// What it has moved; `None` of devices that do not count that.
    pub traffic: Option<Traffic>,
}

/// The states that devices take, by slot: those that every machine has, disks,
/// directories of the host, and the network, if there is one.
pub(super) fn virtio_formats(disks: u32, shares: u32) -> impl Iterator<Item = StateFormat> {
    let repeat = |format, count: u32| std::iter::repeat_n(format, count as usize);
    FIXED_FORMATS
        .into_iter()
        .chain(repeat(BlkState::FORMAT, disks))
        .chain(repeat(FsState::FORMAT, shares))
        .chain(std::iter::once(NetState::FORMAT))
}

/// The devices of a machine, by what saves and restores them.
pub(super) struct Devices {
    pub(super) board: Arc<dyn Board>,
    /// By slot.
    pub(super) virtio: Vec<Arc<VirtioMmio>>,
    /// Two of these, to be told what to do.
    pub(super) elastic: Elastic,
}

impl Devices {
    /// How often things happened at each virtio device.
    pub(super) fn counters(&self) -> Vec<DeviceCounters> {
        (0..)
            .zip(&self.virtio)
            .map(|(slot, device)| DeviceCounters {
                slot,
                kind: device.state_format().kind,
                mmio: device.counters(),
                traffic: device.traffic(),
            })
            .collect()
    }
}

/// The devices that do not depend on what the machine runs.
pub(super) struct EarlyDevices {
    board: Arc<dyn Board>,
    vsock: Vsock,
}

impl EarlyDevices {
    pub(super) fn new(
        arch: &dyn Arch,
        vm: &Arc<dyn DynVm>,
        endpoints: &Endpoints,
        reactor: Arc<dyn Reactor>,
        console: Box<dyn Write + Send>,
    ) -> Result<Self, MachineError> {
        Ok(Self {
            board: arch.board(&|intid| line(vm, intid), console),
            vsock: Vsock::new(vsock_config(endpoints), reactor)?,
        })
    }

    /// Puts all devices behind windows and interrupts.
    pub(super) fn complete(
        self,
        arch: &dyn Arch,
        vm: &Arc<dyn DynVm>,
        memory: &GuestMemory,
        others: Vec<Box<dyn VirtioDevice>>,
    ) -> Result<(Bus, Devices), MachineError> {
        let layout = arch.layout();
        let elastic = Elastic::new(layout, memory)?;
        let mut windows: Vec<(u64, u64, Arc<dyn MmioDevice>)> = self.board.windows();
        let fixed: Vec<Box<dyn VirtioDevice>> = vec![
            Box::new(self.vsock),
            Box::new(Rng::host()),
            Box::new(elastic.balloon.clone()),
            Box::new(elastic.mem.clone()),
        ];
        let mut virtio = Vec::new();
        for (slot, device) in (0..).zip(fixed.into_iter().chain(others)) {
            let line = line(vm, layout.virtio.line_of(slot));
            let events = DeviceEvents::new(slot, device.state_format().kind);
            let transport = Arc::new(VirtioMmio::with_events(
                memory.ram().clone(),
                line,
                device,
                Box::new(events),
            ));
            windows.push((
                layout.virtio.address_of(slot),
                layout.virtio.window_bytes,
                transport.clone(),
            ));
            virtio.push(transport);
        }
        let mut bus = Bus::new();
        for (base, len, device) in windows {
            bus.insert(base, len, device)
                .expect("the layout's windows are apart");
        }
        let devices = Devices {
            board: self.board,
            virtio,
            elastic,
        };
        Ok((bus, devices))
    }
}

fn line(vm: &Arc<dyn DynVm>, intid: u32) -> Arc<dyn IrqLine> {
    Arc::new(VmLine {
        vm: vm.clone(),
        intid,
    })
}

/// How many virtio devices a machine with `others` beside the fixed ones has, each
/// with an interrupt below `end_line`.
pub(super) fn virtio_count(
    slots: &VirtioSlots,
    others: usize,
    end_line: u32,
) -> Result<u32, MachineError> {
    let devices = FIXED_VIRTIO.saturating_add(others);
    let max = end_line.saturating_sub(slots.first_line).min(slots.max);
    u32::try_from(devices)
        .ok()
        .filter(|count| *count <= max)
        .ok_or(MachineError::TooManyDevices { devices, max })
}

/// The devices that not every machine has, in order: read-only disks, volumes,
/// directories of the host, and the network.
pub(super) fn open_others(
    disks: &[HostFile],
    volumes: &[Volume],
    shares: &[Share],
    network: Option<&Network>,
    windows: Windows<'_>,
) -> Result<Vec<Box<dyn VirtioDevice>>, MachineError> {
    let mut others = open_disks(disks, volumes)?;
    others.extend(open_shares(shares, windows)?);
    if let Some(network) = network {
        others.push(Box::new(network.device()));
    }
    Ok(others)
}

/// Opens read-only disks and volumes.
pub(super) fn open_disks(
    read_only: &[HostFile],
    volumes: &[Volume],
) -> Result<Vec<Box<dyn VirtioDevice>>, MachineError> {
    let mut disks: Vec<Box<dyn VirtioDevice>> = Vec::new();
    for (n, host) in read_only.iter().enumerate() {
        let path = host.name();
        let file = host
            .to_file()
            .and_then(disk_file)
            .map_err(|source| disk_error(path, source))?;
        let id = format!("block{n}");
        disks.push(disk(path, Content::File(file), Kind::ReadOnly, id)?);
    }
    for (n, volume) in volumes.iter().enumerate() {
        let content = match &volume.overlay {
            Some(overlay) => Content::Overlay(overlay.clone()),
            None => Content::File(open_volume(volume)?),
        };
        let id = format!("volume{n}");
        disks.push(disk(volume.file.name(), content, Kind::Volume, id)?);
    }
    Ok(disks)
}

/// Opens directories of the host.
pub(super) fn open_shares(
    shares: &[Share],
    mut windows: Windows<'_>,
) -> Result<Vec<Box<dyn VirtioDevice>>, MachineError> {
    let mut open = |share: &Share| -> Result<Box<dyn VirtioDevice>, MachineError> {
        let path = share.directory.name();
        let directory = share.directory.to_file();
        let directory = directory.map_err(|source| disk_error(path, source))?;
        let parts = FsParts {
            window: match share.dax {
                None => None,
                Some(dax) => Some(windows.take(dax.window_bytes)?),
            },
            watch: match share.watched {
                true => watch::of(&directory),
                false => None,
            },
        };
        let config = FsConfig {
            read_only: share.read_only,
            symlinks: share.symlinks,
            owners: share.owners.clone(),
            dax: share.dax.map_or(DaxPolicy::default(), |dax| dax.policy),
            // The queue is there in any case: copies may be told though the machine that
            // they were copied from was not.
            edits: match share.watched {
                true => HostEdits::Told,
                false => HostEdits::Untold,
            },
            open_files: share.open_files,
            ..FsConfig::new(&*share.tag)
        };
        match Fs::with_parts(directory.into(), config, parts) {
            Ok(fs) => Ok(Box::new(fs)),
            Err(source) => Err(MachineError::Share {
                path: path.to_owned(),
                source,
            }),
        }
    };
    shares.iter().map(&mut open).collect()
}

fn vsock_config(endpoints: &Endpoints) -> VsockConfig {
    let listeners = endpoints.exec.iter().map(|socket| VsockListener {
        socket: socket.clone(),
        guest_port: endpoints.exec_guest_port,
    });
    VsockConfig {
        guest_cid: GUEST_CID,
        mux: endpoints.mux.clone(),
        stem: endpoints.stem.clone(),
        listeners: listeners.collect(),
        privileged_ports: vec![AGENT_HOST_PORT],
    }
}

/// What a disk is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ReadOnly,
    Volume,
}

/// What a disk holds.
enum Content {
    File(File),
    Overlay(Arc<Overlay>),
}

fn disk(
    path: &Path,
    content: Content,
    kind: Kind,
    id: String,
) -> Result<Box<dyn VirtioDevice>, MachineError> {
    let config = BlkConfig {
        read_only: kind == Kind::ReadOnly,
        // Copies may have something there.
        may_be_empty: true,
        id,
        ..BlkConfig::default()
    };
    let made = match content {
        Content::File(file) => Blk::new(file, config),
        Content::Overlay(overlay) => Blk::over(overlay, config),
    };
    match made {
        Ok(blk) => Ok(Box::new(blk)),
        Err(source) => Err(MachineError::Blk {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Opens a volume for this machine alone; a new one gets its size.
fn open_volume(volume: &Volume) -> Result<File, MachineError> {
    let path = match &volume.file {
        HostFile::Path(path) => &**path,
        HostFile::Open { file, name } => {
            let file = file.try_clone().and_then(disk_file);
            return file.map_err(|source| disk_error(name, source));
        }
    };
    let open = |create_new| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(create_new)
            .open(path)
    };
    let (file, is_new) = match open(true) {
        Ok(file) => (Ok(file), true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (open(false), false),
        Err(error) => (Err(error), false),
    };
    let file = file
        .and_then(disk_file)
        .map_err(|source| disk_error(path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(MachineError::VolumeInUse {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(disk_error(path, source)),
    }
    if is_new && let Err(source) = file.set_len(volume.new_bytes) {
        // An empty file would be taken for a volume the next time.
        let _ = std::fs::remove_file(path);
        return Err(disk_error(path, source));
    }
    Ok(file)
}

/// Refuses what has no length, like a terminal or a directory.
fn disk_file(file: File) -> io::Result<File> {
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(file)
}

fn disk_error(path: &Path, source: io::Error) -> MachineError {
    MachineError::Disk {
        path: path.to_owned(),
        source,
    }
}
