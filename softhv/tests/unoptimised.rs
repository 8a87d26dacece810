//! What a crate outside this workspace gets that builds the engine without
//! optimisation, as `cargo build` does where no profile says otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;

const MANIFEST: &str = r#"
[package]
name = "dependent"
version = "0.0.0"
edition = "2024"

[dependencies]
supermachine-softhv = { path = "SOFTHV" }
supermachine-hvf = { path = "SOFTHV/../hvf" }

[workspace]
"#;

/// Runs 5 million instructions, loads, stores, calls and reads of the counter
/// among them, on a thread with little stack.
const PROGRAM: &str = r#"
use std::ptr::NonNull;
use supermachine_hvf::sys::{MemoryFlags, Reg};
use supermachine_hvf::{ExceptionClass, Vm};

#[repr(align(16384))]
struct Page([u32; 4096]);

fn run() -> u64 {
    let mut page = Box::new(Page([0; 4096]));
    page.0[..13].copy_from_slice(&[
        0x5280_0000, //       mov  w0, #0
        0x52a0_0101, //       mov  w1, #0x80000
        0xd2a8_0002, //       mov  x2, #0x40000000
        0xf904_0040, // loop: str  x0, [x2, #2048]
        0xf944_0043, //       ldr  x3, [x2, #2048]
        0x8b03_0000, //       add  x0, x0, x3
        0xd53b_e044, //       mrs  x4, cntvct_el0
        0x9400_0004, //       bl   next
        0xf100_0421, //       subs x1, x1, #1
        0x54ff_ff41, //       b.ne loop
        0xd400_0002, //       hvc  #0
        0x9100_0400, // next: add  x0, x0, #1
        0xd65f_03c0, //       ret
    ]);
    let vm = Vm::new(supermachine_softhv::api(), None).expect("a VM");
    let host = NonNull::from(&mut *page).cast();
    // SAFETY: the page outlives the machine and is not used while it runs.
    unsafe { vm.map(host, 0x4000_0000, 16384, MemoryFlags::RWX) }.expect("mapped");
    let mut vcpu = vm.create_vcpu().expect("a vCPU");
    vcpu.set_reg(Reg::CPSR, 0x3c5).expect("CPSR");
    vcpu.set_reg(Reg::PC, 0x4000_0000).expect("PC");
    let exit = vcpu.run().expect("a run");
    assert_eq!(ExceptionClass::of(exit.exception.syndrome), ExceptionClass::HVC);
    vcpu.general(1).expect("X1")
}

fn main() {
    let thread = std::thread::Builder::new().stack_size(192 << 10);
    let left = thread.spawn(run).expect("a thread").join().expect("a result");
    println!("left {left}");
}
"#;

/// A directory for the crate, as it was left by the last run.
fn crate_dir(workspace: &Path) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dependent");
    let softhv = env!("CARGO_MANIFEST_DIR");
    std::fs::create_dir_all(dir.join("src")).expect("a directory");
    let manifest = MANIFEST.replace("SOFTHV", softhv);
    std::fs::write(dir.join("Cargo.toml"), manifest).expect("written");
    std::fs::write(dir.join("src/main.rs"), PROGRAM).expect("written");
    // The versions that are there already, so that no network is needed.
    std::fs::copy(workspace.join("Cargo.lock"), dir.join("Cargo.lock")).expect("copied");
    dir
}

#[test]
fn a_debug_build_of_a_dependent_crate_runs_millions_of_instructions() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = crate_dir(&workspace);
    let output = Command::new(env!("CARGO"))
        .args(["run", "--offline", "--quiet", "--target-dir", "target"])
        .current_dir(&dir)
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "left 0\n", "{}: {errors}", output.status);
}
