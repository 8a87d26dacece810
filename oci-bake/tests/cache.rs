//! The layer cache: reuse, damage, races, and what layers depend on.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use supermachine_oci_bake::{
    BakeError, BakeOptions, BakedImage, Compression, ImageBuilder, LayerBuilder, Reference, Store,
    bake,
};
use support::{Scratch, chain, listing, run, text};

fn image(scratch: &Scratch, name: &str, layers: Vec<LayerBuilder>) -> String {
    let layout = scratch.path(name);
    let mut builder = ImageBuilder::new();
    for layer in layers {
        builder = builder.layer(layer);
    }
    builder.write_layout(&layout).unwrap();
    format!("oci:{}", text(&layout))
}

fn sample() -> LayerBuilder {
    LayerBuilder::new()
        .dir("d", 0o755)
        .file("d/f", 0o644, vec![9; 200_000])
        .file("d/g", 0o644, "x")
}

fn cache_names(scratch: &Scratch) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(scratch.path("cache/layers"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn second_bake_uses_the_first_ones_file() {
    let scratch = Scratch::new();
    let reference = image(&scratch, "i", vec![sample()]);
    let first = scratch.bake(&reference).unwrap();
    let inode = fs::metadata(&first.layers[0]).unwrap().ino();
    let second = scratch.bake(&reference).unwrap();
    assert_eq!(first.layers, second.layers);
    assert_eq!(fs::metadata(&second.layers[0]).unwrap().ino(), inode);
    let digest = &first.diff_ids[0];
    assert_eq!(
        cache_names(&scratch),
        [format!("sha256-{}.squashfs", digest.hex())]
    );
}

#[test]
fn equal_layers_give_equal_bytes() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let bytes = |scratch: &Scratch| {
        let baked = scratch.bake(&image(scratch, "i", vec![sample()])).unwrap();
        fs::read(&baked.layers[0]).unwrap()
    };
    assert!(bytes(&a) == bytes(&b));
}

#[test]
fn damaged_files_are_rebuilt() {
    let scratch = Scratch::new();
    let reference = image(&scratch, "i", vec![sample()]);
    let layer = scratch.bake(&reference).unwrap().layers[0].clone();
    let good = fs::read(&layer).unwrap();
    let used = u64::from_le_bytes(good[40..48].try_into().unwrap());
    let used = usize::try_from(used).unwrap();
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let damages: [(&str, Damage<'_>); 7] = [
        ("superblock", &|bytes| bytes[4] ^= 1),
        ("inode or directory table", &|bytes| bytes[used - 60] ^= 1),
        ("truncated", &|bytes| bytes.truncate(bytes.len() - 4096)),
        ("cut short", &|bytes| bytes.truncate(100)),
        ("empty", &Vec::clear),
        ("longer", &|bytes| bytes.extend([0; 4096])),
        ("footer", &|bytes| {
            let at = bytes.len() - 4096 + 9;
            bytes[at] ^= 1;
        }),
    ];
    for (what, damage) in damages {
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(&layer, bytes).unwrap();
        scratch.bake(&reference).unwrap();
        assert!(fs::read(&layer).unwrap() == good, "{what}");
    }
}

#[test]
fn damaged_data_is_found_when_asked_for() {
    let scratch = Scratch::new();
    let reference = image(&scratch, "i", vec![sample()]);
    let layer = scratch.bake(&reference).unwrap().layers[0].clone();
    let good = fs::read(&layer).unwrap();
    let mut bytes = good.clone();
    bytes[100] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let mut options = BakeOptions::default();
    options.verify_cached_data = true;
    bake(
        &Reference::parse(&reference).unwrap(),
        &options,
        &scratch.store(),
    )
    .unwrap();
    assert!(fs::read(&layer).unwrap() == good);
}

#[test]
fn file_of_another_layer_is_not_taken_for_this_one() {
    let scratch = Scratch::new();
    let one = image(&scratch, "one", vec![sample()]);
    let two = image(
        &scratch,
        "two",
        vec![LayerBuilder::new().file("other", 0o644, "y")],
    );
    let one = scratch.bake(&one).unwrap().layers[0].clone();
    let layer = scratch.bake(&two).unwrap().layers[0].clone();
    let good = fs::read(&layer).unwrap();
    fs::copy(&one, &layer).unwrap();
    scratch.bake(&two).unwrap();
    assert!(fs::read(&layer).unwrap() == good);
}

#[test]
fn bakers_at_the_same_time_all_succeed() {
    let scratch = Scratch::new();
    let reference = image(
        &scratch,
        "i",
        vec![sample(), LayerBuilder::new().file("z", 0o644, "z")],
    );
    let cache = scratch.path("cache");
    std::thread::scope(|scope| {
        let bakers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::open(&cache).unwrap();
                    let reference = Reference::parse(&reference).unwrap();
                    bake(&reference, &BakeOptions::default(), &store)
                        .unwrap()
                        .layers
                })
            })
            .collect();
        let results: Vec<Vec<PathBuf>> = bakers.into_iter().map(|b| b.join().unwrap()).collect();
        assert!(results.iter().all(|layers| *layers == results[0]));
    });
    assert_eq!(cache_names(&scratch).len(), 2);
}

