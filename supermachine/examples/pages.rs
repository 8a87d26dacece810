//! The Rust programs of the published pages, word for word but for the paths of
//! snapshots and directories and a port, run one after the other.
//!
//! `cargo run --release -p supermachine --example pages -- oci:DIR SNAPSHOTS`
//!
//! `oci:DIR` is an image with a shell, baked into the directory SNAPSHOTS. The compiler
//! that the pages call is a script of this program's there, which makes a program of
//! the one line that theirs have.

use kernel as supermachine_kernel;
use std::error::Error as StdError;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use supermachine::{Image, MountSpec, SymlinkPolicy, Vm, VmConfig};

/// Stands in for the compiler: `rustc [-O] SOURCE -o PROGRAM`.
const COMPILER: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case "$1" in -o) out=$2; shift ;; -*) ;; *) source=$1 ;; esac
    shift
done
text=$(sed -n 's/.*println!("\([^"]*\)").*/\1/p' "$source")
printf '#!/bin/sh\necho "%s"\n' "$text" > "$out"
chmod 755 "$out"
"#;

fn main() -> Result<(), Box<dyn StdError>> {
    // This executable is its own worker.
    supermachine::worker_main();
    let mut arguments = std::env::args().skip(1);
    let (Some(reference), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pages IMAGE SNAPSHOTS".into());
    };
    let directory = PathBuf::from(directory);
    let snapshot = with_compiler(&reference, &directory)?;
    first(&snapshot)?;
    verifier_loop(&snapshot)?;
    service(&snapshot)?;
    streaming(&snapshot)?;
    let warm = warm_up(&reference, &directory)?;
    best_config(&warm)?;
    evaluate(&snapshot)?;
    bundled(&snapshot)?;
    mounted(&reference, &directory)?;
    println!("every page has run");
    Ok(())
}

/// The image of the pages: one that has the compiler.
fn with_compiler(reference: &str, directory: &Path) -> Result<PathBuf, supermachine::Error> {
    let image = Image::builder(reference)
        .name("rust-slim")
        .snapshots_dir(directory)
        .with_warmup(install)
        .build()?;
    Ok(image.snapshot_path().unwrap_or(directory).to_owned())
}

fn install(vm: &Vm) -> Result<(), supermachine::Error> {
    vm.exec_builder()
        .stage_file_mode("/bin/rustc", COMPILER, 0o755)
        .argv(["true"])
        .output()
        .map(drop)
}

/// 0.7.1, in front.
fn first(path: &Path) -> Result<(), supermachine::Error> {
    let image = Image::from_snapshot(path)?;
    let vm = image.start(&VmConfig::new())?;

    let out = vm
        .exec_builder()
        .stage_file("/tmp/main.rs", b"fn main() { println!(\"hi\"); }".to_vec())
        .argv(["rustc", "/tmp/main.rs", "-o", "/tmp/m"])
        .chain(["/tmp/m"])
        .timeout(Duration::from_secs(30))
        .output()?;

    assert!(out.success());
    println!("ran in {:?}, stdout: {:?}", out.duration, out.stdout);
    vm.stop()?;

    assert_eq!(out.stdout, b"hi\n");
    Ok(())
}

/// 0.7.1, "Verifier loop".
fn verifier_loop(path: &Path) -> Result<(), supermachine::Error> {
    let candidate_sources = [
        "fn main() { println!(\"a\"); }",
        "fn main() { println!(\"b\"); }",
    ];
    let mut said = Vec::new();

    let image = Image::from_snapshot(path)?;
    let pool = image
        .pool()
        .min(4)
        .max(8)
        .restore_on_release(false) // keep guest cache warm
        .build()?;

    for src in candidate_sources {
        let vm = pool.acquire()?; // ~µs when warm
        let out = vm
            .exec_builder()
            .stage_file("/tmp/main.rs", src.as_bytes().to_vec())
            .argv(["rustc", "-O", "/tmp/main.rs", "-o", "/tmp/m"])
            .chain(["/tmp/m"])
            .timeout(Duration::from_secs(30))
            .output()?;
        said.extend(out.stdout);
        // vm dropped → returned to pool
    }

    assert_eq!(said, b"a\nb\n");
    Ok(())
}

/// 0.7.1, "Long-lived service", on whatever port of the host is free.
fn service(path: &Path) -> Result<(), supermachine::Error> {
    let image = Image::from_snapshot(path)?;
    let vm = image.start(&VmConfig::new())?;
    let _forwarder = vm.expose_tcp(0, 80)?; // host:8080 → guest:80
    println!("listening on http://{}/", _forwarder.local_addr());
    // ... wait for shutdown signal ...
    vm.stop()?;
    Ok(())
}

/// 0.7.1, "Streaming exec".
fn streaming(path: &Path) -> Result<(), Box<dyn StdError>> {
    let image = Image::from_snapshot(path)?;
    let vm = image.start(&VmConfig::new())?;

    let mut child = vm.exec_builder().argv(["cat"]).spawn()?;
    let mut stdin = child.stdin().unwrap();
    stdin.write_all(b"hello\n")?;
    stdin.close()?;
    let mut buf = String::new();
    child.stdout().unwrap().read_to_string(&mut buf)?;
    let status = child.wait()?;

    assert!(status.success() && buf == "hello\n");
    Ok(())
}

