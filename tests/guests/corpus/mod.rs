//! What a guest sees of images of every shape, against what umoci unpacks of them.

mod list;
mod shapes;
mod tape;

use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use oci_bake::{
    BakeOptions, BakedImage, ImageBuilder, LayerBuilder, LayerCompression, Owner, Reference, Store,
    bake,
};
use supermachine::Image;
use supermachine_tests::{COMMAND_TIMEOUT, config, required, run, succeeded};

/// What gzip does takes long in a build for tests.
fn plain_image() -> ImageBuilder {
    let none = LayerCompression::None;
    ImageBuilder::new().compression(none).tag("v1")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of this test")
}

/// A directory for images, what umoci makes of them, and what a guest is given of them.
struct Corpus {
    dir: PathBuf,
    store: Store,
    /// Whether umoci can make devices and owners here.
    as_root: bool,
    expected: Vec<(String, Vec<String>)>,
}

impl Corpus {
    fn bake(&self, reference: &str) -> BakedImage {
        let reference = Reference::parse(reference).expect("a reference");
        bake(&reference, &BakeOptions::default(), &self.store)
            .unwrap_or_else(|error| panic!("{reference}: {error}: {:?}", error))
    }

    /// Takes in the image called `v1` of a layout.
    fn add(&mut self, name: &str, layout: &Path) -> BakedImage {
        let image = format!("{}:v1", text(layout));
        let unpacked = self.dir.join(format!("unpacked-{name}"));
        let how: &[&str] = match self.as_root {
            true => &["unpack"],
            false => &["unpack", "--rootless"],
        };
        let what = ["--image", &image, text(&unpacked)];
        run("umoci", &[how, &what].concat());
        let lines = list::of(&unpacked.join("rootfs"));
        self.expected.push((name.to_owned(), lines));
        let baked = self.bake(&format!("oci:{image}"));
        let shelf = self.dir.join("carried/images").join(name);
        fs::create_dir_all(&shelf).expect("made");
        for (at, layer) in baked.layers.iter().enumerate() {
            fs::hard_link(layer, shelf.join(format!("{at:02}"))).expect("linked");
        }
        baked
    }

    /// An image that has all of these and a program that mounts and lists them.
    fn carrier(&self) -> Image {
        let layout = self.dir.join("carrier");
        let of = |image: &str| {
            let blobs = required(image, "cargo xtask images");
            let read = |path: PathBuf| -> serde_json::Value {
                serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
            };
            let blob = move |digest: &serde_json::Value| {
                let digest = digest.as_str().expect("a digest").to_owned();
                blobs
                    .join("blobs/sha256")
                    .join(digest.trim_start_matches("sha256:"))
            };
            let index = required(&format!("{image}/index.json"), "cargo xtask images");
            let manifest = read(blob(&read(index)["manifests"][0]["digest"]));
            let layers = manifest["layers"].as_array().expect("layers").clone();
            let paths: Vec<PathBuf> = layers.iter().map(|layer| blob(&layer["digest"])).collect();
            paths
        };
        let mut builder = plain_image().env("PATH", "/usr/bin:/bin");
        for layer in of("guest-images/python3") {
            builder = builder.layer_tar(File::open(layer).expect("a layer"));
        }
        // Its program; the names for it are in a layer below.
        let busybox = of("demo/busybox").pop().expect("layers");
        let output = Command::new("gzip").args(["-dc", text(&busybox)]).output();
        builder = builder.layer_tar(Cursor::new(output.expect("gzip").stdout));
        let owner = Owner::Fixed { uid: 0, gid: 0 };
        let images = LayerBuilder::new()
            .dir("mnt", 0o755)
            .host_dir(self.dir.join("carried"), owner)
            .expect("what was baked");
        let builder = builder.layer(images).cmd(["/bin/sh"]);
        builder.write_layout(&layout).expect("an image");
        let reference = format!("oci:{}:v1", text(&layout));
        Image::load_with_cache(&reference, self.dir.join("carriers-cache")).expect("bakes")
    }
}

/// An image that buildah makes of files of the host, in two layers.
fn by_buildah(dir: &Path) -> PathBuf {
    let (root, run_root) = (dir.join("buildah"), dir.join("buildah-run"));
    let buildah = |arguments: &[&str]| {
        let places = ["--root", text(&root), "--runroot", text(&run_root)];
        let all = [&places[..], &["--storage-driver", "vfs"], arguments].concat();
        run("buildah", &all)
    };
    let context = dir.join("context");
    fs::create_dir_all(context.join("t/sub")).expect("made");
    fs::write(context.join("t/sub/tool"), "tool").expect("written");
    let mode = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(context.join("t/sub/tool"), mode).expect("set");
    fs::hard_link(context.join("t/sub/tool"), context.join("t/again")).expect("linked");
    symlink("sub/tool", context.join("t/link")).expect("linked");
    let layout = dir.join("by-buildah");
    let to = format!("oci:{}:v1", text(&layout));
    buildah(&["from", "--name", "first", "scratch"]);
    buildah(&["copy", "first", text(&context), "/"]);
    buildah(&["config", "--arch", "arm64", "--cmd", "/t/sub/tool", "first"]);
    buildah(&["commit", "--quiet", "first", "first-image"]);
    buildah(&["from", "--name", "second", "first-image"]);
    fs::write(context.join("t/sub/tool"), "another tool").expect("written");
    buildah(&[
        "copy",
        "--chown",
        "5:6",
        "second",
        text(&context.join("t/sub")),
        "/t/sub",
    ]);
    buildah(&["commit", "--quiet", "second", &to]);
    layout
}

