//! Tells the linker that the runtime has the functions of Node-API. On Macs the program
//! asks for them itself (`dyn-symbols` in Cargo.toml), so that a name that is missing there
//! is an error of the linker.

fn main() {
    let system = std::env::var("CARGO_CFG_TARGET_OS");
    if system.as_deref() != Ok("macos") {
        napi_build::setup();
    }
}
