use std::collections::BTreeSet;

use super::Input;
use super::tree::{Tree, parse};
use crate::arch::aarch64::fdt::{FdtSpec, build};
use crate::arch::aarch64::{affinity, layout};

/// More vCPUs than any engine offers.
const MAX_VCPUS: u16 = 100;

/// The tree of any machine can be read back, says what the machine is, and
/// has room where it goes.
///
/// # Panics
/// When it cannot.
pub fn fuzz_fdt(data: &[u8]) {
    let mut input = Input(data);
    let rng_seed = [input.u8(); 64];
    let vcpus = u32::from(input.u16() % MAX_VCPUS);
    let virtio_devices = input.u32() % (layout::MAX_VIRTIO + 1);
    let ram_bytes = input.number();
    let initrd = input.bool().then(|| (input.number(), input.number()));
    let kaslr_seed = input.bool().then(|| input.u64());
    let (distributor_bytes, redistributor_bytes) = (input.number(), input.number());
    let cmdline = input.text(2048);
    let spec = FdtSpec {
        cmdline: &cmdline,
        vcpus,
        ram_bytes,
        initrd,
        virtio_devices,
        distributor_bytes,
        redistributor_bytes,
        rng_seed: &rng_seed,
        kaslr_seed,
    };
    let built = build(&spec);
    assert_eq!(built.is_err(), cmdline.contains('\0'));
    if let Ok(blob) = built {
        assert!(blob.len() as u64 <= layout::FDT_BYTES);
        let tree = parse(&blob).expect("a tree that can be read");
        check(&spec, &tree);
    }
}

fn check(spec: &FdtSpec<'_>, tree: &Tree<'_>) {
    let number = |value: Option<u64>| value.map(u64::to_be_bytes).map(|bytes| bytes.to_vec());
    let property = |node: &str, name: &str| tree.property(node, name).map(<[u8]>::to_vec);
    let text = [spec.cmdline.as_bytes(), b"\0"].concat();
    assert_eq!(property("/chosen", "bootargs"), Some(text));
    let start = number(spec.initrd.map(|(start, _)| start));
    assert_eq!(property("/chosen", "linux,initrd-start"), start);
    let end = number(spec.initrd.map(|(_, end)| end));
    assert_eq!(property("/chosen", "linux,initrd-end"), end);
    assert_eq!(property("/chosen", "kaslr-seed"), number(spec.kaslr_seed));
    let seed = Some(spec.rng_seed.to_vec());
    assert_eq!(property("/chosen", "rng-seed"), seed);

    let memory = format!("/memory@{:x}", layout::RAM);
    let reg = [layout::RAM, spec.ram_bytes].map(u64::to_be_bytes).concat();
    assert_eq!(property(&memory, "reg"), Some(reg));

    let cpus = tree.nodes().filter(|node| node.starts_with("/cpus/"));
    assert_eq!(cpus.count(), spec.vcpus as usize);
    for index in 0..spec.vcpus {
        let node = format!("/cpus/cpu@{:x}", affinity(index));
        assert_eq!(property(&node, "reg"), number(Some(affinity(index))));
    }
    let devices = tree
        .nodes()
        .filter(|node| node.starts_with("/virtio_mmio@"));
    assert_eq!(devices.count(), spec.virtio_devices as usize);
    let generation = format!("/vmgenid@{:x}", layout::GENERATION);
    let reg = [layout::GENERATION, layout::GENERATION_BYTES];
    let reg = Some(reg.map(u64::to_be_bytes).concat());
    assert_eq!(property(&generation, "reg"), reg);
    let mut interrupts = BTreeSet::new();
    interrupts.extend(property(&generation, "interrupts"));
    for slot in 0..spec.virtio_devices {
        let node = format!("/virtio_mmio@{:x}", layout::virtio_address(slot));
        let interrupt = property(&node, "interrupts").expect("it has one");
        assert!(interrupts.insert(interrupt), "two devices share one");
    }
    let phandles: Vec<&[u8]> = tree
        .nodes()
        .filter_map(|node| tree.property(node, "phandle"))
        .collect();
    let distinct: BTreeSet<&[u8]> = phandles.iter().copied().collect();
    assert_eq!(distinct.len(), phandles.len());
    let parent = tree.property("/", "interrupt-parent").expect("it is set");
    assert!(distinct.contains(parent));
}
