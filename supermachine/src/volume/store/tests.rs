use super::*;
use std::time::{Duration, Instant};

struct Place(VolumeStore);

impl Place {
    fn new(test: &str) -> Self {
        let name = format!("sm-volumes-{test}-{}", std::process::id());
        Self(VolumeStore::at(std::env::temp_dir().join(name)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0.dir);
    }
}

fn problem(result: Result<impl Sized, Error>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn volume_is_sparse_private_and_made_once() {
    let place = Place::new("made");
    let store = &place.0;
    assert_eq!(store.list().unwrap(), []);
    store.create("data", 4096).unwrap();
    assert!(problem(store.create("data", 4096)).contains("one of that name"));
    let volume = store.inspect("data").unwrap();
    assert_eq!(volume.size_bytes, 4 << 30);
    assert!(volume.disk_bytes < 4 << 20, "{}", volume.disk_bytes);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&store.dir), mode(&volume.path)), (0o700, 0o600));
    let names: Vec<_> = store.list().unwrap().into_iter().map(|v| v.name).collect();
    assert_eq!(names, ["data"]);
    assert!(problem(store.inspect("other")).contains("volume ls"));
    assert!(problem(store.create("../x", 64)).contains("choose a name"));
    assert!(problem(store.create("x", 1)).contains("choose a size"));
}

#[test]
fn one_has_a_volume_and_the_others_are_told_who() {
    let place = Place::new("held");
    let store = &place.0;
    let held = store.open_for("data", 16, 16, "4711-2").unwrap();
    let said = problem(store.remove("data"));
    assert!(said.contains("4711-2"), "{said}");
    assert!(said.contains(&std::process::id().to_string()), "{said}");
    let again = store.open_for("data", 16, 16, "other").unwrap_err();
    assert!(matches!(again, Error::VolumeInUse { .. }), "{again:?}");
    assert!(store.inspect("data").unwrap().in_use_by.is_some());
    assert_eq!(store.prune(true).unwrap(), [""; 0]);
    // Any process that has the file open has the volume.
    let passed_on = held.try_clone().unwrap();
    drop(held);
    assert!(problem(store.remove("data")).contains("in use"));
    drop(passed_on);
    store.remove("data").unwrap();
    assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 0);
}

#[test]
fn volume_grows_and_never_shrinks() {
    let place = Place::new("grown");
    let store = &place.0;
    let length = |least, new| {
        let file = store.open_for("data", least, new, "id").unwrap();
        file.metadata().unwrap().len() >> 20
    };
    assert_eq!([length(0, 16), length(0, 1024), length(16, 16)], [16; 3]);
    assert_eq!([length(32, 32), length(16, 16), length(0, 64)], [32; 3]);
}

#[test]
fn what_is_in_a_volume_s_place_is_not_followed_or_waited_for() {
    let place = Place::new("hostile");
    let store = &place.0;
    store.create("short", 16).unwrap();
    let short = store.open("short").unwrap().unwrap();
    short.set_len(4096).unwrap();
    drop(short);
    assert!(problem(store.open_for("short", 64, 64, "id")).contains("cut short"));
    std::os::unix::fs::symlink(store.path("short"), store.path("link")).unwrap();
    fs::create_dir(store.path("dir")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(store.path("fifo"))
        .status();
    assert!(made.unwrap().success());
    for name in ["link", "dir", "fifo"] {
        let said = problem(store.open_for(name, 64, 64, "id"));
        assert!(said.contains("something else"), "{name}: {said}");
    }
    let names: Vec<_> = store.list().unwrap().into_iter().map(|v| v.name).collect();
    assert_eq!(names, ["short"]);
}

#[test]
fn leftovers_go_and_volumes_stay_unless_all_are_meant() {
    let place = Place::new("pruned");
    let store = &place.0;
    store.create("a", 16).unwrap();
    store.create("b", 16).unwrap();
    let left = store.dir.join(format!("{UNFINISHED}1"));
    fs::write(&left, "").unwrap();
    let being_made = store.dir.join(format!("{UNFINISHED}2"));
    let maker = create_new(&being_made).unwrap();
    maker.lock().unwrap();
    let held = store.open_for("b", 16, 16, "id").unwrap();
    assert_eq!(store.prune(false).unwrap(), [""; 0]);
    assert!(!left.exists() && being_made.exists());
    // A process that another test starts has all that is open here, for a moment.
    let begun = Instant::now();
    while store.path("a").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        store.prune(true).unwrap();
    }
    assert_eq!(store.list().unwrap().len(), 1);
    drop(held);
}
