//! What a guest sees of an image's layers, against what umoci unpacks of them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use oci_bake::{ImageBuilder, LayerBuilder};
use supermachine::{Image, Vm};
use supermachine_tests::{config, required, run, sh};

/// Lists all of /t: kind, mode, path, and a link's target or a file's content.
/// The names come from the shell's pattern, which only reads directories, so
/// that names without an object show.
const LIST: &str = r#"
walk() {
    for p in "$1"/* "$1"/.[!.]*; do
        case "$p" in */'*'|*/'.[!.]*') continue;; esac
        if [ -L "$p" ]; then echo "l $p $(/bin/busybox readlink "$p")"; continue; fi
        mode=$(/bin/busybox stat -c %a "$p" 2>/dev/null)
        if [ -d "$p" ]; then echo "d $mode $p"; walk "$p"
        elif [ -f "$p" ]; then echo "f $mode $p $(cat "$p")"
        else echo "? $mode $p"; fi
    done
}
cd / && walk t"#;

/// The same of a directory of the host.
fn list(root: &Path, name: &str, lines: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(name)).expect("the unpacked image") {
        let entry = entry.expect("an entry");
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        let metadata = fs::symlink_metadata(entry.path()).expect("its attributes");
        let mode = metadata.permissions().mode() & 0o7777;
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(entry.path()).expect("its target");
            lines.push(format!("l {name} {}", target.display()));
        } else if kind.is_dir() {
            lines.push(format!("d {mode:o} {name}"));
            list(root, &name, lines);
        } else if kind.is_file() {
            let content = fs::read_to_string(entry.path()).expect("its content");
            lines.push(format!("f {mode:o} {name} {}", content.trim_end()));
        } else {
            assert!(!kind.is_char_device(), "umoci made a device of {name}");
            lines.push(format!("? {mode:o} {name}"));
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of this test")
}

/// An image of the demo's layers and further ones.
fn on_busybox(layers: impl IntoIterator<Item = LayerBuilder>) -> ImageBuilder {
    let blobs = required("demo/busybox/blobs/sha256", "cargo xtask images");
    let read = |digest: &serde_json::Value| {
        let digest = digest.as_str().expect("a digest");
        blobs.join(digest.trim_start_matches("sha256:"))
    };
    let json = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
    };
    let index = json(&blobs.join("../../index.json"));
    let manifest = json(&read(&index["manifests"][0]["digest"]));
    let mut image = ImageBuilder::new()
        .tag("v1")
        .env("PATH", "/usr/bin:/bin")
        .cmd(["/bin/sh"]);
    for layer in manifest["layers"].as_array().expect("layers") {
        let output = Command::new("gzip")
            .args(["-dc", text(&read(&layer["digest"]))])
            .output()
            .expect("gzip");
        assert!(output.status.success());
        image = image.layer_tar(std::io::Cursor::new(output.stdout));
    }
    layers.into_iter().fold(image, ImageBuilder::layer)
}

/// Boots the image of a layout, which is baked beside it.
fn boot(layout: &Path) -> Vm {
    let reference = format!("oci:{}:v1", text(layout));
    let cache = layout.with_file_name("cache");
    let image = Image::load_with_cache(&reference, cache).expect("bakes");
    let started = image.start(&config().with_memory_mib(256));
    started.expect("the image boots")
}

/// Boots the image of a layout and compares what it has in /t with what umoci
/// unpacks to `unpacked`.
fn compare(layout: &Path, unpacked: &Path) {
    let image = format!("{}:v1", text(layout));
    run(
        "umoci",
        &["unpack", "--rootless", "--image", &image, text(unpacked)],
    );
    let mut expected = Vec::new();
    list(&unpacked.join("rootfs"), "t", &mut expected);
    expected.sort();
    let mut seen: Vec<String> = sh(&boot(layout), LIST).lines().map(str::to_owned).collect();
    seen.sort();
    let (seen, expected) = (seen.join("\n"), expected.join("\n"));
    assert_eq!(seen, expected);
}

fn file(layer: LayerBuilder, name: &str) -> LayerBuilder {
    layer.file(name, 0o644, name)
}

fn files(names: &[&str]) -> LayerBuilder {
    names
        .iter()
        .fold(LayerBuilder::new(), |layer, name| file(layer, name))
}

#[test]
fn whiteouts_and_links_of_lower_layers_are_what_umoci_makes_of_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = files(&[
        "t/usr/lib/a",
        "t/usr/lib/z",
        "t/d/x",
        "t/d/y",
        "t/gone",
        "t/file",
        "t/nest/deep/f",
        "t/nest/deep/g",
        "t/kept/f",
        "t/other/f",
    ])
    .whiteout("t/nothing")
    .symlink("t/lib", "usr/lib")
    .symlink("t/abs", "/t/usr");
    let layers = [
        base,
        file(files(&["t/lib/b", "t/d/new", "t/new/sub/f"]), "t/abs/lib/c")
            .whiteout("t/gone")
            .whiteout("t/never")
            .opaque("t/d")
            .whiteout("t/d/x")
            .whiteout("t/new/ghost")
            .whiteout("t/new/sub/ghost")
            .whiteout("t/lib/z")
            .hard_link("t/linked", "t/lib/a"),
        file(LayerBuilder::new().whiteout("t/file"), "t/file")
            .whiteout("t/gone")
            .whiteout("t/nest/deep"),
        files(&["t/nest/deep/h"])
            .whiteout("t/d")
            .whiteout("t/nest/deep/f")
            .dir("t/other", 0o700)
            .opaque("t/other"),
        files(&["t/d/again"])
            .whiteout("t/kept/f")
            .whiteout("t/lib/b")
            .dir("t/lib", 0o711),
    ];
    let layout = dir.path().join("layout");
    on_busybox(layers).write_layout(&layout).expect("an image");
    compare(&layout, &dir.path().join("unpacked"));
}

