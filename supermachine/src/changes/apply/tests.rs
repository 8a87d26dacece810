use super::*;
use crate::link::runtime_dir::RuntimeDir;
use exec_proto::tree::{Node, NodeKind, TreeEvent};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn change(path: &str, kind: ChangeKind, file: Option<FileKind>) -> MountChange {
    MountChange {
        path: path.into(),
        kind,
        file,
        bytes: 0,
        mode: 0o750,
    }
}

fn added(path: &str) -> MountChange {
    change(path, ChangeKind::Added, Some(FileKind::File))
}

fn node(path: &[u8], kind: NodeKind) -> TreeEvent {
    TreeEvent::Node(Node {
        path: path.to_vec(),
        kind,
        mode: 0o6755,
        uid: 7,
        gid: 7,
        size: 0,
        links: 1,
        mtime_s: 0,
        mtime_ns: 0,
        xattrs: Vec::new(),
    })
}

/// A guest that sends what it is asked for: of a name's last letter a file, a link or a
/// directory.
fn send(names: &[Vec<u8>], mut extract: Extract) -> Result<(), Error> {
    extract.take(node(b"", NodeKind::Directory))?;
    for name in names {
        match name.last() {
            Some(b'f') => {
                extract.take(node(name, NodeKind::File))?;
                extract.take(TreeEvent::Data(b"guest".to_vec()))?;
                extract.take(TreeEvent::FileEnd)?;
            }
            Some(b'l') => extract.take(node(name, NodeKind::Symlink(b"/etc".to_vec())))?,
            _ => extract.take(node(name, NodeKind::Directory))?,
        }
    }
    Ok(())
}

/// Bounds that nothing here comes near.
fn free() -> CopyOptions {
    CopyOptions::default()
}

/// Two directories, the second of which nothing may change.
fn places() -> (RuntimeDir, PathBuf, PathBuf) {
    let dir = RuntimeDir::create().unwrap();
    let (host, outside) = (dir.path().join("host"), dir.path().join("outside"));
    fs::create_dir(&host).unwrap();
    fs::create_dir_all(outside.join("d")).unwrap();
    fs::write(outside.join("kept"), "").unwrap();
    (dir, host, outside)
}

fn assert_untouched(outside: &Path) {
    assert_eq!(fs::read_dir(outside).unwrap().count(), 2);
    assert_eq!(fs::read_dir(outside.join("d")).unwrap().count(), 0);
}

#[test]
fn changes_become_the_hosts_and_nothing_of_the_work_stays() {
    let (_dir, host, _) = places();
    fs::create_dir_all(host.join("gone/deep")).unwrap();
    fs::write(host.join("gone/deep/file"), "host").unwrap();
    fs::create_dir(host.join("was-dir.f")).unwrap();
    fs::write(host.join("was-dir.f/x"), "host").unwrap();
    fs::write(host.join("file"), "host").unwrap();
    fs::write(host.join("d"), "was a file").unwrap();
    let changes = vec![
        change("d", ChangeKind::Changed, Some(FileKind::Directory)),
        added("d/f"),
        change("fifo", ChangeKind::Added, Some(FileKind::Fifo)),
        change("file", ChangeKind::Deleted, None),
        change("gone", ChangeKind::Deleted, None),
        change("l", ChangeKind::Added, Some(FileKind::Symlink)),
        added("missing/above/f"),
        change("never", ChangeKind::Deleted, None),
        change("was-dir.f", ChangeKind::Changed, Some(FileKind::File)),
    ];
    let applied = apply(&host, changes.clone(), &free(), send).unwrap();
    assert_eq!(applied.len(), changes.len() - 1, "{applied:?}");
    assert_eq!(fs::read(host.join("d/f")).unwrap(), b"guest");
    let mode = |path: &str| fs::metadata(host.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("d"), mode("d/f")), (0o750, 0o755));
    assert_eq!(fs::read(host.join("was-dir.f")).unwrap(), b"guest");
    assert_eq!(fs::read_link(host.join("l")).unwrap(), Path::new("/etc"));
    assert!(host.join("missing/above/f").is_file());
    let mut names: Vec<_> = fs::read_dir(&host)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["d", "l", "missing", "was-dir.f"]);
}

#[test]
fn no_link_leads_out_whoever_made_it() {
    let (_dir, host, outside) = places();
    symlink(&outside, host.join("link")).unwrap();
    symlink(outside.join("kept"), host.join("kept.f")).unwrap();
    let changes = vec![
        change("../outside/kept", ChangeKind::Deleted, None),
        added("../outside/new.f"),
        added("kept.f"),
        change("link/kept", ChangeKind::Deleted, None),
        added("link/new.f"),
    ];
    let fetch = |names: &[Vec<u8>], extract| {
        // What a guest could not be asked for is not sent.
        let is_inside = |name: &&Vec<u8>| !name.starts_with(b"..");
        let names: Vec<Vec<u8>> = names.iter().filter(is_inside).cloned().collect();
        send(&names, extract)
    };
    apply(&host, changes, &free(), fetch).unwrap();
    assert_untouched(&outside);
    // Where a directory belongs, the link goes, and not what it leads to.
    assert!(host.join("link").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read(host.join("link/new.f")).unwrap(), b"guest");
    assert_eq!(fs::read(host.join("kept.f")).unwrap(), b"guest");
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"");
}

