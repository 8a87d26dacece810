//! A virtual machine monitor in some two hundred lines of code: boots an arm64 Linux whose root file
//! system is a directory of the host, by the `fs` device of `supermachine-devices`, and
//! shows its console.
//!
//! `cargo run --release -p supermachine-softhv --example small_vmm -- KERNEL DIRECTORY [PARAMETERS]`
//!
//! The kernel needs virtio over MMIO, virtiofs and PL011 built in, as ours has. Parameters
//! go to its command line, after which it may run what is in the directory:
//! `'init=/bin/sh -- -c "ls -l /; poweroff -f"'`. The guest can write there.
//!
//! vm-memory, vm-fdt and virtio-queue (below the device) are rust-vmm's. The engine is the
//! software one; [`hvf::system_api`] is the table of a Mac's.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::ControlFlow;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use devices::legacy::pl011::{self, Pl011};
use devices::virtio::fs::{Fs, FsConfig};
use devices::virtio::mmio::{self, VirtioMmio};
use devices::{Bus, IrqLine};
use hvf::sys::{ExitReason, MemoryFlags, Reg, SysReg, VcpuExit};
use hvf::{ExceptionClass, Gic, GicAddresses, GicGeometry, Vcpu, Vm};
use vm_fdt::{FdtWriter, FdtWriterResult};
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is where in the guest's addresses.
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTOR: u64 = 0x080a_0000;
const UART: u64 = 0x0c00_0000;
const SHARE: u64 = 0x0c10_0000;
const RAM: u64 = 0x8000_0000;
const RAM_BYTES: usize = 256 << 20;
/// The device tree is in the last 2 MiB of RAM, its longest length.
const TREE: u64 = RAM + RAM_BYTES as u64 - (2 << 20);
/// Interrupts of the devices; device trees count from the first shared one.
const FIRST_SHARED: u32 = 32;
const UART_INTERRUPT: u32 = 33;
const SHARE_INTERRUPT: u32 = 48;
/// Engines map guest memory in pages of this size.
const PAGE_BYTES: usize = 16 << 10;

/// A line of the interrupt controller, which is the engine's.
struct Line(Gic, u32);

impl IrqLine for Line {
    fn set_level(&self, high: bool) {
        // The number is one that the controller has.
        let _ = self.0.set_spi(self.1, high);
    }

    fn pulse(&self) {
        self.set_level(true);
    }
}

/// Memory that the guest and the devices have in common, until this process ends.
fn memory(vm: &Vm) -> Result<GuestMemoryMmap> {
    // The host's own pages may be smaller.
    let whole = MmapRegion::<()>::new(RAM_BYTES + PAGE_BYTES)?;
    let start = whole
        .as_ptr()
        .map_addr(|at| at.next_multiple_of(PAGE_BYTES));
    std::mem::forget(whole);
    // SAFETY: the range is part of a mapping that stays for ever, and is read and written
    // by what expects the guest to change it.
    let region = unsafe {
        vm.map(
            NonNull::new(start).ok_or("no memory")?,
            RAM,
            RAM_BYTES,
            MemoryFlags::RWX,
        )?;
        MmapRegionBuilder::new(RAM_BYTES)
            .with_raw_mmap_pointer(start)
            .build()?
    };
    let region = GuestRegionMmap::new(region, GuestAddress(RAM)).ok_or("no such addresses")?;
    Ok(GuestMemoryMmap::from_regions(vec![region])?)
}

/// Puts a kernel where its header says (Linux, Documentation/arch/arm64/booting.rst §4):
/// the address to start at. On arm64 hosts linux-loader does this.
fn load(ram: &GuestMemoryMmap, path: &Path) -> Result<u64> {
    let mut file = File::open(path)?;
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    let word = |at: usize| {
        header[at..]
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word))
    };
    let entry = RAM
        .checked_add(word(8))
        .filter(|_| header[56..60] == *b"ARM\x64");
    let end = entry.and_then(|entry| entry.checked_add(word(16)));
    let (Some(entry), Some(0..=TREE)) = (entry, end) else {
        return Err("this is no arm64 Image, or there is no room for it".into());
    };
    let bytes = usize::try_from(file.metadata()?.len())?;
    file.rewind()?;
    ram.read_exact_volatile_from(GuestAddress(entry), &mut file, bytes)?;
    Ok(entry)
}

