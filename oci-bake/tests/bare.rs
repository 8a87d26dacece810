//! Images without documents: an archive, or a directory.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use supermachine_oci_bake::{BakeError, ImageError, Platform};
use support::*;

/// A directory with what there is in root file systems.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("bin")).unwrap();
    fs::write(at.join("bin/sh"), "#!x").unwrap();
    fs::set_permissions(at.join("bin/sh"), fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::symlink("/bin/sh", at.join("link")).unwrap();
    fs::hard_link(at.join("bin/sh"), at.join("bin/other")).unwrap();
}

#[test]
fn a_directory_is_an_image_of_one_layer() {
    let scratch = Scratch::new();
    let dir = scratch.path("root");
    tree(&dir);
    let reference = format!("rootfs:{}", text(&dir));
    let baked = scratch.bake(&reference).unwrap();
    assert_eq!((baked.layers.len(), baked.diff_ids.len()), (1, 1));
    assert_eq!(baked.config.platform(), Platform::default());
    assert_eq!(baked.config.working_dir, "/");
    assert!(baked.config.command(None, None).is_err());
    let names = listing(&baked.layers[0]);
    let line = |end: &str| {
        names
            .iter()
            .find(|line| line.ends_with(end))
            .unwrap()
            .clone()
    };
    assert!(line("/bin/sh").starts_with("-rwsr-xr-x"), "{names:?}");
    assert!(
        line("/link -> /bin/sh").starts_with("lrwxrwxrwx"),
        "{names:?}"
    );
    assert_eq!(
        run("unsquashfs", &["-cat", text(&baked.layers[0]), "bin/other"]),
        b"#!x"
    );

    // The same content is the same image, and other content is another.
    let again = scratch.bake(&reference).unwrap();
    assert_eq!(
        (&again.layers, &again.config_digest),
        (&baked.layers, &baked.config_digest)
    );
    fs::write(dir.join("more"), "").unwrap();
    let changed = scratch.bake(&reference).unwrap();
    assert_ne!(changed.config_digest, baked.config_digest);
    assert_ne!(changed.layers, baked.layers);
}

#[test]
fn an_archive_is_an_image_of_one_layer_however_it_is_compressed() {
    let scratch = Scratch::new();
    let dir = scratch.path("root");
    tree(&dir);
    let plain = scratch.path("root.tar");
    run("tar", &["-C", text(&dir), "-cf", text(&plain), "."]);
    let zipped = scratch.path("root.tar.gz");
    fs::write(&zipped, run("gzip", &["-c", text(&plain)])).unwrap();
    let bake = |path: &Path| scratch.bake(&format!("tar:{}", text(path)));
    let baked = bake(&plain).unwrap();
    let names = listing(&baked.layers[0]);
    assert!(
        names.iter().any(|line| line.ends_with("/bin/sh")),
        "{names:?}"
    );
    let same = bake(&zipped).unwrap();
    assert_eq!(
        (same.layers, same.config_digest),
        (baked.layers, baked.config_digest)
    );

    let other = scratch.path("root.tar.bz2");
    fs::write(&other, run("bzip2", &["-c", text(&plain)])).unwrap();
    let error = bake(&other).unwrap_err();
    assert!(
        matches!(&error, BakeError::Image(ImageError::UnreadCompression { compression, .. })
            if *compression == "bzip2"),
        "{error}"
    );
}

#[test]
fn what_is_no_archive_and_no_directory_is_named() {
    let scratch = Scratch::new();
    let file = scratch.path("file");
    fs::write(&file, "x".repeat(2000)).unwrap();
    let missing = scratch.path("missing");
    for (reference, named) in [
        (format!("tar:{}", text(&missing)), "missing"),
        (format!("rootfs:{}", text(&missing)), "missing"),
        (format!("rootfs:{}", text(&file)), "tar:"),
        (format!("tar:{}", text(&file)), "archive"),
        (format!("tar:{}", text(&scratch.path(""))), "cannot read"),
    ] {
        let error = chain(&scratch.bake(&reference).unwrap_err());
        assert!(error.contains(named), "{reference}: {error}");
    }
    let layers = scratch.store().dir().join("layers");
    assert_eq!(fs::read_dir(layers).unwrap().count(), 0);
}
