//! One regression test for each published hole in programs that unpack
//! images or archives. What they have in common: the canary directory beside
//! the image must look the same afterwards.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use supermachine_oci_bake::{
    BakeError, BakeOptions, BakedImage, ImageError, LayerBuilder, LayerError, Reference, bake,
};
use support::{
    CONFIG, INDEX, LAYER, Layout, MANIFEST, Scratch, chain, header, listing, padded, text,
};

/// A scratch directory with something outside the image to damage.
struct Trap {
    scratch: Scratch,
    canary: PathBuf,
}

impl Trap {
    fn new() -> Self {
        let scratch = Scratch::new();
        let canary = scratch.path("canary");
        fs::create_dir(&canary).unwrap();
        fs::write(canary.join("secret"), "secret content").unwrap();
        fs::set_permissions(&canary, fs::Permissions::from_mode(0o750)).unwrap();
        Self { scratch, canary }
    }

    fn bake_tar(&self, layer: &[u8]) -> Result<BakedImage, BakeError> {
        let layout = Layout::new(self.scratch.path("image"));
        layout.image(layer);
        self.scratch.bake(&layout.reference())
    }

    fn bake(&self, layer: LayerBuilder) -> Result<BakedImage, BakeError> {
        self.bake_tar(&layer.to_tar().unwrap())
    }

    /// Bakes successfully and lists the layer.
    fn list(&self, layer: LayerBuilder) -> Vec<String> {
        listing(&self.bake(layer).unwrap().layers[0])
    }

    /// The error of a layer that must not be baked.
    fn reject(&self, layer: LayerBuilder) -> LayerError {
        layer_error(self.bake(layer))
    }

    /// As [`Self::reject`], because of where an entry would be.
    fn reject_path(&self, name: &str, layer: LayerBuilder) {
        let error = self.reject(layer);
        assert!(
            matches!(error, LayerError::UnsafePath { .. }),
            "{name}: {error}"
        );
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let names: Vec<_> = fs::read_dir(&self.canary)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        let content = fs::read_to_string(self.canary.join("secret")).unwrap();
        assert_eq!(content, "secret content");
        let mode = fs::metadata(&self.canary).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        // Nothing half-made stays in the cache either.
        if let Ok(layers) = fs::read_dir(self.scratch.path("cache/layers")) {
            for entry in layers {
                let name = entry.unwrap().file_name();
                assert!(name.to_str().unwrap().ends_with(".squashfs"), "{name:?}");
            }
        }
    }
}

fn layer_error(result: Result<BakedImage, BakeError>) -> LayerError {
    match result {
        Err(BakeError::Layer { source, .. }) => source,
        other => panic!("expected a layer error, got {other:?}"),
    }
}

fn image_error(result: Result<BakedImage, BakeError>) -> ImageError {
    match result {
        Err(BakeError::Image(error)) => error,
        other => panic!("expected an image error, got {other:?}"),
    }
}

#[test]
fn rustsec_2026_0148_write_through_symlink_stays_inside() {
    let trap = Trap::new();
    let lines = trap.list(
        LayerBuilder::new()
            .symlink("out", text(&trap.canary))
            .file("out/planted", 0o644, "x")
            .symlink("up", "../../../../..")
            .file("up/top", 0o644, "x"),
    );
    let inside = format!("{}/planted", text(&trap.canary));
    assert!(
        lines.iter().any(|line| line.ends_with(&inside)),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.ends_with(" /top")),
        "{lines:?}"
    );
}

#[test]
fn cve_2026_20613_parent_components_are_rejected() {
    let trap = Trap::new();
    for name in [
        "../canary/planted",
        "a/../../canary/planted",
        "/../x",
        "a/..",
    ] {
        trap.reject_path(name, LayerBuilder::new().file(name, 0o644, "x"));
    }
}

#[test]
fn cve_2021_29136_root_cannot_be_replaced() {
    let trap = Trap::new();
    for name in ["/.", "./", ".", "//"] {
        let layer = LayerBuilder::new().symlink(name, text(&trap.canary));
        trap.reject_path(name, layer);
    }
}

#[test]
fn absolute_names_are_inside_the_image() {
    let trap = Trap::new();
    let name = format!("{}/planted", text(&trap.canary));
    let lines = trap.list(LayerBuilder::new().file(&name, 0o644, "x"));
    assert!(lines.iter().any(|line| line.ends_with(&name)));
}

