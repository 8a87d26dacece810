//! Images that are as large, as deep and as many as can be, and one more.

mod support;

use supermachine_oci_bake::{
    BakeError, BakeOptions, ImageBuilder, ImageError, LayerBuilder, Reference, bake,
};
use support::{Layout, Scratch, chain, run, text};

#[test]
fn a_path_as_deep_as_linux_can_name_is_baked() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    // PATH_MAX with the NUL at its end.
    let path = format!("{}f", "d/".repeat(2047));
    assert_eq!(path.len(), 4095);
    // Directories that nothing describes, as deep.
    let tar = LayerBuilder::new().file(&path, 0o644, "deep").to_tar();
    layout.image(&tar.unwrap());
    let baked = scratch.bake(&layout.reference()).unwrap();
    let seen = run("unsquashfs", &["-cat", text(&baked.layers[0]), &path]);
    assert_eq!(seen, b"deep");
}

#[test]
fn more_layers_than_the_limit_are_refused_before_any_is_read() {
    let scratch = Scratch::new();
    let layout = scratch.path("image");
    let layers = (0..3).map(|n| LayerBuilder::new().file(&format!("f{n}"), 0o644, "f"));
    let image = layers.fold(ImageBuilder::new(), ImageBuilder::layer);
    image.write_layout(&layout).unwrap();
    let reference = Reference::parse(&format!("oci:{}", text(&layout))).unwrap();
    let with = |max_layers| {
        let mut options = BakeOptions::default();
        options.limits.max_layers = max_layers;
        bake(&reference, &options, &scratch.store())
    };
    let error = with(2).unwrap_err();
    let is_named = matches!(
        error,
        BakeError::Image(ImageError::TooMany {
            what: "layers",
            limit: 2
        })
    );
    assert!(is_named, "{}", chain(&error));
    let layers = std::fs::read_dir(scratch.path("cache/layers")).unwrap();
    assert_eq!(layers.count(), 0);
    assert_eq!(with(3).unwrap().layers.len(), 3);
}
