use std::ptr::NonNull;
use std::sync::Arc;

use crate::error::{HvfError, check};
use crate::gic::{Gic, GicAddresses};
use crate::owner::VmInner;
use crate::sys::{
    Api, CodeCounts, FeatureReg, MAX_CODE_CENSUS, MAX_CODE_NOTES, MemoryFlags, PAGE_BYTES,
    VcpuConfig, VmConfig,
};
use crate::vcpu::Vcpu;

/// The process's one virtual machine.
///
/// It ends when this and the last [`Vcpu`] and [`Gic`] of it are dropped.
#[derive(Clone, Debug)]
pub struct Vm {
    pub(crate) inner: Arc<VmInner>,
}

/// What an engine can do, known before there is a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Most vCPUs one machine may have.
    pub max_vcpus: u32,
    /// Guest physical address width without asking for more, in bits.
    pub default_ipa_bits: u32,
    /// Largest guest physical address width, in bits.
    pub max_ipa_bits: u32,
}

impl Capabilities {
    /// Asks the engine.
    pub fn query(api: &Api) -> Result<Self, HvfError> {
        let (mut max_vcpus, mut default_ipa_bits, mut max_ipa_bits) = (0, 0, 0);
        // SAFETY: each call writes one integer through a valid pointer.
        unsafe {
            check(
                "vm_get_max_vcpu_count",
                (api.vm_get_max_vcpu_count)(&raw mut max_vcpus),
            )?;
            check(
                "vm_config_get_default_ipa_size",
                (api.vm_config_get_default_ipa_size)(&raw mut default_ipa_bits),
            )?;
            check(
                "vm_config_get_max_ipa_size",
                (api.vm_config_get_max_ipa_size)(&raw mut max_ipa_bits),
            )?;
        }
        Ok(Self {
            max_vcpus,
            default_ipa_bits,
            max_ipa_bits,
        })
    }
}

/// Reads an identification register as vCPUs will see it.
pub fn feature_reg(api: &Api, reg: FeatureReg) -> Result<u64, HvfError> {
    // SAFETY: creating a configuration has no precondition.
    let config = unsafe { (api.vcpu_config_create)() };
    let mut value = 0;
    // SAFETY: `config` is ours and `value` is valid for a write.
    let code = unsafe { (api.vcpu_config_get_feature_reg)(config, reg, &raw mut value) };
    if config != VcpuConfig::NULL {
        // SAFETY: we own the one reference and do not use it again.
        unsafe { (api.os_release)(config.0) };
    }
    check("vcpu_config_get_feature_reg", code).map(|()| value)
}

impl Vm {
    /// Creates the machine, with guest physical addresses of `ipa_bits` bits
    /// or the engine's default.
    pub fn new(api: Api, ipa_bits: Option<u32>) -> Result<Self, HvfError> {
        let config = match ipa_bits {
            None => VmConfig::NULL,
            // SAFETY: creating a configuration has no precondition.
            Some(_) => unsafe { (api.vm_config_create)() },
        };
        let created = ipa_bits
            .map_or(Ok(()), |bits| {
                // SAFETY: `config` was created above.
                check("vm_config_set_ipa_size", unsafe {
                    (api.vm_config_set_ipa_size)(config, bits)
                })
            })
            // SAFETY: `config` is null or a live configuration.
            .and_then(|()| check("vm_create", unsafe { (api.vm_create)(config) }));
        if config != VmConfig::NULL {
            // SAFETY: we own the one reference and do not use it again.
            unsafe { (api.os_release)(config.0) };
        }
        created.map(|()| Self {
            inner: Arc::new(VmInner { api }),
        })
    }

    /// The engine behind this machine.
    pub fn api(&self) -> &Api {
        &self.inner.api
    }

    /// Lets the guest reach `size` bytes of host memory at `ipa`.
    ///
    /// # Safety
    /// `host` must be valid for reads and writes of `size` bytes, within one
    /// mapping of this process, until the range is unmapped or the machine has
    /// ended, and the rest of the program must expect the guest to change it
    /// at any moment.
    pub unsafe fn map(
        &self,
        host: NonNull<u8>,
        ipa: u64,
        size: usize,
        flags: MemoryFlags,
    ) -> Result<(), HvfError> {
        check_alignment(ipa, size)?;
        if !host.addr().get().is_multiple_of(PAGE_BYTES) {
            return Err(HvfError::Misaligned { ipa, size });
        }
        // SAFETY: the caller vouches for the host range.
        check("vm_map", unsafe {
            (self.inner.api.vm_map)(host.as_ptr().cast(), ipa, size, flags)
        })
    }

    /// Takes a range away from the guest.
    pub fn unmap(&self, ipa: u64, size: usize) -> Result<(), HvfError> {
        check_alignment(ipa, size)?;
        // SAFETY: taking guest mappings away frees no host memory.
        check("vm_unmap", unsafe { (self.inner.api.vm_unmap)(ipa, size) })
    }

    /// Changes what the guest may do with a mapped range.
    pub fn protect(&self, ipa: u64, size: usize, flags: MemoryFlags) -> Result<(), HvfError> {
        check_alignment(ipa, size)?;
        // SAFETY: the host range stays as the caller of `map` vouched for.
        check("vm_protect", unsafe {
            (self.inner.api.vm_protect)(ipa, size, flags)
        })
    }

