//! Chooses how a handler continues with the next op: see `src/dispatch`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(tail_calls)");
    println!("cargo::rustc-check-cfg=cfg(compiles)");
    let value = |name: &str| env::var(name).unwrap_or_default();
    // The level this crate is compiled at, which a profile of the crate that
    // depends on it sets. Below it a call at a function's end stays a call.
    let optimised = matches!(value("OPT_LEVEL").as_str(), "2" | "3");
    // Where `dispatch` knows how to read the stack pointer.
    let guarded = matches!(
        value("CARGO_CFG_TARGET_ARCH").as_str(),
        "x86_64" | "aarch64"
    );
    if optimised && guarded {
        println!("cargo::rustc-cfg=tail_calls");
        // Compiled code is entered as a handler is: see `src/jit`.
        if value("CARGO_CFG_TARGET_ARCH") == "x86_64" && value("CARGO_CFG_TARGET_OS") == "linux" {
            println!("cargo::rustc-cfg=compiles");
        }
    }
}
