//! Every row of the table of policies, for the last and for middle components,
//! and links that take each other's place.

use super::*;

/// A tree with links that stay and links that leave.
fn tree(policy: SymlinkPolicy) -> Guest {
    let guest = Guest::with(policy, false);
    fs::create_dir_all(guest.host("packages/a")).unwrap();
    fs::write(guest.host("packages/a/index"), "inside").unwrap();
    fs::create_dir(guest.host("node_modules")).unwrap();
    symlink("../packages/a", guest.host("node_modules/a")).unwrap();
    symlink("packages/a/index", guest.host("inside")).unwrap();
    symlink("nowhere", guest.host("dangling")).unwrap();
    symlink(guest.outside(""), guest.host("absolute")).unwrap();
    symlink("../outside", guest.host("relative")).unwrap();
    symlink("../outside/secret", guest.host("file")).unwrap();
    // Out by way of another link.
    symlink("relative/secret", guest.host("indirect")).unwrap();
    guest
}

const LEAVING: [&CStr; 4] = [c"absolute", c"relative", c"file", c"indirect"];
const STAYING: [&str; 3] = ["node_modules/a", "inside", "dangling"];

fn target(guest: &mut Guest, node: u64) -> String {
    let answer = guest.ask(opcode::READLINK, node, &[]).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn opaque_links_are_text_whatever_they_say() {
    let mut guest = tree(SymlinkPolicy::Opaque);
    for name in LEAVING {
        let told = guest.look(ROOT, name).unwrap();
        assert_eq!(told.mode & host::TYPE, 0o120_000, "{name:?}");
        // As a middle component, and as a file.
        let below = guest.look(told.node, c"secret");
        assert!(
            matches!(below, Err(Errno::STALE | Errno::NOTDIR)),
            "{below:?}"
        );
        assert_eq!(guest.open(told.node, 0), Err(Errno::OPNOTSUPP));
        assert!(guest.make_directory(told.node, c"x").is_err());
        assert!(guest.ask(opcode::OPENDIR, told.node, &[0; 8]).is_err());
        assert!(guest.set(told.node, set::MODE, 0, 0o777).is_err());
        assert!(guest.set(told.node, set::SIZE, 0, 0).is_err());
    }
    let relative = guest.look(ROOT, c"relative").unwrap().node;
    assert_eq!(target(&mut guest, relative), "../outside");
    let planted = guest.symlink(ROOT, c"escape", c"/etc/passwd").unwrap();
    assert_eq!(target(&mut guest, planted.node), "/etc/passwd");
    assert_eq!(guest.open(planted.node, 0), Err(Errno::OPNOTSUPP));
    // Times of the link, not of what it names.
    guest.set(relative, set::MTIME, 0, 0).unwrap();
    assert_ne!(fs::metadata(guest.outside("")).unwrap().mtime(), 2_000_000);
    for name in LEAVING {
        guest.unlink(ROOT, name).unwrap();
    }
    assert!(guest.outside("secret").exists());
}

#[test]
fn denied_links_are_not_made_and_not_found_if_they_leave() {
    let mut guest = tree(SymlinkPolicy::Deny);
    for name in LEAVING {
        assert_eq!(guest.look(ROOT, name), Err(Errno::ACCESS), "{name:?}");
    }
    for path in STAYING {
        let told = guest.walk(path).unwrap();
        assert_eq!(told.mode & host::TYPE, 0o120_000, "{path:?}");
    }
    let made = guest.symlink(ROOT, c"new", c"inside");
    assert_eq!(made, Err(Errno::PERM));
    // A list does not tell more than a lookup.
    for (name, node) in guest.list(ROOT, true, 4096).unwrap() {
        let is_link = !matches!(&*name, "." | ".." | "packages" | "node_modules");
        assert_eq!(node == 0, is_link || name.starts_with('.'), "{name}");
    }
}

#[test]
fn followed_links_are_what_they_lead_to() {
    let mut guest = tree(SymlinkPolicy::Follow);
    for name in [c"absolute", c"relative"] {
        let told = guest.look(ROOT, name).unwrap();
        assert_eq!(told.mode & host::TYPE, 0o040_000, "{name:?}");
        let secret = guest.look(told.node, c"secret").unwrap();
        let handle = guest.open(secret.node, 0).unwrap();
        assert_eq!(guest.read(handle, 0, 99), Ok(b"secret".to_vec()));
        let listed = guest.list(told.node, true, 4096).unwrap();
        assert!(listed.iter().any(|(name, _)| name == "secret"));
    }
    for name in [c"file", c"indirect"] {
        let told = guest.look(ROOT, name).unwrap();
        assert_eq!((told.mode & host::TYPE, told.size), (0o100_000, 6));
        let handle = guest.open(told.node, open::RDWR).unwrap();
        assert_eq!(guest.write(handle, 0, b"S"), Ok(1));
    }
    assert_eq!(fs::read(guest.outside("secret")).unwrap(), b"Secret");
    for path in STAYING {
        let told = guest.walk(path).unwrap();
        assert_eq!(told.mode & host::TYPE, 0o120_000, "{path:?}");
    }
    let made = guest.symlink(ROOT, c"out", c"../outside").unwrap();
    assert_eq!(made.mode & host::TYPE, 0o120_000, "what was made is a link");
    guest.server.nodes().forget(made.node, 1);
    let told = guest.look(ROOT, c"out").unwrap();
    assert_eq!(told.mode & host::TYPE, 0o040_000);
}

#[test]
fn directory_that_becomes_a_link_leads_nowhere() {
    let mut guest = tree(SymlinkPolicy::Opaque);
    fs::create_dir(guest.host("d")).unwrap();
    fs::write(guest.host("d/secret"), "mine").unwrap();
    let directory = guest.walk("d").unwrap().node;
    let file = guest.walk("d/secret").unwrap().node;
    fs::rename(guest.host("d"), guest.host("e")).unwrap();
    symlink("../outside", guest.host("d")).unwrap();
    assert_eq!(guest.look(directory, c"secret"), Err(Errno::STALE));
    assert_eq!(guest.attributes(file), Err(Errno::STALE));
    assert_eq!(guest.open(file, 0), Err(Errno::STALE));
    assert_eq!(guest.unlink(directory, c"secret"), Err(Errno::STALE));
    assert!(guest.outside("secret").exists());
}

fn release(guest: &mut Guest, handle: u64) {
    let mut arguments = Body::default();
    arguments.u64(handle).u64(0).u64(0);
    guest.ask(opcode::RELEASE, 0, &arguments.0).unwrap();
}

/// One guest program swaps a directory and a link without end, while others look,
/// read and write through both names.
#[test]
fn swapping_links_and_directories_never_leads_out() {
    let guest = tree(SymlinkPolicy::Opaque);
    fs::create_dir(guest.host("d")).unwrap();
    fs::write(guest.host("d/secret"), "inside").unwrap();
    symlink("../outside", guest.host("l")).unwrap();
    let Guest { server, place, .. } = guest;
    let share = |server: &Server| Guest {
        server: Server::new(server.root.try_clone().unwrap(), server.rules.clone()).unwrap(),
        place: tempfile::tempdir().unwrap(),
        buffer: Vec::new(),
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut swapper = share(&server);
            for _ in 0..20_000 {
                let swapped = swapper.rename((ROOT, c"d"), (ROOT, c"l"), 2);
                // Not every file system of a host can do it at once.
                if swapped.is_err() {
                    let _ = swapper.rename((ROOT, c"d"), (ROOT, c"t"), 0);
                    let _ = swapper.rename((ROOT, c"l"), (ROOT, c"d"), 0);
                    let _ = swapper.rename((ROOT, c"t"), (ROOT, c"l"), 0);
                }
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut walker = share(&server);
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            for name in [c"d", c"l"] {
                let Ok(place) = walker.look(ROOT, name) else {
                    continue;
                };
                if let Ok(file) = walker.look(place.node, c"secret")
                    && let Ok(handle) = walker.open(file.node, open::RDWR)
                {
                    assert_eq!(walker.read(handle, 0, 99), Ok(b"inside".to_vec()));
                    release(&mut walker, handle);
                }
                if let Ok((_, handle)) = walker.create(place.node, c"planted", 0o644) {
                    walker.write(handle, 0, b"x").unwrap();
                    release(&mut walker, handle);
                }
                let _ = walker.unlink(place.node, c"planted");
            }
        }
    });
    let outside: Vec<_> = fs::read_dir(place.path().join("outside"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(outside, ["secret"]);
    assert_eq!(
        fs::read(place.path().join("outside/secret")).unwrap(),
        b"secret"
    );
}
