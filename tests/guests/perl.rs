//! perl: regular expressions, pack, number formatting, sorting.

use supermachine_tests::Guest;

#[test]
fn perl_prints_what_it_must() {
    let mut guest = Guest::boot("perl", 1, 256);
    guest.program(
        "tour",
        &["perl"],
        "pl",
        include_str!("../programs/perl-tour.pl"),
        include_str!("../programs/perl-tour.out"),
    );
    guest.finish();
}