#[test]
fn failed_write_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let reference = image(
        &scratch,
        "i",
        vec![LayerBuilder::new().file("../x", 0o644, "")],
    );
    scratch.bake(&reference).unwrap_err();
    assert!(cache_names(&scratch).is_empty());
}

#[test]
fn abandoned_temporary_files_are_swept_and_others_kept() {
    let scratch = Scratch::new();
    scratch.store();
    let dead = scratch.path("cache/layers/.dead.1-2-3.tmp");
    let live = scratch.path("cache/layers/.live.1-2-3.tmp");
    let foreign = scratch.path("cache/layers/notes.txt");
    for path in [&dead, &live, &foreign] {
        fs::write(path, "x").unwrap();
    }
    // As whoever writes it does.
    let held = fs::File::open(&live).unwrap();
    held.lock().unwrap();
    scratch.store();
    assert!(!dead.exists());
    assert!(live.exists());
    assert!(foreign.exists());
    drop(held);
    scratch.store();
    assert!(!live.exists());
}

#[test]
fn lz4_layers_hold_the_same_files() {
    let scratch = Scratch::new();
    let reference = Reference::parse(&image(&scratch, "i", vec![sample()])).unwrap();
    let mut options = BakeOptions::default();
    options.compression = Compression::Lz4;
    let packed = bake(&reference, &options, &scratch.store()).unwrap();
    let plain = bake(&reference, &BakeOptions::default(), &scratch.store()).unwrap();
    assert_ne!(packed.layers, plain.layers);
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(size(&packed.layers[0]) < size(&plain.layers[0]));
    let out = scratch.path("out");
    run("unsquashfs", &["-d", text(&out), text(&packed.layers[0])]);
    assert!(fs::read(out.join("d/f")).unwrap() == vec![9; 200_000]);
}

fn has(image: &BakedImage, layer: usize, start: &str, end: &str) {
    let lines = listing(&image.layers[layer]);
    let found = lines
        .iter()
        .any(|l| l.starts_with(start) && l.ends_with(end));
    assert!(found, "{start} {end} not in {lines:#?}");
}

#[test]
fn hard_link_into_a_lower_layer_brings_the_file_up() {
    let scratch = Scratch::new();
    let base = LayerBuilder::new()
        .file("bin/tool", 0o4755, "tool")
        .owned_by(3, 4);
    let middle = LayerBuilder::new().file("unrelated", 0o644, "");
    let top = LayerBuilder::new().hard_link("bin/alias", "bin/tool");
    let baked = scratch
        .bake(&image(&scratch, "i", vec![base, middle, top]))
        .unwrap();
    has(&baked, 2, "-rwsr-xr-x 3/4 4", "/bin/tool");
    has(&baked, 2, "-rwsr-xr-x 3/4 4", "/bin/alias");
    let out = scratch.path("out");
    run("unsquashfs", &["-d", text(&out), text(&baked.layers[2])]);
    assert_eq!(fs::read(out.join("bin/alias")).unwrap(), b"tool");
    assert_eq!(fs::metadata(out.join("bin/alias")).unwrap().nlink(), 2);
}

#[test]
fn hard_link_to_what_a_layer_removed_is_an_error_that_names_it() {
    let scratch = Scratch::new();
    let base = LayerBuilder::new().file("bin/tool", 0o755, "tool");
    let gone = LayerBuilder::new().whiteout("bin/tool");
    let opaque = LayerBuilder::new().dir("bin", 0o755).opaque("bin");
    for (name, middle) in [("a", gone), ("b", opaque)] {
        let base = LayerBuilder::new().file("bin/tool", 0o755, "tool");
        let top = LayerBuilder::new().hard_link("alias", "bin/tool");
        let error = scratch
            .bake(&image(&scratch, name, vec![base, middle, top]))
            .unwrap_err();
        assert!(
            chain(&error).contains("cannot link `alias` to `bin/tool`"),
            "{}",
            chain(&error)
        );
    }
    drop(base);
}

