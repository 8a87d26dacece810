use super::*;
use clap::Parser;

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    image: ImageArguments,
}

fn machines(images: &[&str]) -> Machines {
    let limits = Limits {
        machines: 3,
        memory_mib: 256,
        max_memory_mib: 512,
        max_vcpus: 2,
        timeout: Duration::from_secs(9),
        output_bytes: 100,
        snapshots: 1,
    };
    let image = Words::parse_from(["words"]).image;
    let images = images.iter().map(|&image| image.to_owned()).collect();
    Machines::new(VmConfig::new(), limits, image, images)
}

#[test]
fn nothing_of_the_host_can_be_named_unless_it_was_listed() {
    let any = machines(&[]);
    let of_registries = ["busybox", "python:3.12-slim", "host:5000/a/b@latest"];
    assert_eq!(
        any.source(of_registries[1]).unwrap(),
        Source::Image("python:3.12-slim".into())
    );
    for of_the_host in [
        "rootfs:/",
        "tar:/etc/shadow",
        "oci:/tmp",
        "oci-archive:x",
        "docker-archive:x",
        "docker:busybox",
        "docker-daemon:busybox",
        "snapshot:/tmp/x",
        "snapshot:..",
        "/",
        "./x",
        "../x",
        "..",
        "",
    ] {
        assert!(any.source(of_the_host).is_err(), "{of_the_host}");
    }
    let listed = machines(&["rootfs:/srv/root"]);
    assert_eq!(
        listed.source("rootfs:/srv/root").unwrap(),
        Source::Image("rootfs:/srv/root".into())
    );
    assert!(listed.source("rootfs:/srv").is_err());
    assert!(listed.source("busybox").is_err());
}

#[test]
fn room_that_is_not_used_is_given_back() {
    let machines = machines(&[]);
    let two = machines.room_for(2).unwrap();
    assert!(machines.room_for(2).is_err());
    let one = machines.room_for(1).unwrap();
    assert!(machines.room_for(1).is_err());
    drop((one, two));
    assert!(machines.room_for(3).is_ok());
    assert!(machines.room_for(0).is_err());
    assert!(machines.room_for(usize::MAX).is_err());
}

#[test]
fn times_are_within_the_limit() {
    let machines = machines(&[]);
    let argv = ["true".to_owned()];
    assert!(machines.command(&argv, None).is_ok());
    assert!(machines.command(&argv, Some(9.0)).is_ok());
    for seconds in [0.0, -1.0, 9.1, f64::NAN, f64::INFINITY, 1e300] {
        assert!(machines.command(&argv, Some(seconds)).is_err(), "{seconds}");
    }
    assert!(machines.command(&[], None).is_err());
}

#[test]
fn memory_and_processors_are_within_the_limits() {
    let machines = machines(&[]);
    let asked = |memory_mib, vcpus| Run {
        image: String::new(),
        command: None,
        memory_mib,
        vcpus,
        timeout_seconds: None,
    };
    assert!(machines.config_of(&asked(None, None)).is_ok());
    assert!(machines.config_of(&asked(Some(512), Some(2))).is_ok());
    assert!(machines.config_of(&asked(Some(513), None)).is_err());
    assert!(machines.config_of(&asked(None, Some(3))).is_err());
}
