use super::*;
use crate::Tier;
use crate::link::passing;
use crate::link::protocol::{GuestFiles, Restore, Setup};
use crate::link::runtime_dir::RuntimeDir;
use snapshot::{
    BytePages, Description, EngineId, Scope, Section, SectionKind, Stamp, StateWriter, Store,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn guest() -> GuestFiles {
    GuestFiles {
        kernel: "kernel".into(),
        init: "init".into(),
    }
}

/// Publishes a snapshot that says it is of a machine with this stamp.
fn publish(store: &Store, name: &str, stamp: Stamp) -> PathBuf {
    let lock = store.lock(name, Duration::from_secs(10)).unwrap();
    let mut draft = lock.draft().unwrap();
    draft.memory(&mut BytePages::new(&[1; 16 << 10])).unwrap();
    let mut state = StateWriter::new();
    let section = Section {
        kind: SectionKind::MACHINE,
        instance: 0,
        version: 1,
        scope: Scope::Machine,
        bytes: b"no machine",
    };
    state.section(&section).unwrap();
    let state = state.finish().unwrap();
    draft.state(&state).unwrap();
    let description = Description {
        key: name.into(),
        created_unix_s: 0,
        stamp,
        vcpus: 1,
        resources: Vec::new(),
        labels: BTreeMap::new(),
    };
    let number = draft.publish(description).unwrap();
    store.root().join(name).join(format!("{number:010}"))
}

/// What a worker says that is told to restore a snapshot.
fn restored(snapshot: &Path) -> FromWorker {
    let dir = RuntimeDir::create().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let worker = std::thread::spawn(move || serve(&theirs));
    let setup = Setup {
        engine: Engine::Soft,
        tier: Tier::Auto,
        vcpus: 0,
        runtime_dir: dir.path().to_owned(),
        console: false,
    };
    let found = Store::inspect_path(snapshot).unwrap();
    let (files, open) = passing::in_parts(found.open_files().unwrap());
    let restore = Restore {
        // It is not looked up: what there is to read comes open.
        snapshot: "/nowhere/0000000001".to_owned(),
        files,
        guest: guest(),
        layers: Vec::new(),
        mounts: Vec::new(),
        volumes: Vec::new(),
        bases: Vec::new(),
        vcpus: 0,
        memory_mib: 0,
        starts_idle: false,
        network: None,
        secrets: None,
    };
    let sockets = Sockets::make(dir.path()).unwrap();
    send(&ours, &ToWorker::Hello { version: VERSION }).unwrap();
    send(&ours, &ToWorker::Prepare(Box::new(setup))).unwrap();
    passing::pass(&ours, &sockets.descriptors()).unwrap();
    send(&ours, &ToWorker::Restore(Box::new(restore))).unwrap();
    passing::pass(&ours, &passing::descriptors(&open)).unwrap();
    let said = || receive::<FromWorker>(&ours).unwrap().unwrap();
    assert_eq!(said(), FromWorker::Hello { version: VERSION });
    assert!(matches!(said(), FromWorker::Prepared { .. }));
    let answer = said();
    worker.join().unwrap().unwrap();
    answer
}

#[test]
fn the_worker_compares_a_snapshot_with_what_it_is_itself() {
    let place = RuntimeDir::create().unwrap();
    let store = Store::new(place.path().join("s")).unwrap();
    let own = identity::of_this_process(Engine::Soft)
        .unwrap()
        .stamp(guest());
    let refusal = |name: &str, change: fn(Stamp) -> Stamp| match restored(&publish(
        &store,
        name,
        change(own.clone()),
    )) {
        FromWorker::Failed { message, rebake } => (message, rebake),
        other => panic!("{name}: {other:?}"),
    };
    type Change = (&'static str, fn(Stamp) -> Stamp);
    let changes: [Change; 6] = [
        ("engine", |stamp| Stamp {
            engine: EngineId::new("kvm"),
            ..stamp
        }),
        ("architecture", |stamp| {
            stamp.require("architecture", "x86_64")
        }),
        ("counter", |stamp| stamp.require("counter_hz", 1)),
        ("ID_AA64PFR0_EL1", |stamp| {
            stamp.require("cpu.ID_AA64PFR0_EL1", "0x1")
        }),
        ("kernel", |stamp| stamp.require("kernel", "another")),
        ("init", |stamp| stamp.require("init", "another")),
    ];
    for (name, change) in changes {
        let (message, rebake) = refusal(name, change);
        assert!(rebake, "{name}: {message}");
        assert!(message.contains(name), "{name}: {message}");
        assert!(message.contains("bake it again"), "{message}");
    }
    // One of this very engine gets further, to the state that is none.
    let (message, _) = refusal("own", |stamp| stamp);
    assert!(!message.contains("here"), "{message}");
}

#[test]
fn a_wrong_log_filter_is_the_answer_to_the_first_order() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let bad = log::parse("loud".as_ref()).unwrap_err();
    let worker = std::thread::spawn(move || refuse_all(&theirs, &bad));
    assert_eq!(
        receive(&ours).unwrap(),
        Some(FromWorker::Hello { version: VERSION })
    );
    send(&ours, &ToWorker::Hello { version: VERSION }).unwrap();
    send(&ours, &ToWorker::Identify(Engine::Soft)).unwrap();
    let Some(FromWorker::Failed { message, rebake }) = receive(&ours).unwrap() else {
        panic!("no word of it");
    };
    assert!(
        message.contains("SUPERMACHINE_LOG has \"loud\""),
        "{message}"
    );
    assert!(!rebake);
    drop(ours);
    worker.join().unwrap().unwrap();
}