#[test]
fn the_root_has_the_rights_and_the_owner_that_the_image_gives_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let layout = dir.path().join("layout");
    let root = LayerBuilder::new().dir(".", 0o1751).owned_by(5, 6);
    // A layer on top that has the root only because something is in it.
    on_busybox([root, files(&["t/f"])])
        .write_layout(&layout)
        .expect("an image");
    let seen = sh(&boot(&layout), "/bin/busybox stat -c '%a %u %g' /");
    assert_eq!(seen.trim(), "1751 5 6");
}

#[test]
fn what_umoci_repacks_looks_in_the_guest_as_it_did_to_umoci() {
    let dir = tempfile::tempdir().expect("a directory");
    let layout = dir.path().join("layout");
    let bundle = dir.path().join("bundle");
    let base = files(&[
        "t/d/x",
        "t/d/y",
        "t/e/sub/f",
        "t/gone",
        "t/was-file",
        "t/was-dir/f",
    ]);
    on_busybox([base.symlink("t/link", "d")])
        .write_layout(&layout)
        .expect("an image");
    let image = format!("{}:v1", text(&layout));
    run(
        "umoci",
        &["unpack", "--rootless", "--image", &image, text(&bundle)],
    );
    let root = bundle.join("rootfs/t");
    let repack = || {
        run(
            "umoci",
            &[
                "repack",
                "--refresh-bundle",
                "--image",
                &image,
                text(&bundle),
            ],
        );
    };
    fs::remove_dir_all(root.join("e")).expect("removed");
    fs::remove_file(root.join("gone")).expect("removed");
    fs::remove_file(root.join("was-file")).expect("removed");
    fs::create_dir(root.join("was-file")).expect("made");
    fs::write(root.join("was-file/f"), "f").expect("written");
    fs::remove_dir_all(root.join("was-dir")).expect("removed");
    fs::write(root.join("was-dir"), "a file").expect("written");
    repack();
    // Once more, on what was just removed and made.
    fs::create_dir_all(root.join("e/sub")).expect("made");
    fs::write(root.join("e/sub/g"), "g").expect("written");
    fs::remove_dir_all(root.join("was-file")).expect("removed");
    fs::remove_file(root.join("link")).expect("removed");
    fs::create_dir(root.join("link")).expect("made");
    fs::remove_dir_all(root.join("d")).expect("removed");
    repack();
    fs::remove_file(root.join("e/sub/g")).expect("removed");
    repack();
    compare(&layout, &dir.path().join("unpacked"));
}

#[test]
fn an_image_of_127_layers_starts_and_shows_what_umoci_unpacks() {
    let dir = tempfile::tempdir().expect("a directory");
    let layout = dir.path().join("layout");
    let layers = (0..125).map(|n| {
        let layer = files(&[&format!("t/d{}/{n}", n % 7), "t/last"]);
        match n {
            // What the layer before made, what one far below made, a
            // directory as a whole.
            n if n % 10 == 9 => layer
                .whiteout(&format!("t/d{}/{}", (n - 1) % 7, n - 1))
                .whiteout(&format!("t/d{}/{}", (n / 2) % 7, n / 2)),
            n if n % 30 == 5 => layer.opaque(&format!("t/d{}", n % 7)),
            100 => layer.symlink("t/link", "d1"),
            101 => file(layer, "t/link/through").hard_link("t/linked", "t/d0/91"),
            _ => layer,
        }
    });
    let layers = layers.map(|layer| layer.dir("t", 0o755));
    on_busybox(layers).write_layout(&layout).expect("an image");
    compare(&layout, &dir.path().join("unpacked"));
}

/// Looks names up and says which are not what they should be. The guest forgets what
/// it looked up before each pass.
const LOOK: &str = r#"
look() {
    echo 2 > /proc/sys/vm/drop_caches
    while read -r name; do
        content=
        read -r content < "/t/$name" && [ "$content" = "$name" ] || echo "lost $name"
        [ -e "/t/$name~" ] && echo "ghost $name~"
        [ -e "/t/!$name" ] && echo "ghost !$name"
    done
}
/bin/busybox sort /names | look
/bin/busybox sort -r /names | look
look < /names
cd /t && echo * | /bin/busybox tr ' ' '\n' | look
/bin/busybox wc -l < /names"#;

#[test]
fn names_of_a_large_directory_are_found_in_any_order() {
    const NAMES: usize = 700;
    let dir = tempfile::tempdir().expect("a directory");
    let layout = dir.path().join("layout");
    // Of many lengths, in no order: over edges of blocks, headers and pages.
    let names: Vec<String> = (0..NAMES)
        .map(|n| {
            let number = n * 101 % NAMES;
            format!("{number:03}{}", "n".repeat(number * 7 % 61))
        })
        .collect();
    let layer = names.iter().fold(LayerBuilder::new(), |layer, name| {
        layer.file(&format!("t/{name}"), 0o644, format!("{name}\n"))
    });
    let layer = layer.file("names", 0o644, names.join("\n") + "\n");
    on_busybox([layer.dir("t", 0o755)])
        .write_layout(&layout)
        .expect("an image");
    assert_eq!(sh(&boot(&layout), LOOK), format!("{NAMES}\n"));
}
