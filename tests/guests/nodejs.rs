//! nodejs: a JIT compiler, typed arrays, crypto, workers, timers, HTTP.

use supermachine_tests::Guest;

fn tour(vcpus: u32) {
    let mut guest = Guest::boot("nodejs", vcpus, 1024);
    guest.program(
        "tour",
        &["nodejs"],
        "js",
        include_str!("../programs/node-tour.js"),
        include_str!("../programs/node-tour.out"),
    );
    guest.finish();
}

#[test]
fn node_prints_what_it_must() {
    tour(1);
}

#[test]
fn node_prints_what_it_must_on_four_vcpus() {
    tour(4);
}
