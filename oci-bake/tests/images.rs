//! Choosing the image, and saying what is wrong with one that cannot be used.

mod support;

use std::fs;

use serde_json::{Value, json};
use supermachine_oci_bake::{
    BakeError, BakeOptions, BakedImage, Digest, ImageBuilder, ImageError, LayerBuilder,
    LayerCompression, LayerError, Reference, bake,
};
use support::{CONFIG, INDEX, LAYER, Layout, MANIFEST, Scratch, chain, listing, text};

fn image_error(result: Result<BakedImage, BakeError>) -> ImageError {
    match result {
        Err(BakeError::Image(error)) => error,
        other => panic!("expected an image error, got {other:?}"),
    }
}

fn layer_bytes() -> Vec<u8> {
    LayerBuilder::new().file("f", 0o644, "x").to_tar().unwrap()
}

/// A manifest descriptor for an image of the given platform, which says so
/// in its config and, if asked, in the descriptor.
fn image_for(layout: &Layout, os: &str, arch: &str, variant: &str, announce: bool) -> Value {
    let layer = layer_bytes();
    let config = json!({
        "os": os, "architecture": arch, "variant": variant,
        "config": { "Cmd": [format!("{arch}{variant}")] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256_of(&layer).to_string()] },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "config": layout.descriptor(CONFIG, config.to_string().as_bytes()),
        "layers": [layout.descriptor(LAYER, &layer)],
    });
    let mut descriptor = layout.descriptor(MANIFEST, manifest.to_string().as_bytes());
    if announce {
        descriptor["platform"] = json!({ "os": os, "architecture": arch, "variant": variant });
    }
    descriptor
}

fn index_of(layout: &Layout, manifests: &[Value]) -> Value {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    layout.descriptor(INDEX, index.to_string().as_bytes())
}

fn command(image: &BakedImage) -> String {
    image.config.command(None, None).unwrap().join(" ")
}

#[test]
fn arm64_is_found_among_others_and_in_nested_indexes() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let manifests = [
        image_for(&layout, "linux", "amd64", "", true),
        image_for(&layout, "windows", "arm64", "", true),
        image_for(&layout, "linux", "arm", "v7", true),
        image_for(&layout, "linux", "arm64", "v9", true),
        image_for(&layout, "unknown", "unknown", "", true),
        image_for(&layout, "linux", "arm64", "v8", true),
    ];
    layout.index(&manifests);
    assert_eq!(
        command(&scratch.bake(&layout.reference()).unwrap()),
        "arm64v8"
    );
    let nested = index_of(&layout, &[index_of(&layout, &manifests)]);
    layout.index(&[nested]);
    assert_eq!(
        command(&scratch.bake(&layout.reference()).unwrap()),
        "arm64v8"
    );
}

#[test]
fn platform_of_the_config_counts_where_the_index_is_silent() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    layout.index(&[
        image_for(&layout, "linux", "amd64", "", false),
        image_for(&layout, "linux", "aarch64", "", false),
    ]);
    let image = scratch.bake(&layout.reference()).unwrap();
    assert_eq!(image.config.architecture, "arm64");
    // An index that promises arm64 for something else is not believed.
    let mut liar = image_for(&layout, "linux", "riscv64", "", false);
    liar["platform"] = json!({ "os": "linux", "architecture": "arm64" });
    layout.index(&[liar]);
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(error.to_string().contains("linux/riscv64"), "{error}");
}

#[test]
fn wrong_architecture_names_what_was_found() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    layout.index(&[
        image_for(&layout, "linux", "amd64", "", true),
        image_for(&layout, "linux", "arm", "v7", false),
    ]);
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(matches!(error, ImageError::WrongPlatform { .. }));
    let message = error.to_string();
    for part in ["linux/amd64", "linux/arm/v7", "arm64"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn index_depth_is_bounded() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let mut descriptor = image_for(&layout, "linux", "arm64", "", true);
    for _ in 0..6 {
        descriptor = index_of(&layout, &[descriptor]);
    }
    layout.index(&[descriptor]);
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(matches!(error, ImageError::TooMany { .. }), "{error}");
}

#[test]
fn tag_chooses_and_its_absence_is_ambiguous() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let tagged = |arch: &str, variant: &str, tag: &str| {
        let mut image = image_for(&layout, "linux", arch, variant, true);
        image["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        image
    };
    layout.index(&[tagged("arm64", "", "one"), tagged("arm64", "v8", "two")]);
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(matches!(&error, ImageError::Ambiguous { .. }));
    assert!(error.to_string().contains("one, two"), "{error}");
    let image = scratch
        .bake(&format!("{}:two", layout.reference()))
        .unwrap();
    assert_eq!(command(&image), "arm64v8");
    layout.index(&[tagged("amd64", "", "same"), tagged("arm64", "", "same")]);
    assert_eq!(
        command(&scratch.bake(&layout.reference()).unwrap()),
        "arm64"
    );
}