#[test]
fn rustsec_2018_0002_link_then_file_does_not_write_through() {
    let trap = Trap::new();
    let secret = trap.canary.join("secret");
    let lines = trap.list(LayerBuilder::new().symlink("f", text(&secret)).file(
        "f",
        0o600,
        "overwritten",
    ));
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("-rw-------") && line.ends_with(" /f"))
    );
}

#[test]
fn hard_link_to_a_host_file_names_the_missing_target() {
    let trap = Trap::new();
    let secret = trap.canary.join("secret");
    let error = trap.reject(LayerBuilder::new().hard_link("f", text(&secret)));
    assert!(matches!(error, LayerError::HardLink { .. }));
    assert!(error.to_string().contains("secret"), "{error}");
    let error = trap.reject(LayerBuilder::new().hard_link("f", "../canary/secret"));
    assert!(matches!(error, LayerError::UnsafePath { .. }));
    let through = LayerBuilder::new()
        .symlink("out", text(&trap.canary))
        .hard_link("f", "out/secret");
    assert!(matches!(trap.reject(through), LayerError::HardLink { .. }));
}

#[test]
fn rustsec_2021_0080_failing_layer_has_no_side_effects() {
    let trap = Trap::new();
    let error = trap.reject(
        LayerBuilder::new()
            .symlink("out", text(&trap.canary))
            .dir("out/made", 0o755)
            .file("out/../x", 0o644, "x"),
    );
    assert!(matches!(error, LayerError::UnsafePath { .. }));
}

#[test]
fn rustsec_2026_0067_cve_2021_32760_mode_is_not_set_through_a_link() {
    let trap = Trap::new();
    let lines = trap.list(
        LayerBuilder::new()
            .symlink("d", text(&trap.canary))
            .dir("d", 0o777)
            .symlink("e", text(&trap.canary))
            .hard_link("f", "e"),
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("drwxrwxrwx") && line.ends_with(" /d"))
    );
}

/// A PAX header in front of `inner`, whose own header says `size` bytes.
fn pax(record: &str, inner: &[u8]) -> Vec<u8> {
    let mut len = record.len() + 4;
    while format!("{len} {record}\n").len() != len {
        len += 1;
    }
    let record = format!("{len} {record}\n");
    let mut out = header("PaxHeaders.0/x", b'x', record.len(), "");
    out.extend(padded(record.as_bytes()));
    out.extend_from_slice(inner);
    out
}

fn names(image: &BakedImage) -> Vec<String> {
    let lines = listing(&image.layers[0]);
    let path = |line: &String| {
        line[line.find('/').unwrap()..]
            .rsplit(' ')
            .next()
            .unwrap()
            .into()
    };
    lines.iter().skip(1).map(path).collect()
}

#[test]
fn rustsec_2025_0110_pax_size_decides_where_the_next_entry_is() {
    let trap = Trap::new();
    // The header says nothing follows, the PAX record says 1024 bytes do, and
    // these look like an entry.
    let mut layer = pax("size=1024", &header("outer", b'0', 0, ""));
    layer.extend(header("smuggled", b'0', 0, ""));
    layer.extend([0; 512]);
    layer.extend(header("after", b'0', 0, ""));
    layer.extend([0; 1024]);
    assert_eq!(names(&trap.bake_tar(&layer).unwrap()), ["/after", "/outer"]);
}

#[test]
fn rustsec_2026_0066_pax_size_does_not_apply_to_a_long_name() {
    let trap = Trap::new();
    let mut inner = header("././@LongLink", b'L', 5, "");
    inner.extend(padded(b"outer"));
    inner.extend(header("short", b'0', 0, ""));
    let mut layer = pax("size=512", &inner);
    layer.extend(header("smuggled", b'0', 0, ""));
    layer.extend(header("after", b'0', 0, ""));
    layer.extend([0; 1024]);
    assert_eq!(names(&trap.bake_tar(&layer).unwrap()), ["/after", "/outer"]);
}

