//! What container engines need that run inside a guest.

use supermachine_tests::Guest;

const OVERLAY: &str = "
stack() {
    mkdir -p $1/lower $1/upper $1/work $1/merged && echo one > $1/lower/file
    busybox mount -t overlay overlay -o lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work $1/merged \
        2>/dev/null && echo two > $1/merged/file && cat $1/lower/file $1/upper/file
}
mkdir -p /var/lib/engine
stack /var/lib/engine || echo refused on /
busybox mount -t tmpfs engine /var/lib/engine
stack /var/lib/engine";

#[test]
fn namespaces_reach_one_another_over_a_bridge_and_address_translation() {
    let mut guest = Guest::boot("network", 2, 256);
    let script = include_str!("../programs/nested-network.sh");
    guest.shell(
        "nested network",
        script,
        "without translation: nothing\n\
         iptables-nft: seen as 10.2.0.1\n\
         1\n\
         0\n\
         nft: seen as 10.2.0.1\n\
         without translation: nothing\n",
    );
    guest.finish();
}

/// As init-shim's README says of container engines.
#[test]
fn overlay_needs_an_upper_directory_that_is_not_on_the_root() {
    let mut guest = Guest::boot("network", 1, 256);
    guest.shell("overlay", OVERLAY, "refused on /\none\ntwo\n");
    guest.finish();
}

/// As init-shim's README says of shared mounts.
#[test]
fn mount_is_moved_only_in_a_mount_namespace_of_its_own() {
    let mut guest = Guest::boot("network", 1, 256);
    let script = "
mkdir /tmp/from /tmp/to && busybox mount -t tmpfs moved /tmp/from && echo kept > /tmp/from/file
busybox mount --move /tmp/from /tmp/to 2>&1
busybox unshare -m sh -c 'busybox mount --move /tmp/from /tmp/to && cat /tmp/to/file'
cat /tmp/from/file; ls /tmp/to";
    guest.shell(
        "moved mount",
        script,
        "mount: mounting /tmp/from on /tmp/to failed: Invalid argument\nkept\nkept\n",
    );
    guest.finish();
}