#[test]
fn names_as_other_tools_write_them_are_found_by_their_short_form() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let called = |variant: &str, tag: &str, name: &str| {
        let mut image = image_for(&layout, "linux", "arm64", variant, true);
        image["annotations"] = json!({
            "org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name,
        });
        image
    };
    layout.index(&[
        called("", "docker.io/local/bb:v1", "docker.io/local/bb:v1"),
        called("v8", "v2", "docker.io/local/cc:v2"),
        called("8", "v2", "docker.io/local/dd:v2"),
    ]);
    let bake = |tag: &str| scratch.bake(&format!("{}:{tag}", layout.reference()));
    for tag in ["bb:v1", "local/bb:v1", "docker.io/local/bb:v1", "v1"] {
        assert_eq!(command(&bake(tag).unwrap()), "arm64", "{tag}");
    }
    assert_eq!(command(&bake("cc:v2").unwrap()), "arm64v8");
    // Not the first of two images with the same tag.
    let error = image_error(bake("v2")).to_string();
    assert!(error.contains("docker.io/local/cc:v2, docker.io/local/dd:v2"));
    let error = image_error(bake("b:v1"));
    assert!(matches!(error, ImageError::TagNotFound { .. }), "{error}");
}

#[test]
fn missing_and_damaged_blobs_are_named() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let layer = layer_bytes();
    let digest = Digest::sha256_of(&layer);
    layout.image(&layer);
    let blob = layout.file("blobs/sha256").join(digest.hex());

    fs::remove_file(&blob).unwrap();
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(
        matches!(&error, ImageError::MissingBlob { digest: d } if *d == digest),
        "{error}"
    );

    fs::write(&blob, &layer[..layer.len() - 512]).unwrap();
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(matches!(error, ImageError::SizeMismatch { .. }), "{error}");

    let mut damaged = layer.clone();
    damaged[520] ^= 1;
    fs::write(&blob, &damaged).unwrap();
    let error = scratch.bake(&layout.reference()).unwrap_err();
    let message = chain(&error);
    assert!(message.contains(&format!("expected {digest}")), "{message}");
    assert!(
        message.contains(&Digest::sha256_of(&damaged).to_string()),
        "{message}"
    );
}

#[test]
fn diff_id_is_verified_apart_from_the_blob() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let promised = Digest::sha256_of(b"something else");
    let manifest = layout.manifest(&layer_bytes(), LAYER, &promised);
    layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    let error = scratch.bake(&layout.reference()).unwrap_err();
    let BakeError::Layer {
        diff_id,
        source: LayerError::Content(content),
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(diff_id, promised);
    assert!(matches!(*content, ImageError::DigestMismatch { .. }));
}

#[test]
fn damaged_manifest_and_config_are_detected() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let layer = layer_bytes();
    let manifest = layout.manifest(&layer, LAYER, &Digest::sha256_of(&layer));
    let descriptor = layout.descriptor(MANIFEST, manifest.to_string().as_bytes());
    layout.index(std::slice::from_ref(&descriptor));
    for digest in [&descriptor["digest"], &manifest["config"]["digest"]] {
        let hex = &digest.as_str().unwrap()["sha256:".len()..];
        let path = layout.file("blobs/sha256").join(hex);
        let good = fs::read(&path).unwrap();
        // Still the same length and valid JSON, with one letter changed.
        let damaged = String::from_utf8(good.clone())
            .unwrap()
            .replacen("sha256", "sha255", 1);
        assert_ne!(damaged.as_bytes(), good);
        fs::write(&path, damaged).unwrap();
        let error = image_error(scratch.bake(&layout.reference()));
        assert!(
            matches!(error, ImageError::DigestMismatch { .. }),
            "{error}"
        );
        fs::write(&path, good).unwrap();
    }
    scratch.bake(&layout.reference()).unwrap();
}

#[test]
fn unknown_media_types_are_named() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let layer = layer_bytes();
    let odd = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    let manifest = layout.manifest(&layer, odd, &Digest::sha256_of(&layer));
    layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(error.to_string().contains(odd), "{error}");
    layout.index(&[layout.descriptor("text/plain", b"x")]);
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(
        matches!(error, ImageError::UnsupportedMediaType { .. }),
        "{error}"
    );
}