#[test]
fn rustsec_2026_0112_size_of_an_entry_without_data_skips_nothing() {
    let trap = Trap::new();
    for (typeflag, link) in [(b'5', ""), (b'2', "t"), (b'6', "")] {
        let mut layer = header("outer", typeflag, 512, link);
        layer.extend(header("next", b'0', 0, ""));
        layer.extend([0; 1024]);
        let found = listing(&trap.bake_tar(&layer).unwrap().layers[0]);
        assert!(
            found.iter().any(|line| line.ends_with(" /next")),
            "{found:?}"
        );
        let mut layer = pax("size=512", &header("outer", typeflag, 0, link));
        layer.extend(header("next", b'0', 0, ""));
        layer.extend([0; 1024]);
        let found = listing(&trap.bake_tar(&layer).unwrap().layers[0]);
        assert!(
            found.iter().any(|line| line.ends_with(" /next")),
            "{found:?}"
        );
    }
}

#[test]
fn rustsec_2026_0145_malformed_pax_records_are_rejected() {
    let trap = Trap::new();
    let raw = |records: &[u8]| {
        let mut layer = header("x", b'x', records.len(), "");
        layer.extend(padded(records));
        layer.extend(header("f", b'0', 0, ""));
        layer.extend([0; 1024]);
        layer_error(trap.bake_tar(&layer))
    };
    for records in [
        &b"12 size=1024\n"[..],
        b"99 size=1\n",
        b"9 size=x\n",
        b"10 size=-1\n",
        b"28 size=18446744073709551616\n",
        b"11 path=a\0b\n",
        b"0 a=b\n",
    ] {
        let error = raw(records);
        assert!(matches!(error, LayerError::Tar(_)), "{records:?}: {error}");
    }
}

#[test]
fn global_header_cannot_rename_or_resize() {
    let trap = Trap::new();
    let global = |record: &str| {
        let mut layer = header("g", b'g', record.len(), "");
        layer.extend(padded(record.as_bytes()));
        layer.extend(header("f", b'0', 0, ""));
        layer.extend([0; 1024]);
        trap.bake_tar(&layer)
    };
    assert_eq!(names(&global("13 comment=x\n").unwrap()), ["/f"]);
    for record in ["10 path=x\n", "10 size=9\n", "14 linkpath=y\n"] {
        assert!(matches!(layer_error(global(record)), LayerError::Tar(_)));
    }
}

#[test]
fn entries_behind_the_end_of_the_archive_are_not_read() {
    let trap = Trap::new();
    let mut layer = header("f", b'0', 0, "");
    layer.extend([0; 1024]);
    layer.extend(header("smuggled", b'0', 0, ""));
    assert_eq!(names(&trap.bake_tar(&layer).unwrap()), ["/f"]);
    // A single zero block is no end: readers disagree, so it is an error.
    let mut layer = header("f", b'0', 0, "");
    layer.extend([0; 512]);
    layer.extend(header("smuggled", b'0', 0, ""));
    assert!(matches!(
        layer_error(trap.bake_tar(&layer)),
        LayerError::Tar(_)
    ));
}

#[test]
fn cve_2021_41190_document_that_is_both_is_rejected() {
    let trap = Trap::new();
    let layout = Layout::new(trap.scratch.path("image"));
    let layer = LayerBuilder::new().to_tar().unwrap();
    let manifest = layout.manifest(&layer, LAYER, &support_digest(&layer));

    let mut both = manifest.clone();
    both["manifests"] = serde_json::json!([]);
    let mut claims_index = manifest.clone();
    claims_index["mediaType"] = INDEX.into();
    for (declared, document) in [
        (MANIFEST, &both),
        (INDEX, &both),
        (MANIFEST, &claims_index),
        (INDEX, &manifest),
    ] {
        layout.index(&[layout.descriptor(declared, document.to_string().as_bytes())]);
        let error = image_error(trap.scratch.bake(&layout.reference()));
        assert!(
            matches!(error, ImageError::MediaTypeConfusion { .. }),
            "{declared}: {error}"
        );
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [] });
    layout.index(&[layout.descriptor(MANIFEST, index.to_string().as_bytes())]);
    let error = image_error(trap.scratch.bake(&layout.reference()));
    assert!(
        matches!(error, ImageError::MediaTypeConfusion { .. }),
        "{error}"
    );
}

fn support_digest(bytes: &[u8]) -> supermachine_oci_bake::Digest {
    supermachine_oci_bake::Digest::sha256_of(bytes)
}

