//! Bakes an image and prints what a virtual machine would mount and run:
//! `cargo run --example bake -- REF CACHE_DIR [--lz4]`.

use std::process::ExitCode;
use std::time::Instant;

use supermachine_oci_bake::{BakeOptions, Compression, Reference, Store, bake};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [reference, cache, rest @ ..] = args.as_slice() else {
        return Err("usage: bake REF CACHE_DIR [--lz4]".into());
    };
    let mut options = BakeOptions::default();
    if rest.iter().any(|arg| arg == "--lz4") {
        options.compression = Compression::Lz4;
    }
    let start = Instant::now();
    let image = bake(
        &Reference::parse(reference)?,
        &options,
        &Store::open(cache)?,
    )?;
    for layer in &image.layers {
        println!("{}", layer.display());
    }
    println!(
        "command: {:?}",
        image.config.command(None, None).unwrap_or_default()
    );
    eprintln!("{} layers in {:.1?}", image.layers.len(), start.elapsed());
    Ok(())
}
