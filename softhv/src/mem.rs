//! Guest memory accesses: the inline probe and everything it does not cover.

use crate::cpu::{Cpu, RunExit};
use crate::page::{PAGE_MASK, PAGE_SIZE};
use crate::tlb::{self, Entry};
use crate::walk::{Access, Fault, fsc};

/// Exception class of a data abort from a lower level, which is also how the
/// monitor sees an access that nothing in the guest serves.
const EC_DATA_ABORT_LOWER: u64 = 0x24;
/// Syndrome bits of a data abort (Arm ARM D24.2.40).
const ISS_WNR: u64 = 1 << 6;
const ISS_CM: u64 = 1 << 8;
const ISS_ISV: u64 = 1 << 24;
/// IL: the trapped instruction is 32 bits long.
pub const ESR_IL: u64 = 1 << 25;
/// Stage 2 translation and permission fault, level 3.
const STAGE2_TRANSLATION: u64 = 0x07;
const STAGE2_PERMISSION: u64 = 0x0f;

/// How one single-register access presents itself to the monitor. Accesses
/// that cannot be described (pairs, writeback, vectors) have none.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Register number, 31 for XZR.
    pub register: u8,
    /// log2 of the size in bytes.
    pub size: u8,
    /// The load sign-extends.
    pub signed: bool,
    /// The register is 64 bits wide.
    pub wide: bool,
    /// Acquire or release.
    pub ordered: bool,
}

/// What kind of access a slow path serves.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Address of the instruction.
    pub pc: u64,
    /// Address accessed.
    pub va: u64,
    /// Bytes accessed, 1 to 64.
    pub bytes: u32,
    /// Read or write.
    pub access: Access,
    /// With EL0 rights.
    pub user: bool,
    /// Must be a multiple of its size.
    pub aligned: bool,
    /// For the monitor, should it come to that.
    pub transfer: Option<Transfer>,
}

/// Where the bytes of an access are.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// `first` bytes at one host address, the rest at another.
    Ram { at: [u64; 2], first: u32 },
    /// No RAM.
    Device { physical: u64, denied: bool },
}

/// The access was not done: an exception was taken, or the vCPU is to leave
/// guest execution. The handler returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// The host address of `va` if `bytes` from there are in one page that the
/// entries at `tlb` allow reading.
///
/// # Safety
/// `tlb` points at a bank of [`tlb::ENTRIES`].
#[inline(always)]
pub unsafe fn probe_read(tlb: *const Entry, va: u64, bytes: u64) -> Option<u64> {
    // SAFETY: the index is below ENTRIES.
    let entry = unsafe { &*tlb.add(tlb::index(va)) };
    // An access that crosses into the next page compares as that page.
    (va.wrapping_add(bytes - 1) & PAGE_MASK == entry.read).then(|| va.wrapping_add(entry.addend))
}

/// As [`probe_read`], for writing.
///
/// # Safety
/// As for [`probe_read`].
#[inline(always)]
pub unsafe fn probe_write(tlb: *const Entry, va: u64, bytes: u64) -> Option<u64> {
    // SAFETY: the index is below ENTRIES.
    let entry = unsafe { &*tlb.add(tlb::index(va)) };
    (va.wrapping_add(bytes - 1) & PAGE_MASK == entry.write).then(|| va.wrapping_add(entry.addend))
}

/// A value in guest memory, at any address.
#[repr(C, packed)]
struct Unaligned<T>(T);

/// Reads guest memory.
///
/// # Safety
/// `host` is where a probe or [`Cpu::load`] found the access to be allowed.
/// Other threads may write there: the access is volatile, and one host
/// instruction when aligned.
#[inline(always)]
pub unsafe fn read<T: Copy>(host: u64) -> T {
    // SAFETY: by the contract; the packed type has no alignment.
    unsafe { (host as *const Unaligned<T>).read_volatile().0 }
}

/// Writes guest memory.
///
/// # Safety
/// As for [`read`], found writable.
#[inline(always)]
pub unsafe fn write<T: Copy>(host: u64, value: T) {
    // SAFETY: by the contract; the packed type has no alignment.
    unsafe { (host as *mut Unaligned<T>).write_volatile(Unaligned(value)) }
}

impl Cpu {
    /// Finds where an access goes; on a fault takes the exception.
    fn place(&mut self, request: &Request) -> Result<Place, Stopped> {
        let bytes = u64::from(request.bytes);
        let Request { va, access, .. } = *request;
        if request.aligned && va & (bytes - 1) != 0 {
            return Err(self.data_abort(request, va, Fault(fsc::ALIGNMENT)));
        }
        let first = self
            .translate(va, access, request.user)
            .map_err(|fault| self.data_abort(request, va, fault))?;
        let room = PAGE_SIZE - (va & !PAGE_MASK);
        let Some(host) = first.host else {
            return Ok(Place::Device {
                physical: first.physical,
                denied: first.denied,
            });
        };
        if bytes <= room {
            return Ok(Place::Ram {
                at: [host, 0],
                first: request.bytes,
            });
        }
        let next = va.wrapping_add(room);
        let second = self
            .translate(next, access, request.user)
            .map_err(|fault| self.data_abort(request, next, fault))?;
        Ok(match second.host {
            Some(rest) => Place::Ram {
                at: [host, rest],
                first: room as u32,
            },
            None => Place::Device {
                physical: second.physical,
                denied: second.denied,
            },
        })
    }

