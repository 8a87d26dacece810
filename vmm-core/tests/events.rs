//! What a machine tells whoever listens to `tracing` events. A file of its own: a
//! process has one listener, and vCPU threads must have it too.
#![cfg(feature = "softhv")]

#[path = "conformance_suite/asm.rs"]
#[allow(dead_code)] // Shared with the conformance suite.
mod asm;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use asm::Program;
use supermachine_vmm_core::MachineSpec;
use supermachine_vmm_core::arch::aarch64::layout;
use supermachine_vmm_core::backend::table::TableEngine;
use supermachine_vmm_core::machine::Machine;

/// What was told, as text.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Told {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(bytes.clone()).unwrap()
    }

    fn count(&self, what: &str) -> usize {
        self.text().matches(what).count()
    }
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The random number device.
const RNG_SLOT: u64 = 1;
/// How often its driver says that it is ready when it is not.
const ATTEMPTS: usize = 40;

/// A driver that starts the device with a queue outside of memory (virtio 1.2 §3.1.1 has the
/// steps, §4.2.2 the registers).
fn start_with_bad_queue(program: Program) -> Program {
    let window = layout::VIRTIO + RNG_SLOT * layout::VIRTIO_STRIDE;
    let status = window + 0x70;
    program
        .poke(status, 0)
        .poke(status, 1)
        .poke(status, 3)
        // VIRTIO_F_VERSION_1.
        .poke(window + 0x24, 1)
        .poke(window + 0x20, 1)
        .poke(status, 11)
        // Its length, its three rings, and that it is ready.
        .poke(window + 0x38, 8)
        .poke(window + 0x80, 0x1000)
        .poke(window + 0x90, 0x2000)
        .poke(window + 0xa0, 0x3000)
        .poke(window + 0x44, 1)
        .poke(status, 15)
}

#[test]
fn a_machine_tells_of_its_life_and_so_much_of_a_driver_that_makes_mistakes() {
    let told = Told::default();
    let writer = told.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let program = (0..ATTEMPTS)
        .fold(Program::new(), |program, _| start_with_bad_queue(program))
        // No register is there.
        .poke(layout::VIRTIO + 0xfc, 1)
        .off();
    let mut kernel = vec![0; 64];
    kernel[..4].copy_from_slice(&0x1400_0010_u32.to_le_bytes());
    kernel[16..24].copy_from_slice(&0x1_0000_u64.to_le_bytes());
    kernel[56..60].copy_from_slice(b"ARM\x64");
    kernel.extend(program.bytes());
    let path = std::env::temp_dir().join(format!("vmm-events-{}", std::process::id()));
    std::fs::write(&path, kernel).unwrap();
    let spec = MachineSpec {
        memory_bytes: 16 << 20,
        ..MachineSpec::new(path.as_path())
    };
    let machine = {
        let _request = tracing::info_span!("request", id = 7).entered();
        let engine = TableEngine::software();
        Machine::start(&engine, &spec, None).unwrap()
    };
    machine.wait();
    let counters = machine.device_counters();
    machine.stop().unwrap();
    std::fs::remove_file(path).unwrap();

    let text = told.text();
    for event in [
        "machine prepared",
        "machine booted",
        "ended the machine",
        "machine stopped",
        "the guest wrote to no register offset=252",
    ] {
        assert!(text.contains(event), "no {event} in:\n{text}");
    }
    // In the span of who made the machine, on the vCPU's thread too.
    let device = "request{id=7}:device{slot=1 kind=\"rng\"}";
    assert_eq!(told.count("the device did not start"), 32, "{text}");
    assert_eq!(
        told.count("no more warnings about this device"),
        1,
        "{text}"
    );
    assert!(text.lines().any(|line| {
        line.contains(device)
            && line.contains("error=queue 0 has rings that are not in guest memory")
    }));
    let rng = &counters[1];
    assert_eq!((rng.slot, rng.kind), (1, "rng"));
    assert!(rng.mmio.resets >= ATTEMPTS as u64, "{rng:?}");
}
