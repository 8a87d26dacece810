use super::Input;
use crate::MachineSpec;
use crate::arch;
use crate::hypervisor::{Architecture, Capabilities, DirtyTracking, GicKind, PowerControl};
use crate::machine::{MachineError, check_boot, command_line};
use crate::spec::{HostFile, Volume};

/// Devices that a machine has without being asked: sockets, random numbers,
/// balloon and memory.
const FIXED_VIRTIO: usize = 4;

/// A description is accepted exactly if an engine has its vCPUs, each of its
/// devices gets an interrupt, and a kernel takes its command line.
///
/// # Panics
/// When it is not.
pub fn fuzz_spec(data: &[u8]) {
    let mut input = Input(data);
    let capabilities = engine(&mut input);
    let spec = describe(&mut input);
    check_description(&spec, &capabilities);
    let extra = input.text(1024);
    check_command_line(&spec.cmdline, &extra);
}

/// An engine with some number of vCPUs and interrupts.
fn engine(input: &mut Input<'_>) -> Capabilities {
    Capabilities {
        architecture: Architecture::Aarch64,
        max_ipa_bits: 40,
        default_ipa_bits: 36,
        page_bytes: 16 << 10,
        max_vcpus: input.u32() % 128,
        dirty_tracking: DirtyTracking::Log,
        gic: GicKind::V3 {
            first_spi: 32,
            spi_count: input.u32() % 2048,
            distributor_bytes: 0x1_0000,
            redistributor_bytes: 0x2_0000,
        },
        power: PowerControl::Machine,
    }
}

fn describe(input: &mut Input<'_>) -> MachineSpec {
    let volume = Volume {
        file: "file".into(),
        new_bytes: input.number(),
        overlay: None,
    };
    MachineSpec {
        vcpus: input.u32() % 130,
        possible_vcpus: input.u32() % 130,
        memory_bytes: input.number(),
        disks: vec![HostFile::from("disk"); input.u8().into()],
        volumes: vec![volume; input.u8().into()],
        cmdline: input.text(3000),
        ..MachineSpec::new("Image")
    }
}

fn check_description(spec: &MachineSpec, capabilities: &Capabilities) {
    let devices = FIXED_VIRTIO + spec.disks.len() + spec.volumes.len();
    let arch = arch::of(capabilities.architecture);
    let GicKind::V3 {
        first_spi,
        spi_count,
        ..
    } = capabilities.gic;
    let lines = i64::from(first_spi + spi_count) - i64::from(arch.layout().virtio.first_line);
    let room = lines.clamp(0, i64::from(arch.layout().virtio.max));
    let possible = spec.possible_vcpus.min(capabilities.max_vcpus);
    let extra = if possible > spec.vcpus {
        format!("maxcpus={}", spec.vcpus)
    } else {
        String::new()
    };
    let takes_line = is_command_line(&spec.cmdline, &extra);
    match check_boot("any", capabilities, spec) {
        Ok(checked) => {
            assert!((1..=capabilities.max_vcpus).contains(&spec.vcpus));
            assert_eq!(checked.possible_vcpus, possible.max(spec.vcpus));
            assert_eq!(checked.virtio_devices as usize, devices);
            assert!(devices as i64 <= room && takes_line);
        }
        Err(MachineError::NoVcpus) => assert_eq!(spec.vcpus, 0),
        Err(MachineError::TooManyVcpus { vcpus, max, .. }) => assert!(vcpus > max),
        Err(MachineError::TooManyDevices { .. }) => assert!(devices as i64 > room),
        Err(MachineError::BadCommandLine { .. }) => assert!(!takes_line),
        Err(other) => panic!("{other}"),
    }
}

/// What a kernel takes: printable ASCII, not too long, with a space between.
fn is_command_line(cmdline: &str, extra: &str) -> bool {
    let parts = [cmdline.trim(), extra.trim()];
    let separator = usize::from(parts.iter().all(|part| !part.is_empty()));
    let len = parts[0].len() + separator + parts[1].len();
    let printable = |part: &&str| part.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let max = arch::of(Architecture::Aarch64).max_cmdline_bytes();
    len <= max && parts.iter().all(printable)
}

fn check_command_line(cmdline: &str, extra: &str) {
    let max = arch::of(Architecture::Aarch64).max_cmdline_bytes();
    let joined = command_line(cmdline, extra, max);
    assert_eq!(joined.is_ok(), is_command_line(cmdline, extra));
    if let Ok(joined) = joined {
        let parts = [cmdline.trim(), extra.trim()];
        let words: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        assert_eq!(joined, words.join(" "));
    }
}