#[test]
fn a_guest_that_sends_more_or_something_else_changes_no_more() {
    let (_dir, host, outside) = places();
    let out = outside.to_str().unwrap();
    let fetch = |_: &[Vec<u8>], mut extract: Extract| {
        extract.take(node(b"", NodeKind::Directory))?;
        extract.take(node(b"a.f", NodeKind::Directory))?;
        extract.take(node(b"unasked", NodeKind::File))?;
        extract.take(TreeEvent::FileEnd)?;
        extract.take(node(b"d", NodeKind::Symlink(out.into())))
    };
    let changes = vec![added("a.f"), added("d/kept"), added("none.f")];
    assert!(apply(&host, changes, &free(), fetch).unwrap().is_empty());
    // A link in the place of the staged files' directory is none of it.
    let escaping = |_: &[Vec<u8>], mut extract: Extract| {
        extract.take(node(b"", NodeKind::Directory))?;
        extract.take(node(b"d", NodeKind::Symlink(out.into())))?;
        extract.take(node(b"d/x", NodeKind::File))
    };
    let error = apply(&host, vec![added("d/x")], &free(), escaping).unwrap_err();
    assert!(matches!(error, Error::Host { .. }), "{error}");
    assert_untouched(&outside);
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
}

#[test]
fn staged_files_do_not_leave_through_a_link_in_the_place_of_their_directory() {
    let (_dir, host, outside) = places();
    let fetch = |names: &[Vec<u8>], extract: Extract| {
        // Somebody who may write to the tree puts a link there.
        let staged = fs::read_dir(&host).unwrap().next().unwrap().unwrap().path();
        fs::rename(&staged, host.join("aside")).unwrap();
        symlink(&outside, &staged).unwrap();
        send(names, extract)
    };
    let applied = apply(&host, vec![added("kept.f")], &free(), fetch).unwrap();
    assert_eq!(applied.len(), 1);
    assert_untouched(&outside);
    assert_eq!(fs::read(host.join("kept.f")).unwrap(), b"guest");
}

#[test]
fn files_go_across_to_another_file_system_whole() {
    let (_dir, host, other) = places();
    let (from, to) = (
        HostTree::open(&host).unwrap(),
        HostTree::open(&other).unwrap(),
    );
    fs::write(host.join("f"), "content").unwrap();
    fs::set_permissions(host.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("/nowhere", host.join("l")).unwrap();
    symlink("/etc/passwd", other.join("f")).unwrap();
    for name in ["f", "l"] {
        copy_across(&from.root, &to.root, OsStr::new(name), "made").unwrap();
    }
    assert_eq!(fs::read(other.join("f")).unwrap(), b"content");
    assert_eq!(
        fs::symlink_metadata(other.join("f")).unwrap().mode() & 0o7777,
        0o640
    );
    assert_eq!(
        fs::read_link(other.join("l")).unwrap(),
        Path::new("/nowhere")
    );
    assert!(!other.join("made").exists());
}

#[test]
fn of_more_than_the_bounds_nothing_is_made() {
    let (_dir, host, _) = places();
    fs::write(host.join("a.f"), "host").unwrap();
    fs::write(host.join("gone"), "host").unwrap();
    let gone = change("gone", ChangeKind::Deleted, None);
    let changes = || vec![added("a.f"), added("b.f"), gone.clone()];
    let bytes = |max_bytes| CopyOptions {
        max_bytes,
        ..free()
    };
    // Each of the two files has five, and the directory that they are in is an entry.
    let entries = |max_entries| CopyOptions {
        max_entries,
        ..free()
    };
    for options in [bytes(9), entries(2)] {
        let error = apply(&host, changes(), &options, send).unwrap_err();
        assert!(matches!(error, Error::CopyTooLarge { .. }), "{error}");
        assert_eq!(fs::read(host.join("a.f")).unwrap(), b"host");
        assert_eq!(fs::read_dir(&host).unwrap().count(), 2, "no trace is left");
    }
    let most = CopyOptions {
        max_bytes: 10,
        ..entries(3)
    };
    assert_eq!(apply(&host, changes(), &most, send).unwrap().len(), 3);
    assert_eq!(fs::read(host.join("b.f")).unwrap(), b"guest");
    assert!(!host.join("gone").exists());
}
