//! bash, coreutils, grep, sed, awk, find, tar and gzip.

use supermachine_tests::Guest;

fn checks(guest: &mut Guest) {
    guest.shell(
        "bash language",
        include_str!("../programs/bash-language.sh"),
        include_str!("../programs/bash-language.out"),
    );
    guest.shell(
        "coreutils",
        include_str!("../programs/coreutils.sh"),
        include_str!("../programs/coreutils.out"),
    );
    guest.shell(
        "text tools and archives",
        include_str!("../programs/text-tools.sh"),
        include_str!("../programs/text-tools.out"),
    );
}

#[test]
fn shell_and_coreutils_print_what_they_must() {
    let mut guest = Guest::boot("base", 1, 256);
    checks(&mut guest);
    guest.finish();
}

#[test]
fn shell_and_coreutils_print_what_they_must_on_four_vcpus() {
    let mut guest = Guest::boot("base", 4, 256);
    checks(&mut guest);
    guest.finish();
}
