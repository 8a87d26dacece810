//! Bakes an image and runs a command in copies of it.
//!
//! `cargo run --release -p supermachine --example copies -- oci:DIR [COPIES]`

use std::time::Instant;
use supermachine::{Image, VmConfig};

fn main() -> Result<(), supermachine::Error> {
    // This executable is its own worker.
    supermachine::worker_main();
    let mut arguments = std::env::args().skip(1);
    let reference = arguments.next().unwrap_or_default();
    let copies = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    let begun = Instant::now();
    let image = Image::builder(reference).build()?;
    println!(
        "baked in {:?}: {:?}",
        begun.elapsed(),
        image.snapshot_path()
    );
    for copy in 0..copies {
        let begun = Instant::now();
        let vm = image.start(&VmConfig::new())?;
        let started = begun.elapsed();
        let out = vm.exec(["cat", "/proc/sys/kernel/random/boot_id"])?;
        println!(
            "copy {copy}: ready {started:?}, answered {:?}: {}{:?}",
            begun.elapsed(),
            String::from_utf8_lossy(&out.stdout),
            vm.copy_report()
        );
        vm.stop()?;
    }
    Ok(())
}
