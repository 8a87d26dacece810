//! perl: regular expressions, pack, number formatting, sorting.

use supermachine_tests::Guest;

fn tour(vcpus: u32) {
    let mut guest = Guest::boot("perl", vcpus, 256);
    guest.program(
        "tour",
        &["perl"],
        "pl",
        include_str!("../programs/perl-tour.pl"),
        include_str!("../programs/perl-tour.out"),
    );
    guest.finish();
}

#[test]
fn perl_prints_what_it_must() {
    tour(1);
}

#[test]
fn perl_prints_what_it_must_on_four_vcpus() {
    tour(4);
}
