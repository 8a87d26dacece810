//! Tells the linker that the runtime has the functions of Node-API.

fn main() {
    napi_build::setup();
}
