//! openssl: digests, ciphers, signatures.

use supermachine_tests::Guest;

fn tour(vcpus: u32) {
    let mut guest = Guest::boot("openssl", vcpus, 256);
    guest.shell(
        "tour",
        include_str!("../programs/openssl.sh"),
        include_str!("../programs/openssl.out"),
    );
    guest.finish();
}

#[test]
fn openssl_prints_what_it_must() {
    tour(1);
}

#[test]
fn openssl_prints_what_it_must_on_four_vcpus() {
    tour(4);
}
