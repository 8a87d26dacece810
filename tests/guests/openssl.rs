//! openssl: digests, ciphers, signatures.

use supermachine_tests::Guest;

#[test]
fn openssl_prints_what_it_must() {
    let mut guest = Guest::boot("openssl", 1, 256);
    guest.shell(
        "tour",
        include_str!("../programs/openssl.sh"),
        include_str!("../programs/openssl.out"),
    );
    guest.finish();
}