    /// Loads up to 64 bytes that the inline probe did not find.
    pub fn load(&mut self, request: &Request, out: &mut [u8]) -> Result<(), Stopped> {
        match self.place(request)? {
            Place::Ram { at, first } => {
                let (head, tail) = out.split_at_mut(first as usize);
                // SAFETY: both pieces were translated for reading just now, and
                // the map's view keeps them valid until the vCPU leaves.
                unsafe {
                    copy_in(at[0], head);
                    copy_in(at[1], tail);
                }
                Ok(())
            }
            Place::Device { physical, denied } => {
                let value = self.device_access(request, physical, denied, None)?;
                out.copy_from_slice(&value.to_le_bytes()[..out.len()]);
                Ok(())
            }
        }
    }

    /// Stores up to 64 bytes that the inline probe did not find.
    pub fn store(&mut self, request: &Request, data: &[u8]) -> Result<(), Stopped> {
        match self.place(request)? {
            Place::Ram { at, first } => {
                let (head, tail) = data.split_at(first as usize);
                // SAFETY: both pieces were translated for writing just now, and
                // the map's view keeps them valid until the vCPU leaves.
                unsafe {
                    copy_out(at[0], head);
                    copy_out(at[1], tail);
                }
                Ok(())
            }
            Place::Device { physical, denied } => {
                let mut value = [0; 8];
                let used = data.len().min(8);
                value[..used].copy_from_slice(&data[..used]);
                let value = u64::from_le_bytes(value);
                self.device_access(request, physical, denied, Some(value))?;
                Ok(())
            }
        }
    }

    /// The host address for an atomic access, which must be to RAM.
    pub fn locate(&mut self, request: &Request) -> Result<u64, Stopped> {
        match self.place(request)? {
            Place::Ram { at, .. } => Ok(at[0]),
            Place::Device { physical, denied } => {
                self.leave_for_monitor(request, physical, denied);
                Err(Stopped)
            }
        }
    }

    /// An access outside RAM: the interrupt controller's, or the monitor's.
    fn device_access(
        &mut self,
        request: &Request,
        physical: u64,
        denied: bool,
        write: Option<u64>,
    ) -> Result<u64, Stopped> {
        if request.bytes <= 8
            && let Some(gic) = self.vm.gic()
            && gic.contains(physical)
        {
            return Ok(match write {
                Some(value) => {
                    gic.mmio_write(physical, request.bytes, value, self.index);
                    0
                }
                None => gic.mmio_read(physical, request.bytes, self.index),
            });
        }
        self.leave_for_monitor(request, physical, denied);
        Err(Stopped)
    }

    fn leave_for_monitor(&mut self, request: &Request, physical: u64, denied: bool) {
        let described = request.transfer.map_or(0, |transfer| {
            ISS_ISV
                | u64::from(transfer.size) << 22
                | u64::from(transfer.signed) << 21
                | u64::from(transfer.register) << 16
                | u64::from(transfer.wide) << 15
                | u64::from(transfer.ordered) << 14
        });
        let status = if denied {
            STAGE2_PERMISSION
        } else {
            STAGE2_TRANSLATION
        };
        let wnr = if request.access == Access::Write {
            ISS_WNR
        } else {
            0
        };
        self.pc = request.pc;
        self.exit = Some(RunExit::Exception {
            syndrome: EC_DATA_ABORT_LOWER << 26 | ESR_IL | described | wnr | status,
            virtual_address: request.va,
            physical_address: physical,
        });
    }

    fn data_abort(&mut self, request: &Request, va: u64, fault: Fault) -> Stopped {
        let wnr = if request.access == Access::Write {
            ISS_WNR
        } else {
            0
        };
        self.raise_data_abort(request.pc, va, wnr | u64::from(fault.0));
        Stopped
    }

    /// Cache maintenance by address: only translates. A fault reports CM.
    pub fn cache_maintenance(&mut self, pc: u64, va: u64) -> Result<u64, Stopped> {
        let user = self.pstate.el == 0;
        match self.translate(va, Access::Read, user) {
            Ok(target) => Ok(target.physical),
            Err(fault) => {
                self.raise_data_abort(pc, va, ISS_CM | ISS_WNR | u64::from(fault.0));
                Err(Stopped)
            }
        }
    }
}

/// The widest access that `host` is aligned for and `left` bytes allow: what
/// the guest accesses as one aligned element must not tear.
fn piece(host: u64, left: usize) -> usize {
    let fits = |&bytes: &usize| bytes <= left && host & (bytes as u64 - 1) == 0;
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// # Safety
/// `host` has `out.len()` readable bytes.
unsafe fn copy_in(host: u64, out: &mut [u8]) {
    let mut done = 0;
    while done < out.len() {
        let at = host + done as u64;
        let bytes = piece(at, out.len() - done);
        let to = &mut out[done..done + bytes];
        // SAFETY: by the contract.
        unsafe {
            match bytes {
                8 => to.copy_from_slice(&read::<u64>(at).to_le_bytes()),
                4 => to.copy_from_slice(&read::<u32>(at).to_le_bytes()),
                2 => to.copy_from_slice(&read::<u16>(at).to_le_bytes()),
                _ => to[0] = read(at),
            }
        }
        done += bytes;
    }
}

/// # Safety
/// `host` has `data.len()` writable bytes.
unsafe fn copy_out(host: u64, data: &[u8]) {
    let mut done = 0;
    while done < data.len() {
        let at = host + done as u64;
        let bytes = piece(at, data.len() - done);
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(&data[done..done + bytes]);
        let value = u64::from_le_bytes(value);
        // SAFETY: by the contract.
        unsafe {
            match bytes {
                8 => write(at, value),
                4 => write(at, value as u32),
                2 => write(at, value as u16),
                _ => write(at, value as u8),
            }
        }
        done += bytes;
    }
}
