//! What an image of many layers costs the process that bakes it.
//!
//! One test, since it lowers a limit of the whole process.

mod support;

use rustix::process::{Resource, Rlimit, setrlimit};
use supermachine_oci_bake::{
    BakeError, BakeOptions, ImageBuilder, LayerBuilder, LayerError, Reference, bake,
};
use support::*;

/// Layers of the image, as many as usual runtimes take.
const LAYERS: usize = 127;
/// Descriptors the process may have: the test harness has some.
const DESCRIPTORS: u64 = 48;

#[test]
fn descriptors_and_memory_do_not_grow_with_the_number_of_layers() {
    let scratch = Scratch::new();
    let layout = scratch.path("image");
    let mut image = ImageBuilder::new();
    for number in 0..LAYERS {
        let mut layer = LayerBuilder::new();
        for file in 0..20 {
            // The directory is implied: what is below is looked at.
            layer = layer.file(&format!("d{number}/some-file-{file}"), 0o644, "content");
        }
        image = image.layer(layer);
    }
    image.write_layout(&layout).unwrap();
    let reference = Reference::parse(&format!("oci:{}", text(&layout))).unwrap();
    let limit = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();

    let mut options = BakeOptions::default();
    options.limits.max_image_tree_bytes = 64 << 10;
    let error = bake(&reference, &options, &scratch.store()).unwrap_err();
    match &error {
        BakeError::Layer {
            source: LayerError::LimitExceeded { .. },
            ..
        } => {}
        other => panic!("{}", chain(other)),
    }
    let error = chain(&error);
    for part in ["in all layers together", "raise the limit"] {
        assert!(error.contains(part), "{error}");
    }

    let baked = bake(&reference, &BakeOptions::default(), &scratch.store())
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(baked.diff_ids.len(), LAYERS);
    assert_eq!(baked.layers.len(), 63);
}
