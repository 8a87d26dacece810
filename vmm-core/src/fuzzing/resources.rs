use super::Input;
use crate::arch;
use crate::hypervisor::Architecture;
use crate::machine::{command_line, virtio_count};
use crate::{VmProfile, VmResources, VolumeSpec};

/// Devices that a machine has without being asked: sockets, random numbers.
const FIXED_VIRTIO: usize = 4;

/// A description is accepted exactly if it says enough for a machine, its
/// command line if a kernel takes it, its devices if each gets an interrupt.
///
/// # Panics
/// When it is not.
pub fn fuzz_resources(data: &[u8]) {
    let mut input = Input(data);
    let end_intid = input.u32() % 2048;
    let resources = describe(&mut input);
    check_description(&resources);
    check_devices(&resources, end_intid);
    let extra = input.text(1024);
    check_command_line(&resources.cmdline, &extra);
    let profile = input.text(16);
    match VmProfile::parse(&profile) {
        Some(parsed) => assert!(parsed.default_vcpus() > 0),
        None => assert!(!["latency", "low-latency", "throughput"].contains(&&*profile)),
    }
}

fn describe(input: &mut Input<'_>) -> VmResources {
    let mut resources = VmResources::new();
    let asked = input.u16();
    let has = |bit: u32| asked >> bit & 1 == 1;
    if has(0) {
        resources = resources.with_kernel_path("Image");
    }
    if has(1) {
        resources = resources.with_restore("saved");
    }
    if has(2) {
        resources.snapshot.after_ms = Some(input.u64());
    }
    if has(3) {
        resources.snapshot.at_heartbeat = Some(input.u64());
    }
    resources.snapshot.on_listener = has(4);
    if has(5) {
        resources.snapshot.out_path = Some("out".to_owned());
    }
    if has(6) {
        resources.vcpus = input.u32();
    }
    if has(7) {
        resources.memory_mib = usize::try_from(input.number()).unwrap_or(usize::MAX);
    }
    for _ in 0..input.u8() {
        resources = resources.with_block_device("disk");
    }
    for _ in 0..input.u8() {
        resources = resources.with_volume(VolumeSpec::new("file", "/data"));
    }
    let cmdline = input.text(3000);
    resources.with_cmdline(cmdline)
}

fn check_description(resources: &VmResources) {
    let snapshot = &resources.snapshot;
    let triggers = [
        snapshot.after_ms.is_some(),
        snapshot.at_heartbeat.is_some(),
        snapshot.on_listener,
    ];
    let enough = resources.vcpus != 0
        && resources.memory_mib != 0
        && (resources.kernel_path.is_some() || resources.restore_from.is_some())
        && (snapshot.out_path.is_some() || triggers == [false; 3]);
    assert_eq!(resources.validate_for_run().is_ok(), enough);
    let exact = (resources.memory_mib as u128) << 20;
    let bytes = resources.memory_bytes() as u128;
    assert_eq!(bytes, exact.min(usize::MAX as u128));
}

fn check_devices(resources: &VmResources, end_intid: u32) {
    let devices = FIXED_VIRTIO + resources.block_devices.len() + resources.volumes.len();
    let slots = arch::of(Architecture::Aarch64).layout().virtio;
    let interrupts = i64::from(end_intid) - i64::from(slots.first_line);
    let max = interrupts.clamp(0, i64::from(slots.max));
    match virtio_count(
        &slots,
        resources.block_devices.len() + resources.volumes.len(),
        end_intid,
    ) {
        Ok(count) => {
            assert_eq!(count as usize, devices);
            assert!(i64::from(count) <= max);
            assert!(slots.line_of(count - 1) < end_intid);
        }
        Err(_) => assert!(devices as u128 > max.unsigned_abs().into()),
    }
}

fn check_command_line(cmdline: &str, extra: &str) {
    let parts = [cmdline.trim(), extra.trim()];
    let separator = usize::from(parts.iter().all(|part| !part.is_empty()));
    let len = parts[0].len() + separator + parts[1].len();
    let printable = |part: &&str| part.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let max = arch::of(Architecture::Aarch64).max_cmdline_bytes();
    let good = len <= max && parts.iter().all(printable);
    let joined = command_line(cmdline, extra, max);
    assert_eq!(joined.is_ok(), good);
    if let Ok(joined) = joined {
        assert!(joined.starts_with(parts[0]) && joined.ends_with(parts[1]));
        assert_eq!(joined.len(), len);
    }
}