/// Words of a line, as [`list`] has them.
const OWNERS: std::ops::Range<usize> = 3..5;
const TIME: usize = 5;
const LINKS: usize = 8;

/// Where they may differ: an image, a path in it, the word, and why.
const KNOWN: &[(&str, &str, usize, &str)] = &[
    // The specification has no word on directories that no layer describes (layer.md,
    // "Change Types" names their mode, owner and time as attributes of entries only):
    // umoci gives them the time at which it unpacks, and here they have none.
    ("bazel", "/t/app/bin", TIME, "nothing describes it"),
    (
        "bazel",
        "/t/app/bin/tool.runfiles",
        TIME,
        "nothing describes it",
    ),
    ("paths", "/t/implied", TIME, "nothing describes it"),
    ("paths", "/t/implied/deep", TIME, "nothing describes it"),
    // umoci restores a parent's time after a whiteout, but not by a path with `//`.
    ("paths", "/t", TIME, "umoci leaves the time of the whiteout"),
    // The other name is hidden by a layer above, and overlayfs goes on counting it
    // (Documentation/filesystems/overlayfs.rst, "index" is what would not).
    (
        "buildah",
        "/t/again",
        LINKS,
        "overlayfs counts the links of the layer",
    ),
];

/// What of a line must be the same.
fn compared(image: &str, line: &str, as_root: bool) -> Option<String> {
    let mut words: Vec<&str> = line.split(' ').collect();
    let path = words[0];
    if path == "/" {
        // It is that of the layer for changes, as in other runtimes.
        return None;
    }
    if !as_root {
        // Whoever unpacks owns all of it.
        words[OWNERS].fill("-");
    }
    for (_, _, word, why) in KNOWN
        .iter()
        .filter(|known| (known.0, known.1) == (image, path))
    {
        words[*word] = *why;
    }
    Some(words.join(" "))
}

#[test]
fn images_of_every_shape_are_in_the_guest_what_umoci_unpacks() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut corpus = Corpus {
        dir: dir.path().to_path_buf(),
        store: Store::open(dir.path().join("cache")).expect("a cache"),
        as_root: rustix::process::geteuid().is_root(),
        expected: Vec::new(),
    };
    if !corpus.as_root {
        eprintln!("who is not root makes no devices and no owners: those are not compared");
    }
    for shape in shapes::all(corpus.as_root) {
        let layout = corpus.dir.join(shape.name);
        let layers = shape.layers.into_iter().map(Cursor::new);
        let builder = plain_image().cmd(["/t"]);
        let builder = layers.fold(builder, ImageBuilder::layer_tar);
        builder.write_layout(&layout).expect("an image");
        corpus.add(shape.name, &layout);
    }
    if corpus.as_root {
        let layout = by_buildah(&corpus.dir);
        corpus.add("buildah", &layout);
    }
    let vm = corpus
        .carrier()
        .start(&config().with_memory_mib(512))
        .expect("the carrier boots");
    let outcome = vm
        .exec_builder()
        .stage_file("/tmp/list.py", list::IN_GUEST)
        .argv(["python3", "/tmp/list.py"])
        .timeout(COMMAND_TIMEOUT)
        .output()
        .expect("the program runs");
    let seen = succeeded(&outcome).expect("the program succeeds");
    let mut seen = seen.split("== ").skip(1).map(|part| {
        let (name, lines) = part.split_once('\n').expect("lines");
        (
            name.to_owned(),
            lines.lines().map(str::to_owned).collect::<Vec<_>>(),
        )
    });
    corpus.expected.sort();
    let mut differences = Vec::new();
    for (name, expected) in &corpus.expected {
        let (seen_name, seen) = seen.next().unwrap_or_default();
        assert_eq!(*name, seen_name);
        let compared = |lines: &[String]| -> Vec<String> {
            let lines = lines.iter();
            let lines = lines.filter_map(|line| compared(name, line, corpus.as_root));
            lines.collect()
        };
        let (expected, seen) = (compared(expected), compared(&seen));
        for line in expected.iter().filter(|line| !seen.contains(line)) {
            differences.push(format!("{name}: umoci only: {line}"));
        }
        for line in seen.iter().filter(|line| !expected.contains(line)) {
            differences.push(format!("{name}: guest only: {line}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
