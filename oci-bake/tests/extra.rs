//! Files of the host on top of an image.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use supermachine_oci_bake::{
    BakeError, BakeOptions, Compression, ExtraFile, ExtraLayer, ImageBuilder, ImageError,
    LayerBuilder, add_files,
};
use support::{Scratch, chain, text};

/// The layers of an image that has all that can be on the way to a file.
fn base() -> [LayerBuilder; 2] {
    let mut below = LayerBuilder::new()
        .dir("etc", 0o750)
        .owned_by(70_000, 6)
        .modified(1_000_000_007)
        .xattr("user.note", "kept")
        .xattr("security.capability", vec![1; 20])
        .dir("tmp", 0o1777)
        .dir("usr", 0o755)
        .dir("usr/lib", 0o711)
        .modified(5)
        .symlink("lib", "usr/lib")
        .symlink("etc/up", "../tmp")
        .dir("srv", 0o700)
        .dir("opt", 0o701)
        .dir("opt/o", 0o702)
        .dir("opt/o/hidden", 0o703)
        .dir("big", 0o704)
        .file("plain", 0o644, "x");
    for number in 0..700 {
        let path = format!("big/directory-number-{number:04}");
        below = below.dir(&path, 0o755).owned_by(number, number + 1);
    }
    let above = LayerBuilder::new()
        .dir("etc/sub", 0o2770)
        .dir("opt/o", 0o705)
        .opaque("opt/o")
        .whiteout("srv");
    [below, above]
}

/// Where files go, and where that is in the end.
const PLACES: [(&str, &str); 10] = [
    (
        "/big/directory-number-0000/f",
        "big/directory-number-0000/f",
    ),
    (
        "/big/directory-number-0699/f",
        "big/directory-number-0699/f",
    ),
    ("/etc/app.toml", "etc/app.toml"),
    ("/etc/sub/f", "etc/sub/f"),
    ("/etc/up/f", "etc/up/f"),
    ("/lib/so", "lib/so"),
    ("/new/deep/f", "new/deep/f"),
    ("/opt/o/hidden/f", "opt/o/hidden/f"),
    ("/plain", "plain"),
    ("/srv/f", "srv/f"),
];

fn write(scratch: &Scratch, name: &str, content: &str) -> PathBuf {
    let path = scratch.path(name);
    fs::write(&path, content).unwrap();
    path
}

fn add(
    scratch: &Scratch,
    below: &[PathBuf],
    files: &[ExtraFile],
    options: &BakeOptions,
) -> Result<ExtraLayer, BakeError> {
    add_files(below, files, options, &scratch.store())
}

#[test]
fn the_layer_is_what_it_would_be_in_the_image() {
    let scratch = Scratch::new();
    let host = write(&scratch, "host", "content\n");
    fs::set_permissions(&host, fs::Permissions::from_mode(0o4754)).unwrap();
    let [below, above] = base();
    let two = ImageBuilder::new().layer(below).layer(above);
    two.write_layout(scratch.path("two")).unwrap();
    let [below, above] = base();
    let mut top = LayerBuilder::new();
    for (_, path) in PLACES {
        top = top.file(path, 0o754, "content\n");
    }
    let three = ImageBuilder::new().layer(below).layer(above).layer(top);
    three.write_layout(scratch.path("three")).unwrap();
    let whole = scratch
        .bake(&format!("oci:{}", text(&scratch.path("three"))))
        .unwrap();
    let image = scratch
        .bake(&format!("oci:{}", text(&scratch.path("two"))))
        .unwrap();
    // Nothing of an image is needed but its converted layers.
    fs::remove_dir_all(scratch.path("two")).unwrap();
    // In no order.
    let mut files: Vec<ExtraFile> = PLACES
        .iter()
        .map(|(guest, _)| ExtraFile::new(&host, *guest))
        .collect();
    files.swap(0, 5);
    let options = BakeOptions::default();
    let added = add(&scratch, &image.layers, &files, &options)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(added.diff_id, whole.diff_ids[2]);
    // But for the end of the file, which has its name.
    let content = |path: &PathBuf| {
        let mut bytes = fs::read(path).unwrap();
        bytes.truncate(bytes.len() - 4096);
        bytes
    };
    assert!(content(&added.layer) == content(&whole.layers[2]));
}