#[test]
fn umoci_0_5_1_negative_size_is_rejected() {
    let trap = Trap::new();
    let layout = Layout::new(trap.scratch.path("image"));
    let mut descriptor = layout.descriptor(MANIFEST, b"{}");
    descriptor["size"] = (-1).into();
    layout.index(&[descriptor]);
    let error = image_error(trap.scratch.bake(&layout.reference()));
    assert!(
        matches!(error, ImageError::NegativeSize { size: -1, .. }),
        "{error}"
    );
}

#[test]
fn umoci_bare_and_parent_whiteouts_are_rejected() {
    let trap = Trap::new();
    for name in [".wh.", "a/.wh.", ".wh..", "a/.wh...", ".wh.x/y"] {
        let error = trap.reject(LayerBuilder::new().file(name, 0o644, ""));
        assert!(
            matches!(error, LayerError::InvalidWhiteout { .. }),
            "{name}: {error}"
        );
    }
    let lines = trap.list(
        LayerBuilder::new()
            .file(".wh..wh.plnk/1.2", 0o644, "")
            .file(".wh..wh.aufs", 0o644, "x"),
    );
    assert_eq!(lines.len(), 1);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bake_gzip(trap: &Trap, blob: &[u8], content: &[u8]) -> Result<BakedImage, BakeError> {
    let layout = Layout::new(trap.scratch.path("image"));
    let media_type = format!("{LAYER}+gzip");
    let manifest = layout.manifest(blob, &media_type, &support_digest(content));
    layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    trap.scratch.bake(&layout.reference())
}

#[test]
fn umoci_unreleased_trailing_bytes_after_gzip_are_rejected() {
    let trap = Trap::new();
    let content = LayerBuilder::new().file("f", 0o644, "x").to_tar().unwrap();
    for tail in [&b"x"[..], &[0; 512], b"\x1f\x8b", b"\x1f"] {
        let blob = [&gzip(&content)[..], tail].concat();
        let error = layer_error(bake_gzip(&trap, &blob, &content));
        assert!(
            matches!(error, LayerError::Compression { .. }),
            "{tail:?}: {error}"
        );
    }
    let truncated = gzip(&content);
    let error = layer_error(bake_gzip(
        &trap,
        &truncated[..truncated.len() - 1],
        &content,
    ));
    assert!(matches!(error, LayerError::Compression { .. }), "{error}");
    // Several members are one stream.
    let (left, right) = content.split_at(700);
    let blob = [gzip(left), gzip(right)].concat();
    assert_eq!(names(&bake_gzip(&trap, &blob, &content).unwrap()), ["/f"]);
}

#[test]
fn decompression_bomb_stops_at_the_limit() {
    let trap = Trap::new();
    let layout = Layout::new(trap.scratch.path("image"));
    let content = vec![0; 8 << 20];
    let blob = gzip(&content);
    assert!(blob.len() < 100_000);
    let media_type = format!("{LAYER}+gzip");
    let manifest = layout.manifest(&blob, &media_type, &support_digest(&content));
    layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    let mut options = BakeOptions::default();
    options.limits.max_layer_bytes = 1 << 20;
    let reference = Reference::parse(&layout.reference()).unwrap();
    let error = layer_error(bake(&reference, &options, &trap.scratch.store()));
    assert!(matches!(error, LayerError::LimitExceeded { .. }), "{error}");
}

#[test]
fn entries_names_and_sparse_sizes_are_bounded() {
    let trap = Trap::new();
    let layout = Layout::new(trap.scratch.path("image"));
    let reference = Reference::parse(&layout.reference()).unwrap();
    let mut options = BakeOptions::default();
    options.limits.max_entries = 1000;
    options.limits.max_tree_bytes = 20_000;
    options.limits.max_layer_bytes = 1 << 20;
    let deep = "a/".repeat(1500);
    let hole =
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n36 GNU.sparse.realsize=999999999999\n";
    let mut sparse = header("x", b'x', hole.len(), "");
    sparse.extend(padded(hole));
    sparse.extend(header("f", b'0', 512, ""));
    sparse.extend(padded(b"0\n"));
    sparse.extend([0; 1024]);
    let mut attributes = LayerBuilder::new().dir("d", 0o755);
    for i in 0..30 {
        attributes = attributes.xattr(&format!("user.{i}"), vec![b'x'; 1000]);
    }
    for layer in [
        LayerBuilder::new().file(&deep, 0o644, "").to_tar().unwrap(),
        attributes.to_tar().unwrap(),
        sparse,
    ] {
        layout.image(&layer);
        let error = layer_error(bake(&reference, &options, &trap.scratch.store()));
        assert!(matches!(error, LayerError::LimitExceeded { .. }), "{error}");
    }
}

#[test]
fn cve_2021_41103_cache_is_private() {
    let trap = Trap::new();
    let image = trap
        .bake(LayerBuilder::new().file("f", 0o4755, "x"))
        .unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&trap.scratch.path("cache/layers")), 0o700);
    assert_eq!(mode(&image.layers[0]), 0o600);
}

