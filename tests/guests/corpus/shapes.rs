//! The images: what is hard to get right about layers, and what builders write.

use std::borrow::Cow;

use tar::EntryType::{Block, Char, Directory, Fifo, Regular};

use super::tape::{Long, THEN, Tape, item};

/// An image by its layers, bottom first.
pub struct Shape {
    pub name: &'static str,
    pub layers: Vec<Vec<u8>>,
}

fn shape(name: &'static str, layers: impl IntoIterator<Item = Tape>) -> Shape {
    Shape {
        name,
        layers: layers.into_iter().map(Tape::end).collect(),
    }
}

/// All of them; those with what only root can unpack if `as_root`.
pub fn all(as_root: bool) -> Vec<Shape> {
    let mut shapes = vec![
        removed(),
        replaced(),
        linked(),
        named(),
        duplicates(),
        paths(),
        hundred(),
        shape("nothing", [Tape::default(), Tape::default()]),
        shape(
            "opaque-root",
            [
                Tape::default()
                    .dir("gone")
                    .file("gone/f", "f")
                    .file("f", "f"),
                Tape::default().file(".wh..wh..opq", "").file("new", "new"),
                Tape::default().dir("gone").file("gone/again", "again"),
            ],
        ),
        kaniko(),
        ko(),
        nix(),
        bazel(),
    ];
    if as_root {
        shapes.push(attributes());
    }
    shapes
}

/// Whiteouts and opaque directories.
fn removed() -> Shape {
    let base = [
        "a", "b", "c", "d/x", "d/y", "d/sub/z", "o/x", "o/sub/y", "late/x", "k/f",
    ];
    let dirs = ["", "d", "d/sub", "o", "o/sub", "late", "k"];
    let base = base.iter().fold(
        dirs.iter()
            .fold(Tape::default(), |tape, dir| tape.dir(&format!("t/{dir}"))),
        |tape, file| tape.file(&format!("t/{file}"), file),
    );
    shape(
        "removed",
        [
            base.file("t/.wh.nothing", ""),
            Tape::default()
                .file("t/.wh.a", "")
                .file("t/.wh.never", "")
                .file("t/d/.wh.x", "")
                .file("t/d/.wh.sub", "")
                .add(item("t/o", Directory).mode(0o700).mtime(THEN + 5))
                .file("t/o/.wh..wh..opq", "")
                .file("t/o/new", "new")
                // What the layer itself has stays, wherever the mark is.
                .file("t/late/own", "own")
                .file("t/late/.wh..wh..opq", "")
                .file("t/c", "the layer's own")
                .file("t/.wh.c", ""),
            Tape::default()
                .file("t/a", "again")
                .dir("t/d")
                .dir("t/d/sub")
                .file("t/d/sub/w", "w")
                .file("t/o/.wh.new", "")
                .file("t/.wh.k", "")
                // Of AUFS, and ignored.
                .file("t/.wh..wh.aufs", "")
                .dir("t/.wh..wh.plnk"),
            Tape::default()
                .dir("t/k")
                .file("t/k/g", "g")
                .file("t/.wh.b", ""),
        ],
    )
}

/// Files by directories, links by files, and back.
fn replaced() -> Shape {
    shape(
        "replaced",
        [
            Tape::default()
                .dir("t")
                .file("t/file", "file")
                .dir("t/dir")
                .file("t/dir/in", "in")
                .symlink("t/link", "dir")
                .symlink("t/dangling", "nowhere")
                .add(item("t/node", Fifo)),
            Tape::default()
                .dir("t/file")
                .file("t/file/in", "a directory now")
                .file("t/dir", "a file now")
                .dir("t/link")
                .file("t/link/in", "no link now")
                .file("t/dangling", "a file now")
                .dir("t/node"),
            Tape::default()
                .symlink("t/file", "dir")
                .dir("t/dir")
                .file("t/dir/other", "a directory again")
                .file("t/link", "a file now")
                .file("t/node", "a file now"),
            Tape::default()
                .file("t/file", "a file again")
                .add(item("t/dir", Directory).mode(0o711)),
        ],
    )
}

/// Hard links, in a layer and to those below; directories by way of links.
fn linked() -> Shape {
    shape(
        "linked",
        [
            Tape::default()
                .dir("t")
                .file("t/one", "one")
                .file("t/two", "two")
                .hard_link("t/two-again", "t/two")
                .hard_link("t/two-more", "/t/two-again")
                .symlink("t/symbolic", "two")
                .hard_link("t/symbolic-again", "t/symbolic")
                .add(item("t/pipe", Fifo))
                .hard_link("t/pipe-again", "t/pipe")
                .dir("t/real")
                .dir("t/real/sub")
                .symlink("t/through", "real")
                .symlink("t/absolute", "/t/real")
                .symlink("t/up", "../../../t/real/sub"),
            Tape::default()
                // A file from below gets a second name.
                .hard_link("t/one-again", "t/one")
                .file("t/through/f", "f")
                .file("t/absolute/g", "g")
                .file("t/up/h", "h")
                .hard_link("t/through/two", "t/real/f"),
            Tape::default()
                .file("t/through/sub/i", "i")
                .file("t/.wh.absolute", "")
                .file("t/real/.wh.g", ""),
        ],
    )
}