#[test]
fn the_layer_is_made_anew_when_a_file_changes_and_the_others_never() {
    let scratch = Scratch::new();
    let [below, above] = base();
    let image = ImageBuilder::new().layer(below).layer(above);
    image.write_layout(scratch.path("image")).unwrap();
    let image = scratch
        .bake(&format!("oci:{}", text(&scratch.path("image"))))
        .unwrap();
    let inodes = || {
        let layers = image.layers.iter();
        layers
            .map(|layer| fs::metadata(layer).unwrap().ino())
            .collect::<Vec<_>>()
    };
    let before = inodes();
    let host = write(&scratch, "host", "one");
    let file = ExtraFile::new(&host, "/etc/f").with_mode(0o600);
    let options = BakeOptions::default();
    let make = |file: &ExtraFile, options: &BakeOptions| {
        add(&scratch, &image.layers, std::slice::from_ref(file), options).unwrap()
    };
    let first = make(&file, &options);
    let again = make(&file, &options);
    assert_eq!(first.layer, again.layer);
    // As long as somebody has it, it stays.
    assert!(scratch.store().gc(&Default::default()).unwrap().is_empty());

    let mut seen = vec![first.layer.clone()];
    let mut lz4 = BakeOptions::default();
    lz4.compression = Compression::Lz4;
    fs::write(&host, "two").unwrap();
    for (file, options) in [
        (file.clone(), &options),
        (file.clone().with_mode(0o640), &options),
        (ExtraFile::new(&host, "/etc/g"), &options),
        (file.clone(), &lz4),
    ] {
        let layer = make(&file, options).layer;
        assert!(layer.exists() && !seen.contains(&layer), "{file:?}");
        seen.push(layer);
    }
    // On other layers it is another one.
    let alone = add(
        &scratch,
        &image.layers[..1],
        std::slice::from_ref(&file),
        &options,
    )
    .unwrap();
    assert!(!seen.contains(&alone.layer));
    assert_eq!(inodes(), before);
    // What is damaged is made again.
    let second = make(&file, &options);
    fs::write(&second.layer, "damaged").unwrap();
    assert_eq!(make(&file, &options).layer, second.layer);
    assert!(fs::metadata(&second.layer).unwrap().len() > 4096);
}

#[test]
fn files_that_have_no_place_are_refused_by_name() {
    let scratch = Scratch::new();
    let [below, above] = base();
    let image = ImageBuilder::new().layer(below).layer(above);
    image.write_layout(scratch.path("image")).unwrap();
    let image = scratch
        .bake(&format!("oci:{}", text(&scratch.path("image"))))
        .unwrap();
    let host = write(&scratch, "host", "x");
    let options = BakeOptions::default();
    for (guest, reason) in [
        ("etc/f", "absolute"),
        ("/", "absolute"),
        ("/etc/", "absolute"),
        ("/etc/../f", "no path"),
        ("/etc/.wh.f", "removal"),
        ("/etc", "a directory"),
        ("/usr/lib", "a directory"),
    ] {
        let files = [ExtraFile::new(&host, guest)];
        let error = add(&scratch, &image.layers, &files, &options).unwrap_err();
        assert!(
            matches!(&error, BakeError::Image(ImageError::ExtraFile { .. })),
            "{guest}: {}",
            chain(&error)
        );
        let text = chain(&error);
        assert!(text.contains(guest) && text.contains(reason), "{text}");
    }
    let twice = [ExtraFile::new(&host, "/f"), ExtraFile::new(&host, "//f")];
    let error = chain(&add(&scratch, &image.layers, &twice, &options).unwrap_err());
    assert!(error.contains("given twice"), "{error}");
    // In a file there are no files.
    let inside = [ExtraFile::new(&host, "/plain/f")];
    let error = chain(&add(&scratch, &image.layers, &inside, &options).unwrap_err());
    assert!(error.contains("not a directory"), "{error}");
    for (host, reason) in [("missing", "cannot read"), ("image", "no regular file")] {
        let files = [ExtraFile::new(scratch.path(host), "/f")];
        let error = chain(&add(&scratch, &image.layers, &files, &options).unwrap_err());
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(scratch.store().du().unwrap().len(), 2);
}

#[test]
fn a_damaged_layer_below_is_an_error() {
    let scratch = Scratch::new();
    let [below, above] = base();
    let image = ImageBuilder::new().layer(below).layer(above);
    image.write_layout(scratch.path("image")).unwrap();
    let image = scratch
        .bake(&format!("oci:{}", text(&scratch.path("image"))))
        .unwrap();
    let host = write(&scratch, "host", "x");
    let files = [
        ExtraFile::new(&host, "/etc/up/f"),
        ExtraFile::new(&host, "/big/f"),
    ];
    let good = fs::read(&image.layers[0]).unwrap();
    let options = BakeOptions::default();
    // Whatever is in a file, reading it ends, and without a panic.
    let mut failed = 0;
    for at in (0..good.len()).step_by(good.len() / 60 + 1) {
        for value in [0, 0xff] {
            let mut bytes = good.clone();
            let end = (at + 3).min(bytes.len());
            bytes[at..end].fill(value);
            fs::write(&image.layers[0], &bytes).unwrap();
            if let Ok(added) = add(&scratch, &image.layers, &files, &options) {
                fs::remove_file(added.layer).unwrap();
            } else {
                failed += 1;
            }
        }
    }
    for length in [0, 50, 96, 100, good.len() / 2] {
        fs::write(&image.layers[0], &good[..length]).unwrap();
        assert!(
            add(&scratch, &image.layers, &files, &options).is_err(),
            "{length}"
        );
    }
    assert!(failed > 0);
}