#[test]
fn implied_directory_keeps_the_lower_ones_attributes() {
    let scratch = Scratch::new();
    let base = LayerBuilder::new().dir("tmp", 0o1777).owned_by(1, 2);
    let top = || LayerBuilder::new().file("tmp/f", 0o644, "x");
    let on_base = scratch
        .bake(&image(&scratch, "a", vec![base, top()]))
        .unwrap();
    has(&on_base, 1, "drwxrwxrwt 1/2", "/tmp");
    // The same layer on something else is another file.
    let other = LayerBuilder::new().dir("tmp", 0o700);
    let on_other = scratch
        .bake(&image(&scratch, "b", vec![other, top()]))
        .unwrap();
    has(&on_other, 1, "drwx------ 0/0", "/tmp");
    let alone = scratch.bake(&image(&scratch, "c", vec![top()])).unwrap();
    has(&alone, 0, "drwxr-xr-x 0/0", "/tmp");
}

#[test]
fn opaque_root_hides_all_layers_below() {
    let scratch = Scratch::new();
    let base = LayerBuilder::new().file("old", 0o644, "");
    let top = || {
        LayerBuilder::new()
            .file(".wh..wh..opq", 0o644, "")
            .file("new", 0o644, "")
    };
    let reference = image(&scratch, "i", vec![base, top()]);
    for _ in 0..2 {
        let baked = scratch.bake(&reference).unwrap();
        assert_eq!(baked.layers.len(), 1);
        assert_eq!(baked.diff_ids.len(), 2);
        has(&baked, 0, "-rw-r--r--", "/new");
    }
}

#[test]
fn whiteout_beside_a_directory_of_the_same_name_makes_it_opaque() {
    let scratch = Scratch::new();
    for (name, layer) in [
        ("a", LayerBuilder::new().dir("d", 0o755).whiteout("d")),
        ("b", LayerBuilder::new().whiteout("d").dir("d", 0o755)),
    ] {
        let baked = scratch.bake(&image(&scratch, name, vec![layer])).unwrap();
        has(&baked, 0, "drwxr-xr-x", "/d");
        let bytes = fs::read(&baked.layers[0]).unwrap();
        assert!(bytes.windows(14).any(|w| w == b"overlay.opaque"));
    }
    let file = LayerBuilder::new().file("f", 0o644, "x").whiteout("f");
    let baked = scratch.bake(&image(&scratch, "c", vec![file])).unwrap();
    has(&baked, 0, "-rw-r--r--", "/f");
    assert_eq!(listing(&baked.layers[0]).len(), 2);
}

#[test]
fn implied_directory_beside_its_own_whiteout_starts_afresh() {
    let scratch = Scratch::new();
    let base = LayerBuilder::new().dir("d", 0o700).dir("d/e", 0o711);
    let top = LayerBuilder::new().whiteout("d").file("d/e/f", 0o644, "x");
    let baked = scratch
        .bake(&image(&scratch, "a", vec![base, top]))
        .unwrap();
    has(&baked, 1, "drwxr-xr-x 0/0", "/d");
    has(&baked, 1, "drwxr-xr-x 0/0", "/d/e");
}

