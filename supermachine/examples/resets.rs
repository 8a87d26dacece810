use std::time::Instant;
use supermachine::{Image, VmConfig};
fn main() -> Result<(), supermachine::Error> {
    let r = std::env::args().nth(1).unwrap();
    let n: u32 = std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(3);
    let image = Image::builder(r).build()?;
    let vm = image.start(&VmConfig::new())?;
    for _ in 0..n {
        let begun = Instant::now();
        let out = vm.exec(["cat", "/proc/sys/kernel/random/boot_id"])?;
        let a = begun.elapsed();
        let out2 = vm.exec(["true"])?;
        println!("exec {a:?} {:?} {}", begun.elapsed(), String::from_utf8_lossy(&out.stdout));
        let _ = out2;
        let begun = Instant::now();
        image.reset_for_test(&vm)?;
        println!("reset {:?} {:?}", begun.elapsed(), vm.copy_report());
    }
    Ok(())
}
