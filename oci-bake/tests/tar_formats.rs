//! Layers written by GNU tar in each of its formats.

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use support::{Layout, Scratch, listing, run, text};

/// A tree with what archivers encode in different ways.
fn tree(dir: &Path) {
    let deep = dir.join("component-of-some-length/".repeat(9));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("n".repeat(200)), "long name").unwrap();
    symlink("target/".repeat(40), deep.join("long-link")).unwrap();
    fs::write(dir.join("n\u{e4}me with spaces\n"), "odd").unwrap();
    fs::write(dir.join("tool"), vec![3; 300_000]).unwrap();
    fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(dir.join("tool"), deep.join("tool-again")).unwrap();
    run("mkfifo", &[text(&dir.join("pipe"))]);
    // Data, hole, data, hole: more pieces than the old header holds.
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    for i in 0..40u64 {
        let byte = b'a' + u8::try_from(i % 26).unwrap();
        let offset = (i / 10) * 3_000_000 + (i % 10) * 16_384;
        sparse.write_all_at(&[byte; 4096], offset).unwrap();
    }
    sparse.set_len(12_000_000).unwrap();
    let hole = fs::File::create(dir.join("hole")).unwrap();
    hole.set_len(1 << 20).unwrap();
}

fn bake_tar(scratch: &Scratch, archive: &Path) -> std::path::PathBuf {
    let layout = Layout::new(scratch.path("image"));
    layout.image(&fs::read(archive).unwrap());
    scratch.bake(&layout.reference()).unwrap().layers[0].clone()
}

/// Every file of `left` is in `right` and equal, and the other way round.
fn assert_same(left: &Path, right: &Path) {
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(left), names(right));
    for name in names(left) {
        let (a, b) = (left.join(&name), right.join(&name));
        let (am, bm) = (
            fs::symlink_metadata(&a).unwrap(),
            fs::symlink_metadata(&b).unwrap(),
        );
        assert_eq!(
            (am.mode(), am.uid(), am.gid()),
            (bm.mode(), bm.uid(), bm.gid()),
            "{a:?}"
        );
        if am.is_dir() {
            assert_same(&a, &b);
            continue;
        }
        assert_eq!(
            (am.size(), am.nlink(), am.mtime()),
            (bm.size(), bm.nlink(), bm.mtime()),
            "{a:?}"
        );
        if am.is_symlink() {
            assert_eq!(fs::read_link(&a).unwrap(), fs::read_link(&b).unwrap());
        } else if am.is_file() {
            assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "{a:?}");
        }
    }
}

#[test]
fn every_format_of_gnu_tar_unpacks_to_the_same_tree() {
    let source = Scratch::new();
    let dir = source.path("tree");
    fs::create_dir(&dir).unwrap();
    tree(&dir);
    let formats: [&[&str]; 7] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu", "--sparse"],
        &["--format=pax"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ];
    for format in formats {
        let scratch = Scratch::new();
        let archive = scratch.path("layer.tar");
        let mut args = format.to_vec();
        args.extend(["-C", text(&dir), "-cf", text(&archive), "."]);
        run("tar", &args);
        let layer = bake_tar(&scratch, &archive);
        let out = scratch.path("out");
        run("unsquashfs", &["-d", text(&out), text(&layer)]);
        assert_same(&dir, &out);
        // Blocks without data stay holes.
        let len = fs::metadata(&layer).unwrap().len();
        assert!(len < 3_000_000, "{format:?}: {len}");
    }
}

#[test]
fn old_formats_are_read() {
    let scratch = Scratch::new();
    let dir = scratch.path("tree");
    fs::create_dir_all(dir.join("p".repeat(60)).join("q".repeat(60))).unwrap();
    fs::write(dir.join("f"), "content").unwrap();
    symlink("f", dir.join("l")).unwrap();
    for format in ["--format=ustar", "--format=v7"] {
        if format == "--format=v7" {
            fs::remove_dir_all(dir.join("p".repeat(60))).unwrap();
            fs::create_dir(dir.join("d")).unwrap();
        }
        let archive = scratch.path("layer.tar");
        run(
            "tar",
            &[format, "-C", text(&dir), "-cf", text(&archive), "."],
        );
        let layer = bake_tar(&scratch, &archive);
        let out = scratch.path(format);
        run("unsquashfs", &["-d", text(&out), text(&layer)]);
        assert_same(&dir, &out);
    }
}

#[test]
fn attributes_and_large_numbers_of_gnu_tar_survive() {
    let scratch = Scratch::new();
    let dir = scratch.path("tree");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("f"), "x").unwrap();
    for format in ["--format=gnu", "--format=pax"] {
        let archive = scratch.path("layer.tar");
        run(
            "tar",
            &[
                format,
                "--owner=u:4294967294",
                "--group=g:3000000000",
                "--mtime=@5000000000",
                "-C",
                text(&dir),
                "-cf",
                text(&archive),
                "f",
            ],
        );
        let lines = listing(&bake_tar(&scratch, &archive));
        // 5000000000 is past what squashfs stores; it stays at the last
        // second, in 2106.
        assert!(
            lines
                .iter()
                .any(|l| l.contains("4294967294/3000000000 1 2106-02-07")),
            "{format}: {lines:?}"
        );
    }
}
