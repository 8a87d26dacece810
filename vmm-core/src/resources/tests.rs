use super::*;

#[test]
fn a_new_machine_is_small_and_has_a_console() {
    let machine = VmResources::new();
    assert_eq!(machine, VmResources::default());
    assert_eq!(machine.cmdline, "console=ttyAMA0 reboot=t panic=-1");
    assert_eq!(machine.memory_bytes(), 256 << 20);
    assert_eq!(machine.vcpus, 1);
    assert_eq!(machine.endpoints, EndpointResources::default());
    assert!(!machine.is_restore() && !machine.cow_restore);
}

#[test]
fn profiles_choose_the_number_of_vcpus() {
    let names = ["latency", "low-latency", "throughput", "Latency", ""];
    let vcpus = names.map(|name| VmProfile::parse(name).map(VmProfile::default_vcpus));
    assert_eq!(vcpus, [Some(1), Some(1), Some(4), None, None]);
    let mut machine = VmResources::new().with_profile(VmProfile::Throughput);
    assert_eq!(machine.vcpus, 4);
    machine.apply_profile_defaults(VmProfile::Latency);
    assert_eq!(machine.vcpus, 1);
    assert_eq!(machine.with_vcpus(3).vcpus, 3);
}

#[test]
fn a_machine_comes_from_a_kernel_or_a_saved_one() {
    let booted = VmResources::for_kernel("Image", "initrd.cpio");
    assert_eq!(booted.kernel_path.as_deref(), Some("Image"));
    assert_eq!(booted.initrd_path.as_deref(), Some("initrd.cpio"));
    assert_eq!(booted.validate_for_run(), Ok(()));

    let restored = VmResources::from_snapshot("vm.snap").with_cow_restore(true);
    assert_eq!(restored.restore_from.as_deref(), Some("vm.snap"));
    assert!(restored.is_restore() && restored.cow_restore);
    assert_eq!(restored.validate_for_run(), Ok(()));
}

#[test]
fn every_builder_sets_its_field() {
    let machine = VmResources::new()
        .with_cmdline("quiet")
        .with_memory_mib(64)
        .with_block_device("a.squashfs")
        .with_block_device("b.squashfs")
        .with_volume(VolumeSpec::new("data.img", "/data").with_size_bytes(4096))
        .with_snapshot_after_ms(10, "one")
        .with_snapshot_at_heartbeat(2, "two")
        .with_snapshot_on_listener("three")
        .with_quiesce_ms(5)
        .with_vsock_mux("mux.sock")
        .with_http_port("8080")
        .with_vsock_mux_handoff("handoff.sock")
        .with_vsock_exec("exec.sock")
        .with_vsock_exec_guest_port(2000);
    assert_eq!(machine.cmdline, "quiet");
    assert_eq!(machine.memory_mib, 64);
    assert_eq!(machine.block_devices, ["a.squashfs", "b.squashfs"]);
    let volume = &machine.volumes[0];
    assert_eq!((volume.size_bytes, &*volume.guest_path), (4096, "/data"));
    let snapshot = SnapshotResources {
        after_ms: Some(10),
        at_heartbeat: Some(2),
        on_listener: true,
        quiesce_ms: 5,
        out_path: Some("three".into()),
    };
    assert_eq!(machine.snapshot, snapshot);
    let endpoints = EndpointResources {
        vsock_mux: Some("mux.sock".into()),
        http_port: Some("8080".into()),
        vsock_mux_handoff: Some("handoff.sock".into()),
        vsock_exec: Some("exec.sock".into()),
        vsock_exec_guest_port: Some(2000),
    };
    assert_eq!(machine.endpoints, endpoints);
}

#[test]
fn volumes_are_one_gibibyte_unless_told() {
    assert_eq!(VolumeSpec::new("v", "/v").size_bytes, 1 << 30);
}

#[test]
fn checks_come_in_their_published_order_with_their_texts() {
    let mut machine = VmResources::new().with_memory_mib(0).with_vcpus(0);
    machine.snapshot.after_ms = Some(1);
    let mut texts = Vec::new();
    for fix in [
        |m: &mut VmResources| m.memory_mib = 1,
        |m: &mut VmResources| m.vcpus = 1,
        |m: &mut VmResources| m.kernel_path = Some("Image".into()),
        |m: &mut VmResources| m.snapshot.out_path = Some("out".into()),
    ] {
        texts.push(machine.validate_for_run().unwrap_err().to_string());
        fix(&mut machine);
    }
    assert_eq!(
        texts,
        [
            "memory must be greater than zero",
            "vCPU count must be greater than zero",
            "kernel path or restore snapshot is required",
            "snapshot trigger requires snapshot output path",
        ]
    );
    assert_eq!(machine.validate_for_run(), Ok(()));
}

#[test]
fn absurd_memory_sizes_do_not_overflow() {
    let machine = VmResources::new().with_memory_mib(usize::MAX);
    assert_eq!(machine.memory_bytes(), usize::MAX);
}
