//! Forks a running machine.
//!
//! `cargo run --release -p supermachine --example forks -- oci:DIR`

use std::time::Instant;
use supermachine::{Image, VmConfig};
fn main() -> Result<(), supermachine::Error> {
    let image = Image::builder(std::env::args().nth(1).unwrap()).build()?;
    let vm = image.start(&VmConfig::new())?;
    vm.exec(["sh", "-c", "echo parent > /tmp/x"])?;
    for n in [1, 1, 1, 10] {
        let begun = Instant::now();
        let children = vm.fork(n)?;
        let ready = begun.elapsed();
        let out = children[0].exec(["cat", "/tmp/x"])?;
        println!(
            "fork {n}: ready {ready:?} first exec {:?} paused {:?} {:?}",
            begun.elapsed(),
            vm.last_fork_pause(),
            String::from_utf8_lossy(&out.stdout)
        );
        for child in &children {
            let o = child.exec([
                "sh",
                "-c",
                "echo child > /tmp/x; cat /proc/sys/kernel/random/boot_id",
            ])?;
            print!("{}", String::from_utf8_lossy(&o.stdout));
        }
        println!(
            "parent still {:?}",
            String::from_utf8_lossy(&vm.exec(["cat", "/tmp/x"])?.stdout)
        );
    }
    Ok(())
}