/// Describes all that to the guest.
fn tree(gic: &GicGeometry, command_line: &str) -> FdtWriterResult<Vec<u8>> {
    let (shared, private, edge, level) = (0, 1, 1, 4);
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", 1)?;
    fdt.property_string("compatible", "linux,dummy-virt")?;
    let mut node =
        |name: &str, kind: &str, fill: &dyn Fn(&mut FdtWriter) -> FdtWriterResult<()>| {
            let node = fdt.begin_node(name)?;
            let kinds = kind.split(' ').map(str::to_owned).collect();
            fdt.property_string_list("compatible", kinds)?;
            fill(&mut fdt)?;
            fdt.end_node(node)
        };
    node("chosen", "chosen", &|fdt| {
        fdt.property_string("bootargs", command_line)
    })?;
    node("memory", "memory", &|fdt| {
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &[RAM, RAM_BYTES as u64])
    })?;
    node("cpus", "cpus", &|fdt| {
        fdt.property_u32("#address-cells", 1)?;
        fdt.property_u32("#size-cells", 0)?;
        let cpu = fdt.begin_node("cpu@0")?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", "arm,armv8")?;
        fdt.property_u32("reg", 0)?;
        fdt.end_node(cpu)
    })?;
    node("psci", "arm,psci-0.2", &|fdt| {
        fdt.property_string("method", "hvc")
    })?;
    node("gic", "arm,gic-v3", &|fdt| {
        fdt.property_u32("#interrupt-cells", 3)?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_phandle(1)?;
        let bytes = [gic.distributor_bytes as u64, gic.redistributor_bytes as u64];
        fdt.property_array_u64("reg", &[DISTRIBUTOR, bytes[0], REDISTRIBUTOR, bytes[1]])
    })?;
    node("timer", "arm,armv8-timer", &|fdt| {
        // Secure, non-secure, virtual, hypervisor.
        let lines = [13, 14, 11, 10].map(|number| [private, number, level]);
        fdt.property_array_u32("interrupts", lines.as_flattened())
    })?;
    node("clock", "fixed-clock", &|fdt| {
        fdt.property_u32("#clock-cells", 0)?;
        fdt.property_u32("clock-frequency", 24_000_000)?;
        fdt.property_phandle(2)
    })?;
    node("uart", "arm,pl011 arm,primecell", &|fdt| {
        fdt.property_array_u64("reg", &[UART, pl011::WINDOW_BYTES])?;
        fdt.property_array_u32(
            "interrupts",
            &[shared, UART_INTERRUPT - FIRST_SHARED, level],
        )?;
        fdt.property_array_u32("clocks", &[2, 2])?;
        fdt.property_string_list("clock-names", vec!["uartclk".into(), "apb_pclk".into()])
    })?;
    node("share", "virtio,mmio", &|fdt| {
        fdt.property_array_u64("reg", &[SHARE, mmio::WINDOW_BYTES])?;
        fdt.property_array_u32(
            "interrupts",
            &[shared, SHARE_INTERRUPT - FIRST_SHARED, edge],
        )?;
        fdt.property_null("dma-coherent")
    })?;
    fdt.end_node(root)?;
    fdt.finish()
}

