//! Boots in a row. `cargo run --release -p supermachine-tests --bin soak` does
//! as many as one likes.

use supermachine_tests::{config, image};

const BOOTS: u32 = 30;

#[test]
fn thirty_boots_in_a_row_answer_right() {
    let image = image("busybox");
    for boot in 0..BOOTS {
        let vcpus = if boot % 3 == 2 { 4 } else { 1 };
        let vm = image
            .start(&config().with_vcpus(vcpus))
            .unwrap_or_else(|error| panic!("boot {boot} with {vcpus} vCPUs: {error}"));
        let outcome = vm
            .exec(["sh", "-c", "echo $((6*7)); nproc"])
            .unwrap_or_else(|error| panic!("boot {boot} with {vcpus} vCPUs: {error}"));
        assert_eq!(
            String::from_utf8_lossy(&outcome.stdout),
            format!("42\n{vcpus}\n"),
            "boot {boot}"
        );
        vm.stop()
            .unwrap_or_else(|error| panic!("stop {boot}: {error}"));
    }
}
