//! Times a loop of guest kernel code on KVM.

use crate::memory::GuestMemory;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use std::time::Instant;

/// Where the code is; any page will do.
const CODE: u64 = 0x1000;
/// Iterations: two instructions each, 30 ms at 1.4 million per second.
const ROUNDS: u32 = 20_000;

/// Real-mode code: `mov ecx, ROUNDS; 1: dec ecx; jnz 1b; hlt`.
fn program() -> Vec<u8> {
    let mut code = vec![0x66, 0xb9];
    code.extend_from_slice(&ROUNDS.to_le_bytes());
    code.extend_from_slice(&[0x66, 0x49, 0x75, 0xfc, 0xf4]);
    code
}

/// Guest instructions per second, or the error number of what failed.
pub fn instructions_per_second() -> Result<u64, i32> {
    let errno = |error: kvm_ioctls::Error| error.errno();
    let kvm = Kvm::new().map_err(errno)?;
    let vm = kvm.create_vm().map_err(errno)?;
    let memory = GuestMemory::allocate(0, 64 * 1024).map_err(|_| libc::ENOMEM)?;
    let lease = memory.leases().next().ok_or(libc::ENOMEM)?;
    vm_memory::Bytes::write_slice(
        memory.ram().as_ref(),
        &program(),
        vm_memory::GuestAddress(CODE),
    )
    .map_err(|_| libc::EFAULT)?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: memory.bytes(),
        userspace_addr: lease.host().as_ptr() as u64,
    };
    // SAFETY: the lease keeps the memory mapped until after the VM is dropped.
    unsafe { vm.set_user_memory_region(region) }.map_err(errno)?;
    let mut vcpu = vm.create_vcpu(0).map_err(errno)?;
    let mut segments = vcpu.get_sregs().map_err(errno)?;
    segments.cs.base = 0;
    segments.cs.selector = 0;
    vcpu.set_sregs(&segments).map_err(errno)?;
    let mut registers = vcpu.get_regs().map_err(errno)?;
    registers.rip = CODE;
    registers.rflags = 2;
    vcpu.set_regs(&registers).map_err(errno)?;
    let start = Instant::now();
    match vcpu.run().map_err(errno)? {
        VcpuExit::Hlt => (),
        _ => return Err(libc::EIO),
    }
    let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(2 * u64::from(ROUNDS) * 1_000_000_000 / nanoseconds.max(1))
}
