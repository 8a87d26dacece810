//! The client's memory: which guest's it is, and where the client itself has it.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vhost::vhost_user::{Error, Result};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

/// Memory of the guest, as the device reaches it.
pub type Memory = GuestMemoryMmap<()>;

/// Most regions, as many as Linux's own vhost takes.
pub const MAX_REGIONS: usize = 509;

/// A piece of the guest's memory.
#[derive(Debug, Clone)]
struct Region {
    /// Where it is for the guest, and how long it is.
    guest: u64,
    bytes: u64,
    /// Where it is for the client, which says addresses of rings so.
    client: u64,
    mapping: Arc<GuestRegionMmap<()>>,
}

/// All of it that the client has handed over.
#[derive(Debug, Default)]
pub struct Regions {
    regions: Vec<Region>,
    memory: Arc<Memory>,
}

impl Region {
    fn map(region: &VhostUserMemoryRegion, file: File) -> Result<Self> {
        // What is touched beyond the end of a file ends the process.
        let found = file.metadata().map_err(Error::ReqHandlerError)?;
        let end = region.mmap_offset.checked_add(region.memory_size);
        if !found.is_file() || end.is_none_or(|end| end > found.len()) {
            return Err(Error::InvalidParam);
        }
        let mapping = region.mmap_region(file)?;
        let mapping = GuestRegionMmap::new(mapping, GuestAddress(region.guest_phys_addr));
        Ok(Self {
            guest: region.guest_phys_addr,
            bytes: region.memory_size,
            client: region.user_addr,
            mapping: Arc::new(mapping.ok_or(Error::InvalidParam)?),
        })
    }
}

impl Regions {
    /// What the device is given; it keeps what it was given for as long as it runs.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Takes these instead of all there were.
    pub fn set(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        if regions.len() != files.len() {
            return Err(Error::IncorrectFds);
        }
        let mapped = regions.iter().zip(files);
        let mapped = mapped.map(|(region, file)| Region::map(region, file));
        self.take(mapped.collect::<Result<_>>()?)
    }

    /// Takes one more.
    pub fn add(&mut self, region: &VhostUserMemoryRegion, file: File) -> Result<()> {
        let mut regions = self.regions.clone();
        regions.push(Region::map(region, file)?);
        self.take(regions)
    }

    /// Gives one back, which is named by where it is and how long.
    pub fn remove(&mut self, region: &VhostUserMemoryRegion) -> Result<()> {
        let is_it = |other: &Region| {
            other.guest == region.guest_phys_addr
                && other.bytes == region.memory_size
                && other.client == region.user_addr
        };
        let at = self.regions.iter().position(is_it);
        let mut regions = self.regions.clone();
        regions.remove(at.ok_or(Error::InvalidParam)?);
        self.take(regions)
    }

    fn take(&mut self, mut regions: Vec<Region>) -> Result<()> {
        if regions.len() > MAX_REGIONS {
            return Err(Error::InvalidParam);
        }
        regions.sort_by_key(|region| region.guest);
        let mappings = regions.iter().map(|region| region.mapping.clone());
        // Refuses those that overlap.
        let memory = match regions.is_empty() {
            true => Memory::default(),
            false => {
                Memory::from_arc_regions(mappings.collect()).map_err(|_| Error::InvalidParam)?
            }
        };
        (self.regions, self.memory) = (regions, Arc::new(memory));
        Ok(())
    }

    /// The guest's address of what is at one of the client's.
    pub fn to_guest(&self, client: u64) -> Option<GuestAddress> {
        self.regions.iter().find_map(|region| {
            let at = client.checked_sub(region.client)?;
            let there = (at < region.bytes).then(|| region.guest.checked_add(at))?;
            there.map(GuestAddress)
        })
    }
}