/// The names in a layer that overlayfs would take for whiteouts.
fn whiteouts(image: &BakedImage, layer: usize) -> Vec<String> {
    let lines = listing(&image.layers[layer]);
    let devices = lines.iter().filter(|line| line.starts_with('c'));
    devices
        .map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_whiteout_stays_only_where_it_hides_something() {
    let scratch = Scratch::new();
    let base = LayerBuilder::new()
        .file("d/x", 0o644, "")
        .file("d/y", 0o644, "")
        .file("file", 0o644, "")
        .file("again/x", 0o644, "")
        .whiteout("nothing");
    let top = || {
        LayerBuilder::new()
            .whiteout("d/x")
            .whiteout("d/z")
            .whiteout("new/ghost")
            .whiteout("new/deep/ghost")
            .whiteout("file/ghost")
            .opaque("again")
            .whiteout("again/x")
            .whiteout("never")
    };
    let above = LayerBuilder::new().whiteout("d/x").whiteout("d/y");
    let layers = vec![base, top(), above];
    let baked = scratch.bake(&image(&scratch, "a", layers)).unwrap();
    assert!(whiteouts(&baked, 0).is_empty());
    assert_eq!(whiteouts(&baked, 1), ["/d/x"]);
    assert_eq!(whiteouts(&baked, 2), ["/d/y"]);
    // The same layer where there is something to hide.
    let other = LayerBuilder::new()
        .file("d/z", 0o644, "")
        .file("new/deep/ghost", 0o644, "")
        .file("never", 0o644, "");
    let baked = scratch
        .bake(&image(&scratch, "b", vec![other, top()]))
        .unwrap();
    assert_eq!(whiteouts(&baked, 1), ["/d/z", "/never", "/new/deep/ghost"]);
}

#[test]
fn a_character_device_0_0_is_a_whiteout() {
    let scratch = Scratch::new();
    let base = LayerBuilder::new().file("d/x", 0o644, "");
    let top = LayerBuilder::new()
        .char_device("d/x", 0o600, 0, 0)
        .hard_link("d/y", "d/x")
        .char_device("new/x", 0o600, 0, 0);
    let baked = scratch
        .bake(&image(&scratch, "a", vec![base, top]))
        .unwrap();
    assert_eq!(whiteouts(&baked, 1), ["/d/x"]);
}

#[test]
fn a_link_of_a_lower_layer_is_followed() {
    let scratch = Scratch::new();
    let base = || {
        LayerBuilder::new()
            .dir("usr/lib", 0o711)
            .file("usr/lib/old", 0o644, "old")
            .symlink("lib", "usr/lib")
            .symlink("abs", "/lib/../lib")
            .symlink("out", "../../../usr")
    };
    let top = LayerBuilder::new()
        .file("lib/a", 0o644, "")
        .file("abs/b", 0o644, "")
        .file("out/lib/c", 0o644, "")
        .hard_link("d", "lib/old")
        .hard_link("e", "abs/a")
        .whiteout("lib/old");
    let baked = scratch
        .bake(&image(&scratch, "a", vec![base(), top]))
        .unwrap();
    let names: Vec<String> = listing(&baked.layers[1])
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
        .collect();
    let expected = [
        "",
        "/d",
        "/e",
        "/usr",
        "/usr/lib",
        "/usr/lib/a",
        "/usr/lib/b",
        "/usr/lib/c",
        "/usr/lib/old",
    ];
    assert_eq!(names, expected);
    has(&baked, 1, "drwx--x--x", "/usr/lib");
    // What says that it is a directory, or removes the link first, gets one.
    let dir = LayerBuilder::new()
        .dir("lib", 0o755)
        .file("lib/a", 0o644, "");
    let gone = LayerBuilder::new().whiteout("lib").file("lib/a", 0o644, "");
    for (name, top) in [("b", dir), ("c", gone)] {
        let baked = scratch
            .bake(&image(&scratch, name, vec![base(), top]))
            .unwrap();
        has(&baked, 1, "drwxr-xr-x", "/lib");
        has(&baked, 1, "-rw-r--r--", "/lib/a");
    }
    // A circle of links in the layers below ends.
    let circle = LayerBuilder::new().symlink("x", "y").symlink("y", "x");
    let top = LayerBuilder::new().file("x/f", 0o644, "");
    let error = scratch
        .bake(&image(&scratch, "d", vec![circle, top]))
        .unwrap_err();
    assert!(chain(&error).contains("more than 40 symlinks"));
}

#[test]
fn a_cancelled_bake_says_so_and_can_be_done_again() {
    let scratch = Scratch::new();
    let reference = image(&scratch, "i", vec![sample()]);
    let parsed = Reference::parse(&reference).unwrap();
    let options = BakeOptions::default();
    options.cancel.cancel();
    let error = bake(&parsed, &options, &scratch.store()).unwrap_err();
    assert!(matches!(error, BakeError::Cancelled), "{}", chain(&error));
    assert_eq!(cache_names(&scratch), Vec::<String>::new());
    assert_eq!(scratch.bake(&reference).unwrap().layers.len(), 1);
    // A layer that is there is not taken for damaged.
    let error = bake(&parsed, &options, &scratch.store()).unwrap_err();
    assert!(matches!(error, BakeError::Cancelled), "{}", chain(&error));
    assert_eq!(cache_names(&scratch).len(), 1);
}

#[test]
fn links_in_place_of_what_the_cache_has_are_not_followed() {
    use std::os::unix::fs::symlink;
    let scratch = Scratch::new();
    let reference = image(&scratch, "i", vec![sample()]);
    let layer = scratch.bake(&reference).unwrap().layers[0].clone();
    let cache = scratch.path("cache");
    let elsewhere = scratch.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();

    // A layer: made anew, and what the link leads to stays as it is.
    let victim = elsewhere.join("victim");
    fs::rename(&layer, &victim).unwrap();
    let before = fs::read(&victim).unwrap();
    symlink(&victim, &layer).unwrap();
    scratch.bake(&reference).unwrap();
    assert!(fs::symlink_metadata(&layer).unwrap().is_file());
    assert!(fs::read(&victim).unwrap() == before);

    // A lock that would make a file.
    let lock = cache.join("locks").join(format!(
        "{}.lock",
        layer.file_stem().unwrap().to_str().unwrap()
    ));
    let _ = fs::remove_file(&lock);
    symlink(elsewhere.join("made"), &lock).unwrap();
    fs::remove_file(&layer).unwrap();
    scratch.bake(&reference).unwrap();
    assert!(!elsewhere.join("made").exists());

    // A directory, and the whole cache.
    for place in [cache.join("layers"), cache.join("locks"), cache.clone()] {
        let aside = scratch.path("aside");
        fs::rename(&place, &aside).unwrap();
        symlink(&elsewhere, &place).unwrap();
        let error = Store::open(&cache).unwrap_err();
        assert!(matches!(error, BakeError::Store { .. }), "{error:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("symbolic link"), "{cause}");
        fs::remove_file(&place).unwrap();
        fs::rename(&aside, &place).unwrap();
    }
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 1);
}

/// The names of everything in a layer.
fn names(image: &BakedImage, layer: usize) -> Vec<String> {
    listing(&image.layers[layer])
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn more_layers_than_a_machine_has_disks_are_merged_at_the_top() {
    let scratch = Scratch::new();
    let layers = |count: usize| -> Vec<LayerBuilder> {
        (0..count)
            .map(|n| {
                let layer = LayerBuilder::new()
                    .file(&format!("d/{n}"), 0o644, n.to_string())
                    .file("last", 0o644, n.to_string());
                match n {
                    // Of a layer in the stack, of one in the merged file.
                    126 => layer.whiteout("d/3").whiteout("d/80"),
                    125 => layer
                        .hard_link("linked", "d/5")
                        .hard_link("again", "linked"),
                    _ => layer,
                }
            })
            .collect()
    };
    let baked = scratch.bake(&image(&scratch, "63", layers(63))).unwrap();
    assert_eq!(baked.layers.len(), 63);
    let baked = scratch.bake(&image(&scratch, "127", layers(127))).unwrap();
    assert_eq!((baked.layers.len(), baked.diff_ids.len()), (63, 127));
    assert_eq!(names(&baked, 61), ["", "/d", "/d/61", "/last"]);
    assert_eq!(whiteouts(&baked, 62), ["/d/3"]);
    let top = names(&baked, 62);
    assert!(!top.contains(&"/d/80".to_owned()) && !top.contains(&"/d/61".to_owned()));
    // 62 to 126 without the one removed, the whiteout and the link's target.
    assert_eq!(top.iter().filter(|n| n.starts_with("/d/")).count(), 66);
    let out = scratch.path("out");
    run("unsquashfs", &["-d", text(&out), text(&baked.layers[62])]);
    assert_eq!(fs::read(out.join("last")).unwrap(), b"126");
    assert_eq!(fs::read(out.join("again")).unwrap(), b"5");
    assert_eq!(fs::metadata(out.join("again")).unwrap().nlink(), 3);
    // The second time the file is there.
    let again = scratch
        .bake(&image(&scratch, "again", layers(127)))
        .unwrap();
    assert_eq!(again.layers, baked.layers);
    // Another lower layer makes another file of the same upper ones.
    let mut other = layers(127);
    other[0] = LayerBuilder::new().file("other", 0o644, "");
    let other = scratch.bake(&image(&scratch, "other", other)).unwrap();
    assert_ne!(other.layers[62], baked.layers[62]);
    let mut hidden = layers(127);
    hidden[100] = LayerBuilder::new()
        .file(".wh..wh..opq", 0o644, "")
        .file("d/new", 0o644, "");
    hidden[126] = LayerBuilder::new().whiteout("d/3");
    hidden[125] = LayerBuilder::new();
    let hidden = scratch.bake(&image(&scratch, "hidden", hidden)).unwrap();
    assert_eq!(hidden.layers.len(), 1);
    assert!(whiteouts(&hidden, 0).is_empty());
    assert!(names(&hidden, 0).contains(&"/d/new".to_owned()));
    assert!(!names(&hidden, 0).contains(&"/d/80".to_owned()));
}

#[test]
fn too_many_layers_are_refused_with_the_limit() {
    let scratch = Scratch::new();
    let layers = (0..257).map(|_| LayerBuilder::new()).collect();
    let error = scratch.bake(&image(&scratch, "i", layers)).unwrap_err();
    assert_eq!(
        chain(&error),
        "cannot use the image: the image has too many layers (limit 256)"
    );
}
