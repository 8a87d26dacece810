//! The images we write, read by a program we did not write.

mod support;

use supermachine_oci_bake::{ImageBuilder, LayerBuilder};
use support::{Scratch, listing, run, text};

/// Bakes a layer on one that has a file `etc/gone`.
fn bake_layer(scratch: &Scratch, layer: LayerBuilder) -> std::path::PathBuf {
    let layout = scratch.path("image");
    ImageBuilder::new()
        .layer(LayerBuilder::new().file("etc/gone", 0o644, ""))
        .layer(layer)
        .write_layout(&layout)
        .unwrap();
    let image = scratch.bake(&format!("oci:{}", text(&layout))).unwrap();
    image.layers[1].clone()
}

#[test]
fn every_kind_of_inode_is_listed_with_its_attributes() {
    let scratch = Scratch::new();
    let image = bake_layer(
        &scratch,
        LayerBuilder::new()
            .dir("tmp", 0o1777)
            .file("bin/su", 0o4755, "x")
            .owned_by(0, 4_000_000_000)
            .symlink("bin/sh", "/bin/su")
            .hard_link("bin/su2", "bin/su")
            .fifo("run/pipe", 0o600)
            .char_device("dev/null", 0o666, 1, 3)
            .block_device("dev/big", 0o660, 8, 17)
            .whiteout("etc/gone"),
    );
    let lines = listing(&image);
    let has = |wanted: &str| {
        let found = lines.iter().any(|line| {
            let (attributes, path) = wanted.rsplit_once('|').unwrap();
            line.starts_with(attributes) && line.ends_with(path)
        });
        assert!(found, "{wanted} not in {lines:#?}");
    };
    has("drwxrwxrwt 0/0| /tmp");
    has("-rwsr-xr-x 0/4000000000 1| /bin/su");
    has("-rwsr-xr-x 0/4000000000 1| /bin/su2");
    has("lrwxrwxrwx 0/0| /bin/sh -> /bin/su");
    has("prw------- 0/0| /run/pipe");
    has("crw-rw-rw- 0/0 1, 3| /dev/null");
    has("brw-rw---- 0/0 8, 17| /dev/big");
    has("c--------- 0/0 0, 0| /etc/gone");
    has("drwxr-xr-x 0/0| /etc");
}

#[test]
fn contents_of_all_sizes_survive() {
    let scratch = Scratch::new();
    let sizes = [
        0usize, 1, 4095, 131_071, 131_072, 131_073, 262_144, 1_000_003,
    ];
    let mut layer = LayerBuilder::new();
    let content = |size: usize| -> Vec<u8> {
        (0..size)
            .map(|i| u8::try_from((i * i + i / 251) % 251).unwrap())
            .collect()
    };
    for size in sizes {
        layer = layer.file(&format!("f{size}"), 0o644, content(size));
    }
    // A hole, a hole at the end, and nothing but a hole.
    let mut holes = vec![0; 131_072 * 3 + 17];
    holes[131_072] = 1;
    layer = layer
        .file("holes", 0o644, holes.clone())
        .file("hole", 0o644, vec![0; 400_000]);
    let image = bake_layer(&scratch, layer);
    let out = scratch.path("out");
    run("unsquashfs", &["-d", text(&out), text(&image)]);
    for size in sizes {
        assert!(std::fs::read(out.join(format!("f{size}"))).unwrap() == content(size));
    }
    assert!(std::fs::read(out.join("holes")).unwrap() == holes);
    assert!(std::fs::read(out.join("hole")).unwrap() == vec![0; 400_000]);
    assert!(std::fs::metadata(&image).unwrap().len() < 3_000_000);
}

#[test]
fn layers_without_attributes_have_a_table_for_them() {
    let scratch = Scratch::new();
    let image = bake_layer(&scratch, LayerBuilder::new().file("f", 0o644, "x"));
    let said = String::from_utf8(run("unsquashfs", &["-stat", text(&image)])).unwrap();
    assert!(said.contains("Number of xattr ids 1\n"), "{said}");
    let lines = listing(&image);
    assert!(lines.iter().any(|line| line.ends_with(" /f")), "{lines:#?}");
}

#[test]
fn directory_with_many_entries_is_complete() {
    let scratch = Scratch::new();
    let mut layer = LayerBuilder::new().dir("empty", 0o755);
    let mut wanted = Vec::new();
    for i in 0..20_000 {
        let name = format!("many/entry-with-a-rather-long-name-{i:08}");
        layer = layer.symlink(&name, &i.to_string());
        wanted.push(format!("/{name} -> {i}"));
    }
    let image = bake_layer(&scratch, layer);
    let lines = listing(&image);
    let found: Vec<_> = lines
        .iter()
        .filter_map(|line| Some(line[line.find("/many/")?..].to_owned()))
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn layer_without_entries_is_an_empty_root() {
    let scratch = Scratch::new();
    let image = bake_layer(&scratch, LayerBuilder::new());
    assert_eq!(listing(&image).len(), 1);
}

#[test]
fn attributes_survive_and_private_ones_do_not() {
    let scratch = Scratch::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let image = bake_layer(
        &scratch,
        LayerBuilder::new()
            .file("ping", 0o755, "x")
            .xattr("security.capability", capability)
            .xattr("user.note", "n")
            .xattr("trusted.overlay.redirect", "/etc")
            .xattr("system.posix_acl_access", "acl")
            .dir("opaque", 0o755)
            .opaque("opaque"),
    );
    let bytes = std::fs::read(&image).unwrap();
    let count = |needle: &[u8]| bytes.windows(needle.len()).filter(|w| *w == needle).count();
    assert_eq!(count(b"capability"), 1);
    assert_eq!(count(&capability), 1);
    assert_eq!(count(b"overlay.opaque"), 1);
    assert_eq!(count(b"overlay.redirect"), 0);
    assert_eq!(count(b"posix_acl_access"), 0);
    run("unsquashfs", &["-stat", text(&image)]);
    run(
        "unsquashfs",
        &["-no-xattrs", "-d", text(&scratch.path("out")), text(&image)],
    );
}