/// Does for the guest what its processor has stopped at.
fn exception(vcpu: &mut Vcpu, bus: &Bus, exit: &VcpuExit) -> Result<ControlFlow<()>> {
    let syndrome = exit.exception.syndrome;
    let class = ExceptionClass::of(syndrome);
    let valid = syndrome >> 24 & 1 == 1;
    match class {
        ExceptionClass::DATA_ABORT if valid => {
            let (address, register) = (exit.exception.physical_address, syndrome >> 16 & 31);
            let (register, bytes) = (u8::try_from(register)?, 1 << (syndrome >> 22 & 3));
            let mut data = [0; 8];
            let served = if syndrome >> 6 & 1 == 1 {
                data = vcpu.general(register)?.to_le_bytes();
                bus.write(address, &data[..bytes])
            } else {
                let served = bus.read(address, &mut data[..bytes]);
                vcpu.set_general(register, u64::from_le_bytes(data))?;
                served
            };
            if !served {
                return Err(format!("there is nothing at {address:#x}").into());
            }
        }
        // PSCI: a version, the end, and nothing else (Arm DEN 0022).
        ExceptionClass::HVC => match vcpu.reg(Reg::X0)? & 0xffff_ffff {
            0x8400_0000 => vcpu.set_reg(Reg::X0, 2)?,
            0x8400_0008 | 0x8400_0009 => return Ok(ControlFlow::Break(())),
            _ => vcpu.set_reg(Reg::X0, u64::MAX)?,
        },
        ExceptionClass::WFX => (),
        // Debug registers and the like, of which there are none.
        ExceptionClass::SYSTEM_REGISTER if syndrome & 1 == 1 => {
            vcpu.set_general(u8::try_from(syndrome >> 5 & 31)?, 0)?;
        }
        ExceptionClass::SYSTEM_REGISTER => (),
        _ => return Err(format!("{syndrome:#x} at {:#x}", vcpu.reg(Reg::PC)?).into()),
    }
    vcpu.skip_instruction(class)?;
    Ok(ControlFlow::Continue(()))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, directory, parameters @ ..] = &arguments[..] else {
        return Err("usage: small_vmm KERNEL DIRECTORY [PARAMETERS]".into());
    };
    let api = supermachine_softhv::api();
    let vm = Vm::new(api, None)?;
    let gic = vm.create_gic(GicAddresses {
        distributor: DISTRIBUTOR,
        redistributors: REDISTRIBUTOR,
    })?;
    let ram = Arc::new(memory(&vm)?);

    let line = |number| Arc::new(Line(gic.clone(), number));
    let uart = Arc::new(Pl011::new(line(UART_INTERRUPT), Box::new(io::stdout())));
    let fs = Fs::new(File::open(directory)?.into(), FsConfig::new("share"))?;
    let fs = VirtioMmio::new(ram.clone(), line(SHARE_INTERRUPT), Box::new(fs));
    let mut bus = Bus::new();
    bus.insert(UART, pl011::WINDOW_BYTES, uart.clone())?;
    bus.insert(SHARE, mmio::WINDOW_BYTES, Arc::new(fs))?;

    let entry = load(&ram, Path::new(kernel))?;
    let root = "console=ttyAMA0 panic=-1 root=share rootfstype=virtiofs rw";
    let blob = tree(
        &GicGeometry::query(&api)?,
        &format!("{root} {}", parameters.join(" ")),
    )?;
    ram.write_slice(&blob, GuestAddress(TREE))?;

    let mut vcpu = vm.create_vcpu()?;
    // By this the interrupt controller knows it.
    vcpu.set_sys_reg(SysReg::MPIDR_EL1, 1 << 31)?;
    vcpu.set_reg(Reg::PC, entry)?;
    vcpu.set_reg(Reg::X0, TREE)?;
    // EL1 with its own stack pointer, interrupts masked.
    vcpu.set_reg(Reg::CPSR, 0x3c5)?;
    loop {
        let exit = vcpu.run()?;
        match exit.reason {
            ExitReason::EXCEPTION => {
                if exception(&mut vcpu, &bus, &exit)?.is_break() {
                    break;
                }
            }
            ExitReason::VTIMER_ACTIVATED => vcpu.set_vtimer_mask(false)?,
            reason => return Err(format!("the engine stopped for {reason:?}").into()),
        }
    }
    uart.flush(Duration::from_secs(1));
    Ok(())
}