#[test]
fn compression_must_be_what_the_media_type_says() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let layer = layer_bytes();
    let manifest = layout.manifest(&layer, &format!("{LAYER}+zstd"), &Digest::sha256_of(&layer));
    layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    let error = scratch.bake(&layout.reference()).unwrap_err();
    assert!(
        chain(&error).contains("zstd and the data is plain tar"),
        "{}",
        chain(&error)
    );
}

#[test]
fn layers_and_diff_ids_must_pair_up() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let layer = layer_bytes();
    let mut manifest = layout.manifest(&layer, LAYER, &Digest::sha256_of(&layer));
    manifest["layers"] = json!([]);
    layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(
        matches!(
            error,
            ImageError::LayerCountMismatch {
                layers: 0,
                diff_ids: 1
            }
        ),
        "{error}"
    );
}

#[test]
fn what_is_no_image_is_refused_with_a_reason() {
    let scratch = Scratch::new();
    let empty = scratch.path("empty");
    fs::create_dir(&empty).unwrap();
    let error = image_error(scratch.bake(&format!("oci:{}", text(&empty))));
    assert!(error.to_string().contains("no file oci-layout"), "{error}");
    let error = image_error(scratch.bake(&format!("oci:{}", text(&scratch.path("nowhere")))));
    assert!(matches!(error, ImageError::Read { .. }), "{error}");
    let file = scratch.path("file");
    fs::write(
        &file,
        "not a tar archive, but longer than a header. ".repeat(20),
    )
    .unwrap();
    let error = image_error(scratch.bake(&format!("oci:{}", text(&file))));
    assert!(error.to_string().contains("oci-archive:"), "{error}");
    for transport in ["oci-archive", "docker-archive"] {
        let error = image_error(scratch.bake(&format!("{transport}:{}", text(&file))));
        assert!(matches!(error, ImageError::NotAnArchive { .. }), "{error}");
    }
    let layout = Layout::new(scratch.path("none"));
    layout.index(&[]);
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(matches!(error, ImageError::NoImage), "{error}");
    fs::write(layout.file("oci-layout"), r#"{"imageLayoutVersion":"2.0"}"#).unwrap();
    let error = image_error(scratch.bake(&layout.reference()));
    assert!(matches!(error, ImageError::NotALayout { .. }), "{error}");
}

#[test]
fn images_we_write_are_deterministic_and_conform() {
    let scratch = Scratch::new();
    let build = |name: &str, compression| {
        ImageBuilder::new()
            .layer(
                LayerBuilder::new()
                    .dir("d", 0o750)
                    .owned_by(1, 2)
                    .file("d/f", 0o640, "x"),
            )
            .entrypoint(["/d/f"])
            .env("A", "b")
            .user("1:2")
            .working_dir("/d")
            .tag("t")
            .compression(compression)
            .write_layout(scratch.path(name))
            .unwrap()
    };
    let first = build("one", LayerCompression::Gzip);
    assert_eq!(first, build("two", LayerCompression::Gzip));
    assert_ne!(first, build("three", LayerCompression::None));
    // A library that is not ours reads every document.
    let read = |name: &str| scratch.path("one").join(name);
    oci_spec::image::OciLayout::from_file(read("oci-layout")).unwrap();
    let index = oci_spec::image::ImageIndex::from_file(read("index.json")).unwrap();
    let blob = |digest: &oci_spec::image::Digest| read("blobs/sha256").join(digest.digest());
    let manifest =
        oci_spec::image::ImageManifest::from_file(blob(index.manifests()[0].digest())).unwrap();
    let config =
        oci_spec::image::ImageConfiguration::from_file(blob(manifest.config().digest())).unwrap();
    assert_eq!(
        config.config().as_ref().unwrap().user().as_deref(),
        Some("1:2")
    );
    assert_eq!(config.rootfs().diff_ids().len(), 1);
}

#[test]
fn host_directory_becomes_a_layer() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let scratch = Scratch::new();
    let dir = scratch.path("tree");
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::write(dir.join("bin/tool"), vec![7; 200_000]).unwrap();
    fs::set_permissions(dir.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(dir.join("bin/tool"), dir.join("bin/twin")).unwrap();
    symlink("/etc/passwd", dir.join("link")).unwrap();
    let owner = supermachine_oci_bake::Owner::Fixed { uid: 5, gid: 6 };
    let layout = scratch.path("image");
    ImageBuilder::new()
        .layer(LayerBuilder::new().host_dir(&dir, owner).unwrap())
        .write_layout(&layout)
        .unwrap();
    let image = scratch.bake(&format!("oci:{}", text(&layout))).unwrap();
    let lines = support::listing(&image.layers[0]);
    let has = |start: &str, end: &str| {
        assert!(
            lines
                .iter()
                .any(|l| l.starts_with(start) && l.ends_with(end)),
            "{lines:?}"
        );
    };
    has("-rwsr-xr-x 5/6 200000", "/bin/tool");
    has("-rwsr-xr-x 5/6 200000", "/bin/twin");
    has("lrwxrwxrwx 5/6", "/link -> /etc/passwd");
    assert!(fs::metadata(&image.layers[0]).unwrap().len() < 300_000);
}

#[test]
fn sha512_digests_are_verified_too() {
    let scratch = Scratch::new();
    let layout = Layout::new(scratch.path("image"));
    let layer = layer_bytes();
    layout.image(&layer);
    let sum = support::run(
        "sha512sum",
        &[text(
            &layout
                .file("blobs/sha256")
                .join(Digest::sha256_of(&layer).hex()),
        )],
    );
    let hex = String::from_utf8(sum).unwrap()[..128].to_owned();
    fs::create_dir_all(layout.file("blobs/sha512")).unwrap();
    fs::write(layout.file("blobs/sha512").join(&hex), &layer).unwrap();
    let mut manifest = layout.manifest(&layer, LAYER, &Digest::sha256_of(&layer));
    manifest["layers"][0]["digest"] = format!("sha512:{hex}").into();
    layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    assert_eq!(scratch.bake(&layout.reference()).unwrap().layers.len(), 1);
    let mut damaged = layer.clone();
    damaged[512] ^= 1;
    fs::write(layout.file("blobs/sha512").join(&hex), &damaged).unwrap();
    fs::remove_dir_all(scratch.path("cache")).unwrap();
    let reference = Reference::parse(&layout.reference()).unwrap();
    let result = bake(&reference, &BakeOptions::default(), &scratch.store());
    assert!(chain(&result.unwrap_err()).contains("digest mismatch"));
}

#[test]
fn layers_that_are_not_what_the_media_type_says_are_named_for_what_they_are() {
    let scratch = Scratch::new();
    let words = |name: &str, blob: &[u8]| {
        let layout = Layout::new(scratch.path(name));
        let gzip = format!("{LAYER}+gzip");
        let manifest = layout.manifest(blob, &gzip, &Digest::sha256_of(blob));
        layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
        chain(&scratch.bake(&layout.reference()).unwrap_err())
    };
    let tar = layer_bytes();
    let text = words("tar", &tar);
    assert!(
        text.ends_with("says gzip and the data is plain tar"),
        "{text}"
    );
    let text = words("zstd", &[0x28, 0xb5, 0x2f, 0xfd, 0]);
    assert!(text.ends_with("says gzip and the data is zstd"), "{text}");
    for other in [&b"<html>404</html>"[..], &[0x42; 4096]] {
        let text = words("other", other);
        assert!(
            text.ends_with("the data is neither gzip nor zstd nor a tar archive"),
            "{text}"
        );
    }
}

/// Frames of zstd whose blocks are stored as they are, as small as `bytes`.
fn zstd_frames(content: &[u8], bytes: usize) -> Vec<u8> {
    let frames = content.chunks(bytes).map(|chunk| {
        let size = u32::try_from(chunk.len()).unwrap();
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
        frame.extend_from_slice(&size.to_le_bytes());
        frame.extend_from_slice(&(size << 3 | 1).to_le_bytes()[..3]);
        frame.extend_from_slice(chunk);
        frame
    });
    frames.collect::<Vec<_>>().concat()
}

/// container-libs#391: zstd:chunked has a frame for each file, a table of contents in a
/// frame to skip, and the same archive with other padding is another layer.
#[test]
fn a_chunked_layer_is_the_archive_in_it_to_its_last_zero() {
    let tar = LayerBuilder::new()
        .file("f", 0o644, "content")
        .to_tar()
        .unwrap();
    let padded = [&tar[..], &[0; 8192]].concat();
    let table = [&[0x50, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"table"].concat();
    let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
    for (content, diff_id_of, fits) in [
        (&tar, &tar, true),
        (&padded, &padded, true),
        (&tar, &padded, false),
        (&padded, &tar, false),
    ] {
        let scratch = Scratch::new();
        let layout = Layout::new(scratch.path("image"));
        let blob = [&table[..], &zstd_frames(content, 600), &table].concat();
        let manifest = layout.manifest(&blob, media_type, &Digest::sha256_of(diff_id_of));
        layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
        let baked = scratch.bake(&layout.reference());
        assert_eq!(baked.is_ok(), fits, "{baked:?}");
        if let Ok(baked) = baked {
            assert!(
                listing(&baked.layers[0])
                    .iter()
                    .any(|line| line.ends_with("/f"))
            );
        }
    }
}