    /// Makes guests execute what is in memory now: the host replaced the
    /// content of `size` bytes while no vCPU ran.
    ///
    /// # Safety
    /// `host` must be where the guest's `ipa` is mapped to, for `size` bytes.
    pub unsafe fn content_replaced(
        &self,
        host: NonNull<u8>,
        ipa: u64,
        size: usize,
    ) -> Result<(), HvfError> {
        // SAFETY: the caller vouches for the host range.
        check("vm_content_replaced", unsafe {
            (self.inner.api.vm_content_replaced)(host.as_ptr().cast(), ipa, size)
        })
    }

    /// Follows the writes of vCPUs to a mapped range, all of it unwritten from
    /// now on; `false` if the engine has no log. No vCPU may run.
    pub fn start_dirty_log(&self, ipa: u64, size: usize) -> Result<bool, HvfError> {
        let Some(dirty) = &self.inner.api.dirty else {
            return Ok(false);
        };
        check_alignment(ipa, size)?;
        // SAFETY: no pointers; the engine checks the range.
        check("dirty.start", unsafe { (dirty.start)(ipa, size) }).map(|()| true)
    }

    /// Moves the marks of a range given to [`Self::start_dirty_log`] to `words`:
    /// one bit for each 4 KiB, lowest first; the range is unwritten again.
    /// `words` is emptied first and stays so if the engine has no log. No vCPU
    /// may run.
    pub fn take_dirty_log(
        &self,
        ipa: u64,
        size: usize,
        words: &mut Vec<u64>,
    ) -> Result<(), HvfError> {
        words.clear();
        let Some(dirty) = &self.inner.api.dirty else {
            return Ok(());
        };
        check_alignment(ipa, size)?;
        words.resize(size.div_ceil(64 * 4096), 0);
        // SAFETY: the pointer is valid for as many words as it is said to be.
        check("dirty.take", unsafe {
            (dirty.take)(ipa, size, words.as_mut_ptr(), words.len())
        })
    }

    /// Drops decoded code, and has the engine note what it decodes from now on; `false`
    /// if it notes nothing. No vCPU may run.
    pub fn note_code(&self) -> Result<bool, HvfError> {
        let Some(code) = &self.inner.api.code else {
            return Ok(false);
        };
        // SAFETY: no pointers.
        check("code.note", unsafe { (code.note)() }).map(|()| true)
    }

    /// What was noted since [`Self::note_code`], [`MAX_CODE_NOTES`] bytes at most;
    /// nothing is any more. Empty if the engine notes nothing.
    pub fn take_code_notes(&self) -> Result<Vec<u8>, HvfError> {
        let Some(code) = &self.inner.api.code else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; MAX_CODE_NOTES];
        let mut written = 0;
        // SAFETY: the pointer is valid for as many bytes as it is said to be, and the
        // other for the number.
        let result =
            unsafe { (code.take_notes)(bytes.as_mut_ptr(), bytes.len(), &raw mut written) };
        check("code.take_notes", result)?;
        bytes.truncate(written);
        Ok(bytes)
    }

    /// Has the engine decode what a machine with the same memory noted; `false` if it
    /// cannot, or if these are no notes of its. Unless the machine is `at_work` at once,
    /// it takes no memory that only work needs.
    pub fn decode_ahead(&self, notes: &[u8], at_work: bool) -> bool {
        let Some(code) = &self.inner.api.code else {
            return false;
        };
        // SAFETY: the pointer is valid for as many bytes as it is said to be.
        unsafe { (code.decode_ahead)(notes.as_ptr(), notes.len(), at_work) }.is_success()
    }

    /// What vCPUs did to have code that they can execute; `None` if the engine decodes
    /// none.
    pub fn code_counts(&self) -> Result<Option<CodeCounts>, HvfError> {
        let Some(code) = &self.inner.api.code else {
            return Ok(None);
        };
        let mut counts = CodeCounts::default();
        // SAFETY: the pointer is valid for the numbers.
        let result = unsafe { (code.counts)(&raw mut counts) };
        check("code.counts", result).map(|()| Some(counts))
    }

    /// What the compiled code of a machine that counts has executed, by lines; empty for
    /// all others.
    pub fn code_census(&self) -> Result<String, HvfError> {
        let Some(code) = &self.inner.api.code else {
            return Ok(String::new());
        };
        let mut text = vec![0; MAX_CODE_CENSUS];
        let mut written = 0;
        // SAFETY: the pointer is valid for as many bytes as it is said to be, and the
        // other for the number.
        let result = unsafe { (code.census)(text.as_mut_ptr(), text.len(), &raw mut written) };
        check("code.census", result)?;
        text.truncate(written);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Creates the interrupt controller; before any vCPU.
    pub fn create_gic(&self, addresses: GicAddresses) -> Result<Gic, HvfError> {
        Gic::new(self.inner.clone(), addresses)
    }

    /// Creates a vCPU that belongs to the calling thread.
    pub fn create_vcpu(&self) -> Result<Vcpu, HvfError> {
        Vcpu::new(self.inner.clone())
    }
}

fn check_alignment(ipa: u64, size: usize) -> Result<(), HvfError> {
    let page = PAGE_BYTES as u64;
    if ipa.is_multiple_of(page) && size.is_multiple_of(PAGE_BYTES) && size > 0 {
        Ok(())
    } else {
        Err(HvfError::Misaligned { ipa, size })
    }
}