/// Names of all sorts.
fn named() -> Shape {
    let long = format!("t/{}/{}", "d".repeat(200), "f".repeat(255));
    let parent = format!("t/{}", "d".repeat(200));
    let target = "target/".repeat(40);
    let mut tape = Tape::default().dir("t").dir(&parent).file(&long, "GNU's");
    for (path, long) in [("t/gnu", Long::Gnu), ("t/pax", Long::Pax)] {
        let mut link = item(path, tar::EntryType::Symlink).long(long);
        link.link = Cow::Borrowed(target.as_bytes());
        tape = tape.add(link);
    }
    let by_pax = format!("{long}.").replace(&"f".repeat(255), &"p".repeat(254));
    let mut file = item(&by_pax, Regular).long(Long::Pax);
    file.data = Cow::Borrowed(b"PAX's");
    tape = tape.add(file);
    let odd: [&[u8]; 8] = [
        b"t/latin-\xe4\xff\xfe",
        b"t/two\nlines",
        b"t/ space ",
        b"t/back\\slash",
        b"t/\x01\x1b[31m\x7f",
        "t/\u{202e}\u{1f600}".as_bytes(),
        b"t/-rf",
        b"t/*?[a]",
    ];
    tape = odd
        .iter()
        .fold(tape, |tape, name| tape.add(item(*name, Regular)));
    // Of other bytes than UTF-8 in a PAX header, too.
    let name = b"t/pax-\xe4\xff";
    tape = tape.add(item("t/short", Regular).pax("path", name));
    shape("named", [tape])
}

/// Modes, owners, times, devices, extended attributes.
fn attributes() -> Shape {
    let mut tape = Tape::default().dir("t");
    for (name, mode) in [
        ("t/setuid", 0o4755),
        ("t/setgid", 0o2755),
        ("t/sticky", 0o1644),
        ("t/all", 0o7777),
        ("t/none", 0),
    ] {
        tape = tape.add(item(name, Regular).mode(mode));
    }
    // The effective set with CAP_NET_BIND_SERVICE (struct vfs_cap_data, revision 2).
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tape = tape
        .add(item("t/shared", Directory).mode(0o1777))
        .add(item("t/group", Directory).mode(0o2770).owner(7, 1000))
        .add(item("t/owned", Regular).owner(1000, 65_534))
        .add(item("t/large-owner", Regular).owner(2_000_000_000, 2_000_000_001))
        .add(
            item("t/pax-owner", Regular)
                .pax("uid", "3000000")
                .pax("gid", "4000000"),
        )
        .add(item("t/epoch", Regular).mtime(0))
        .add(item("t/second", Regular).mtime(1))
        .add(item("t/later", Regular).mtime(3_000_000_000))
        .add(item("t/fraction", Regular).pax("mtime", "1234567890.75"))
        .device("t/null", Char, (1, 3))
        .device("t/large", Char, (259, 300_000))
        .device("t/loop", Block, (7, 1))
        .add(item("t/pipe", Fifo).mode(0o600).owner(5, 6))
        .add(
            item("t/capable", Regular)
                .mode(0o755)
                .pax("SCHILY.xattr.security.capability", &CAPABILITY),
        )
        .add(
            item("t/noted", Regular)
                .pax("SCHILY.xattr.user.note", "a note")
                .pax("SCHILY.xattr.user.empty", "")
                .pax("SCHILY.xattr.user.bytes", b"\x00\xff=\n"),
        )
        .add(item("t/noted-dir", Directory).pax("SCHILY.xattr.user.note", "of a directory"));
    shape("attributes", [tape])
}

/// The same name more than once in a layer: the last counts.
fn duplicates() -> Shape {
    shape(
        "duplicates",
        [
            Tape::default()
                .dir("t")
                .file("t/file", "first")
                .file("t/file", "second, which is longer")
                .file("t/link", "a file")
                .symlink("t/link", "file")
                .symlink("t/dir", "file")
                .dir("t/dir")
                .file("t/dir/in", "in")
                .add(item("t/dir", Directory).mode(0o750).mtime(THEN + 9))
                .file("t/a", "a")
                .hard_link("t/b", "t/a")
                .file("t/a", "another a"),
            Tape::default().dir("t").dir("t").file("t/file", "third"),
        ],
    )
}

/// The same places by other paths, and directories that nothing describes.
fn paths() -> Shape {
    shape(
        "paths",
        [
            Tape::default()
                .dir("./")
                .dir("./t/")
                .file("./t/dot", "dot")
                .file("/t/slash", "slash")
                .file("t//double", "double")
                .file("t/./inside", "inside")
                .dir("t/end/")
                .file("t/implied/deep/f", "f"),
            Tape::default()
                .file("./t/.wh.dot", "")
                .file("/t//.wh.slash", ""),
        ],
    )
}

