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

#[test]
fn what_boots_says_the_same_in_types() {
    let resources = VmResources::for_kernel("Image", "initrd.cpio")
        .with_cmdline("quiet")
        .with_memory_mib(64)
        .with_vcpus(3)
        .with_block_device("a.squashfs")
        .with_block_device("b.squashfs")
        .with_volume(VolumeSpec::new("data.img", "/data").with_size_bytes(4096))
        .with_cow_restore(true)
        .with_quiesce_ms(5)
        .with_vsock_mux("mux.sock")
        .with_vsock_exec("exec.sock")
        .with_vsock_exec_guest_port(2000);
    let spec = MachineSpec::try_from(&resources).unwrap();
    let paths = |files: &[HostFile]| -> Vec<PathBuf> {
        files.iter().map(|file| file.name().to_owned()).collect()
    };
    assert_eq!(spec.kernel.name(), Path::new("Image"));
    assert_eq!(spec.initrd.unwrap().name(), Path::new("initrd.cpio"));
    assert_eq!(
        (&*spec.cmdline, spec.memory_bytes, spec.vcpus),
        ("quiet", 64 << 20, 3)
    );
    assert_eq!(
        paths(&spec.disks),
        ["a.squashfs", "b.squashfs"].map(PathBuf::from)
    );
    let volumes = spec.volumes.iter();
    let volumes: Vec<_> = volumes
        .map(|volume| (volume.file.name(), volume.new_bytes))
        .collect();
    assert_eq!(volumes, [(Path::new("data.img"), 4096)]);
    let endpoints = Endpoints {
        mux: Some("mux.sock".into()),
        stem: Some("mux.sock".into()),
        exec: Some("exec.sock".into()),
        exec_guest_port: 2000,
    };
    assert_eq!(spec.endpoints, endpoints);
    // Without a port it is the agent's.
    let spec = MachineSpec::try_from(&VmResources::new().with_kernel_path("Image")).unwrap();
    assert_eq!(spec.endpoints, Endpoints::default());
    assert_eq!(spec.cmdline, DEFAULT_CMDLINE);
}

#[test]
fn nothing_that_is_asked_for_is_left_out_silently() {
    let good = || VmResources::new().with_kernel_path("Image");
    let balloon = |pages| VmResources {
        balloon_target_pages: Some(pages),
        ..good()
    };
    let restored = VmResources::from_snapshot("vm.snap");
    let cases = [
        (restored.clone(), "Image::from_snapshot"),
        (restored.with_kernel_path("Image"), "Image::from_snapshot"),
        (good().with_snapshot_after_ms(1, "out"), "Vm::snapshot"),
        (
            good().with_snapshot_at_heartbeat(1, "out"),
            "Trigger::Heartbeat",
        ),
        (good().with_snapshot_on_listener("out"), "Trigger::Listener"),
        (balloon(1), "VmConfig::with_memory_mib"),
        (good().with_http_port("80"), "Vm::connect"),
        (good().with_vsock_mux_handoff("handoff.sock"), "vsock_mux"),
        (good().with_vcpus(0), "vCPU count"),
        (VmResources::new(), "kernel path"),
    ];
    for (resources, instead) in cases {
        let text = MachineSpec::try_from(&resources).unwrap_err().to_string();
        assert!(text.contains(instead), "{text}");
    }
    assert!(MachineSpec::try_from(&balloon(0)).is_ok());
}

/// A mutation of a description that makes it one of those that are refused.
type Ask = fn(&mut VmResources);

#[test]
fn a_description_is_accepted_if_it_asks_for_nothing_else() {
    let asks: [Ask; 9] = [
        |resources| resources.restore_from = Some("saved".into()),
        |resources| resources.snapshot.after_ms = Some(1),
        |resources| resources.snapshot.at_heartbeat = Some(1),
        |resources| resources.snapshot.on_listener = true,
        |resources| resources.balloon_target_pages = Some(1),
        |resources| resources.endpoints.http_port = Some("80".into()),
        |resources| resources.endpoints.vsock_mux_handoff = Some("handoff".into()),
        |resources| resources.vcpus = 0,
        |resources| resources.kernel_path = None,
    ];
    for chosen in 0..1_u32 << asks.len() {
        for out_path in [None, Some("out".to_owned())] {
            let mut resources = VmResources::new().with_kernel_path("Image");
            resources.snapshot.out_path = out_path;
            for (bit, ask) in asks.iter().enumerate() {
                if chosen >> bit & 1 == 1 {
                    ask(&mut resources);
                }
            }
            let converted = MachineSpec::try_from(&resources);
            assert_eq!(converted.is_ok(), chosen == 0, "{resources:?}");
        }
    }
}