#[test]
fn cve_2022_23648_cve_2026_55686_config_paths_touch_nothing() {
    let trap = Trap::new();
    let layout = Layout::new(trap.scratch.path("image"));
    let layer = LayerBuilder::new()
        .symlink("work", text(&trap.canary))
        .to_tar()
        .unwrap();
    let config = serde_json::json!({
        "os": "linux", "architecture": "arm64",
        "config": { "WorkingDir": "/work/made", "Volumes": { "/../../../canary": {} } },
        "rootfs": { "type": "layers", "diff_ids": [support_digest(&layer).to_string()] },
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": layout.descriptor(CONFIG, config.to_string().as_bytes()),
        "layers": [layout.descriptor(LAYER, &layer)],
    });
    layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    let image = trap.scratch.bake(&layout.reference()).unwrap();
    assert_eq!(image.config.working_dir, "/work/made");
    assert!(!trap.canary.join("made").exists());
}

#[test]
fn cve_2023_25153_documents_are_bounded() {
    let trap = Trap::new();
    let layout = Layout::new(trap.scratch.path("image"));
    let index = fs::File::create(layout.file("index.json")).unwrap();
    index.set_len(1 << 40).unwrap();
    let error = image_error(trap.scratch.bake(&layout.reference()));
    assert!(
        matches!(error, ImageError::DocumentTooLarge { .. }),
        "{error}"
    );

    let archive = trap.scratch.path("saved.tar");
    let mut bytes = header("manifest.json", b'0', 5 << 20, "");
    bytes.resize(512 + (5 << 20) + 1024, 0);
    fs::write(&archive, bytes).unwrap();
    let error = image_error(
        trap.scratch
            .bake(&format!("docker-archive:{}", text(&archive))),
    );
    assert!(
        matches!(error, ImageError::DocumentTooLarge { .. }),
        "{error}"
    );
}

#[test]
fn cve_2024_9676_files_that_are_not_regular_are_not_opened() {
    let trap = Trap::new();
    let layout = Layout::new(trap.scratch.path("image"));
    support::run("mkfifo", &[text(&layout.file("index.json"))]);
    let error = image_error(trap.scratch.bake(&layout.reference()));
    assert!(matches!(error, ImageError::Read { .. }), "{error}");
    let fifo = layout.file("index.json");
    let error = image_error(trap.scratch.bake(&format!("oci-archive:{}", text(&fifo))));
    assert!(matches!(error, ImageError::Read { .. }), "{error}");
}

#[test]
fn archive_links_do_not_leave_the_archive() {
    let trap = Trap::new();
    let archive = trap.scratch.path("saved.tar");
    for link in [
        text(&trap.canary.join("secret")),
        "../canary/secret",
        "manifest.json",
    ] {
        let mut bytes = header("manifest.json", b'2', 0, link);
        bytes.extend([0; 1024]);
        fs::write(&archive, bytes).unwrap();
        let error = image_error(
            trap.scratch
                .bake(&format!("docker-archive:{}", text(&archive))),
        );
        assert!(
            matches!(error, ImageError::NotALayout { .. }),
            "{}",
            chain(&error)
        );
    }
}

#[test]
fn hostile_text_in_errors_is_escaped() {
    let trap = Trap::new();
    let error = trap.reject(LayerBuilder::new().file("../\u{1b}[2J\n", 0o644, ""));
    assert!(!error.to_string().contains('\u{1b}'));
    assert!(!error.to_string().contains('\n'));
}
