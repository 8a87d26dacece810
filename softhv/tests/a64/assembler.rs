//! The GNU assembler for A64, at test time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file name of this process, unique in it.
pub fn scratch(suffix: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("softhv-a64-{}-{n}{suffix}", std::process::id()))
}

fn tool(name: &str, configure: impl FnOnce(&mut Command) -> &mut Command) {
    let mut command = Command::new(name);
    let output = configure(&mut command)
        .output()
        .unwrap_or_else(|e| panic!("{name} runs (package binutils-aarch64-linux-gnu): {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
}

/// Assembles `source` with the given symbols into `object`.
fn assemble_to(object: &Path, source: &str, symbols: &[(&str, u64)]) {
    let input = scratch(".s");
    std::fs::write(&input, source).expect("write the source");
    tool("aarch64-linux-gnu-as", |c| {
        for (name, value) in symbols {
            c.arg("--defsym").arg(format!("{name}={value:#x}"));
        }
        c.args(["-march=armv8.4-a+crypto", "-o"])
            .args([object, &input])
    });
    let _ = std::fs::remove_file(input);
}

/// Assembles `source` with the given symbols into its bytes at `origin`.
pub fn assemble(source: &str, origin: u64, symbols: &[(&str, u64)]) -> Vec<u8> {
    let [object, linked, flat] = [".o", ".elf", ".bin"].map(scratch);
    assemble_to(&object, source, symbols);
    tool("aarch64-linux-gnu-ld", |c| {
        c.arg(format!("-Ttext={origin:#x}"))
            .arg("-o")
            .args([&linked, &object])
    });
    tool("aarch64-linux-gnu-objcopy", |c| {
        c.args(["-O", "binary", "-j", ".text"])
            .args([&linked, &flat])
    });
    let bytes = std::fs::read(&flat).expect("read the program");
    for path in [object, linked, flat] {
        let _ = std::fs::remove_file(path);
    }
    bytes
}

/// Assembles `source` into a Linux program whose code may be written to; the caller
/// removes it.
pub fn executable(source: &str, symbols: &[(&str, u64)]) -> PathBuf {
    let [object, linked] = [".o", ".elf"].map(scratch);
    assemble_to(&object, source, symbols);
    tool("aarch64-linux-gnu-ld", |c| {
        c.arg("-N").arg("-o").args([&linked, &object])
    });
    let _ = std::fs::remove_file(object);
    linked
}