/// 0.7.1, "Performance recipes". The compiler comes first: it is of the image there.
fn warm_up(reference: &str, directory: &Path) -> Result<PathBuf, supermachine::Error> {
    let image = Image::builder(reference)
        .name("rust_warm")
        .snapshots_dir(directory)
        .with_warmup(|vm| {
            install(vm)?;
            vm.exec_builder()
                .stage_file(
                    "/tmp/seed.rs",
                    b"fn main() { println!(\"warm\"); }".to_vec(),
                )
                .argv(["rustc", "-O", "/tmp/seed.rs", "-o", "/tmp/seed"])
                .chain(["/tmp/seed"])
                .timeout(Duration::from_secs(60))
                .output()?;
            Ok(())
        })
        .with_warmup_tag("v1") // bump to invalidate cached warm bake
        .build()?;

    let warm = image.start(&VmConfig::new())?;
    assert_eq!(warm.exec(["/tmp/seed"])?.stdout, b"warm\n");
    Ok(image.snapshot_path().unwrap_or(directory).to_owned())
}

/// 0.7.1, "End-to-end best-config example".
fn best_config(path: &Path) -> Result<(), supermachine::Error> {
    let user_inputs = [b"fn main() { println!(\"user\"); }".to_vec()];
    let mut said = Vec::new();

    let image = Image::from_snapshot(path)?;
    let pool = image
        .pool()
        .min(2)
        .max(8)
        .idle_timeout(Duration::MAX)
        .restore_on_release(false)
        .build()?;

    for src in user_inputs {
        let vm = pool.acquire()?;
        let out = vm
            .exec_builder()
            .stage_file("/tmp/main.rs", src)
            .argv(["rustc", "-O", "/tmp/main.rs", "-o", "/tmp/m"])
            .chain(["/tmp/m"])
            .timeout(Duration::from_secs(30))
            .output()?;
        // ...
        said.extend(out.stdout);
    }

    assert_eq!(said, b"user\n");
    Ok(())
}

/// 0.3.6, "Eval / verifier loop".
#[expect(clippy::useless_conversion, reason = "the page has it")]
fn evaluate(path: &Path) -> Result<(), supermachine::Error> {
    // Concurrent eval: 5 candidate programs, all evaluated in parallel.
    let image = Arc::new(Image::from_snapshot(path)?);
    {
        // Prime the pool to 5 warm workers.
        let _ = image.acquire_with(&VmConfig::new().with_pool_warm(5))?;
    }
    let candidates: Vec<&str> = vec!["fn main() { println!(\"0\"); }"; 5];
    let handles: Vec<_> = candidates
        .into_iter()
        .map(|src| {
            let image = Arc::clone(&image);
            std::thread::spawn(move || {
                let vm = image.acquire()?; // ~ns when warm
                vm.write_file("/tmp/main.rs", src.as_bytes())?;
                vm.exec_builder()
                    .argv(["sh", "-c", "rustc /tmp/main.rs -o /tmp/m && /tmp/m"])
                    .timeout(Duration::from_secs(30))
                    .output()
                    .map_err(supermachine::Error::from)
                // vm dropped → returned to pool → fresh worker spawned
            })
        })
        .collect();
    let results: Vec<_> = handles.into_iter().map(|h| h.join().unwrap()).collect();

    for result in results {
        assert_eq!(result?.stdout, b"0\n");
    }
    Ok(())
}

/// 0.7.1, "Bundling for distribution", at run time.
fn bundled(path: &Path) -> Result<(), Box<dyn StdError>> {
    let image = Image::from_snapshot(path)?;

    let scratch = std::env::temp_dir().join("supermachine-assets");
    std::fs::create_dir_all(&scratch)?;
    supermachine_kernel::extract_kernel_to(&scratch.join("kernel"))?;
    supermachine_kernel::extract_init_oci_to(&scratch.join("init-oci"))?;

    let assets = supermachine::AssetPaths::from_dir(&scratch);
    let vm = Vm::start(&image, &VmConfig::new().with_assets(assets))?;

    assert_eq!(vm.exec(["echo", "hi"])?.stdout, b"hi\n");
    std::fs::remove_dir_all(&scratch)?;
    Ok(())
}

/// 0.7.1, "Live host-directory mount".
fn mounted(reference: &str, directory: &Path) -> Result<(), Box<dyn StdError>> {
    let app = directory.join("my-app");
    std::fs::create_dir_all(&app)?;
    std::fs::write(app.join("package.json"), "{}")?;

    let image = Image::build()
        .ref_(reference)
        .snapshots_dir(directory)
        .with_mount(
            MountSpec::new(&app, "workspace").with_symlinks(SymlinkPolicy::Opaque), // default
        )
        .run()?;

    let vm = image.start(&VmConfig::new().with_mount(MountSpec::new(&app, "workspace")))?;
    let inside =
        "mkdir -p /work && mount -t virtiofs workspace /work && cd /work && cat package.json";
    assert_eq!(vm.exec(["sh", "-c", inside])?.stdout, b"{}");
    vm.stop()?;
    Ok(())
}