/// A hundred layers, of which some have nothing and some are the same.
fn hundred() -> Shape {
    let layers = (0..100).map(|n| {
        let tape = Tape::default().dir("t");
        match n {
            0 => (0..7).fold(tape, |tape, dir| tape.dir(&format!("t/d{dir}"))),
            n if n % 9 == 1 => Tape::default(),
            n if n % 10 == 7 => tape.file(&format!("t/d{}/.wh.{}", (n - 1) % 7, n - 1), ""),
            n if n % 25 == 8 => tape.file(&format!("t/d{}/.wh..wh..opq", n % 7), ""),
            n if n % 12 == 5 => tape.file("t/same", "same"),
            n => tape
                .file(&format!("t/d{}/{n}", n % 7), &format!("{n}"))
                .file("t/last", &format!("{n}")),
        }
    });
    shape("hundred", layers)
}

/// kaniko takes snapshots of a whole file system: parents come again in each layer,
/// whiteouts are at the end, names begin with no slash, and hard links within a layer
/// come in the order of their names.
fn kaniko() -> Shape {
    shape(
        "kaniko",
        [
            Tape::default()
                .dir("/")
                .dir("t/")
                .dir("t/etc/")
                .file("t/etc/conf", "conf")
                .dir("t/app/")
                .file("t/app/cache", "cache")
                .file("t/app/z", "z"),
            Tape::default()
                .dir("/")
                .dir("t/")
                .dir("t/app/")
                .file("t/app/a", "a")
                .hard_link("t/app/b", "t/app/a")
                .dir("t/etc/")
                .file("t/etc/.wh.conf", "")
                .file("t/app/.wh.cache", ""),
        ],
    )
}

/// ko: absolute names, no time, directories that only root may not write, one program,
/// data beside it by links.
fn ko() -> Shape {
    let bare = |path, kind| item(path, kind).mode(0o555).mtime(0);
    let mut program = bare("/t/ko-app/main", Regular);
    program.data = Cow::Borrowed(b"\x7fELF");
    shape(
        "ko",
        [
            Tape::default()
                .add(bare("/t", Directory))
                .add(bare("/t/ko-app", Directory))
                .add(program),
            Tape::default()
                .add(bare("/t/var", Directory))
                .add(bare("/t/var/run", Directory))
                .add(bare("/t/var/run/ko", Directory))
                .file("/t/var/run/ko/data", "data")
                .symlink("/t/var/run/ko/main", "/t/ko-app/main"),
        ],
    )
}

/// nix: a store that nobody writes, one second after the epoch, with equal files as hard
/// links, and a last layer of links into it.
fn nix() -> Shape {
    let store = |path, kind| item(path, kind).mtime(1).mode(0o555);
    let mut hello = store("./t/nix/store/aaaa-hello/bin/hello", Regular);
    hello.data = Cow::Borrowed(b"hello");
    shape(
        "nix",
        [
            Tape::default()
                .add(store("./t", Directory))
                .add(store("./t/nix", Directory))
                .add(store("./t/nix/store", Directory))
                .add(store("./t/nix/store/aaaa-hello", Directory))
                .add(store("./t/nix/store/aaaa-hello/bin", Directory))
                .add(hello)
                .hard_link(
                    "./t/nix/store/aaaa-hello/bin/hi",
                    "./t/nix/store/aaaa-hello/bin/hello",
                ),
            Tape::default()
                .add(store("./t/nix", Directory))
                .add(store("./t/nix/store", Directory))
                .add(store("./t/nix/store/bbbb-lib", Directory))
                .file("./t/nix/store/bbbb-lib/so", "so"),
            Tape::default()
                .add(store("./t/bin", Directory))
                .symlink("./t/bin/hello", "/t/nix/store/aaaa-hello/bin/hello")
                .symlink("./t/sbin", "bin"),
        ],
    )
}

/// bazel: no entries of directories, or the same again and again; names that begin with
/// a dot; no time.
fn bazel() -> Shape {
    let still = |path, kind| item(path, kind).mtime(0).mode(0o555);
    shape(
        "bazel",
        [
            Tape::default()
                .add(still("./t/app/bin/tool", Regular))
                .add(still("./t/app/bin/tool.runfiles/MANIFEST", Regular))
                .symlink("./t/app/bin/alias", "tool"),
            Tape::default()
                .add(still("./", Directory))
                .add(still("./t", Directory))
                .add(still("./t/app", Directory))
                .add(still("./t/app", Directory))
                .add(still("./t/app/etc", Directory))
                .add(still("./t/app/etc/conf", Regular))
                .add(still("./t/app/etc/conf", Regular)),
        ],
    )
}
