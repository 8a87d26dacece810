//! An executable that is its own worker: no other is found here.

use std::path::Path;
use supermachine::{Image, VmConfig};

fn main() {
    supermachine::worker_main();
    // cargo asks test executables for the names of their tests.
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    let executable = std::env::current_exe().unwrap();
    let layout = executable
        .ancestors()
        .map(|dir| dir.join("demo/busybox"))
        .find(|dir| dir.join("oci-layout").is_file());
    let layout = layout.expect("run `cargo xtask demo` once");
    let shelf =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reentry-{}", std::process::id()));
    let image = Image::builder(format!("oci:{}", layout.display()))
        .name("image")
        .layer_cache(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache/supermachine/images"))
        .snapshots_dir(&shelf)
        .build()
        .unwrap();
    for _ in 0..2 {
        let vm = image.start(&VmConfig::new()).unwrap();
        assert_eq!(
            vm.exec(["echo", "own worker"]).unwrap().stdout,
            b"own worker\n"
        );
        let workers = supermachine::running::list();
        let own = workers
            .iter()
            .find(|vm| vm.description.owner_pid == std::process::id());
        let pid = own.unwrap().description.worker_pid;
        let running = std::fs::read_link(format!("/proc/{pid}/exe"));
        assert!(running.map_or(cfg!(not(target_os = "linux")), |path| path == executable));
    }
    let _ = std::fs::remove_dir_all(shelf);
    println!("an executable can be its own worker: ok");
}
