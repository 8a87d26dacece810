//! Pools: what dies is replaced, what is asked for is what one gets, and nothing
//! is left of those that were shut down.

mod support;

use rustix::process::Signal;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use supermachine::{Engine, Error, Image, PoolBuilder, VmConfig, running};
use support::shelf::*;
use support::*;

fn until(what: &str, wanted: impl Fn() -> bool) {
    let begun = Instant::now();
    while !wanted() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// These tests count workers: none of another one may be left.
fn alone_without_workers() -> impl Drop {
    let alone = alone();
    until("the end of earlier workers", || workers().is_empty());
    alone
}

/// An error's text and its causes'.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn two(image: &Image) -> PoolBuilder {
    let pool = image.pool().vm_config(library_config());
    pool.min(2).max(2).prestart(0)
}

#[test]
fn an_idle_machine_that_dies_is_replaced_though_nobody_asks() {
    let _alone = alone_without_workers();
    let shelf = Shelf::new("idle");
    let pool = two(&shelf.bake()).build().unwrap();
    until("two idle machines", || pool.stats().idle == 2);
    for round in 1..=2 {
        let before: BTreeSet<u32> = workers().into_iter().collect();
        assert_eq!(before.len(), 2);
        let victim = *before.first().unwrap();
        signal(victim, Signal::KILL);
        until("another in its place", || {
            let now: BTreeSet<u32> = workers().into_iter().collect();
            now.len() == 2 && !now.contains(&victim) && pool.stats().idle == 2
        });
        let stats = pool.stats();
        assert_eq!((stats.alive, stats.spawned), (2, 2 + round));
    }
    // Later leases get machines that live.
    let vms = [pool.acquire().unwrap(), pool.acquire().unwrap()];
    vms.iter()
        .for_each(|vm| assert_eq!(sh(vm, "echo on"), "on"));
}

#[test]
fn an_idle_machine_that_was_stopped_is_not_handed_out() {
    let _alone = alone_without_workers();
    let shelf = Shelf::new("stopped");
    let pool = two(&shelf.bake()).build().unwrap();
    until("two idle machines", || pool.stats().idle == 2);
    let stopped = workers();
    stopped.iter().for_each(|pid| stop(*pid));
    let begun = Instant::now();
    let vm = pool.acquire().unwrap();
    assert_eq!(sh(&vm, "echo on"), "on");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(!stopped.contains(&worker_of(&vm)));
}

#[test]
fn start_gives_the_baked_machine_only_to_who_asks_for_no_other() {
    let _alone = alone_without_workers();
    let shelf = Shelf::new("baked");
    let image = shelf.bake();
    let [baked] = workers()[..] else {
        panic!("{:?}", workers());
    };
    let name = format!("db-{}", std::process::id());
    let others = [
        library_config().with_name(&name),
        library_config().with_engine(Engine::Soft),
        library_config().with_restore_timeout(Duration::from_secs(59)),
        library_config().with_vcpus(2),
        library_config().with_hostname("other"),
        VmConfig::new(),
    ];
    for config in others {
        let vm = image.start(&config).unwrap();
        assert_ne!(worker_of(&vm), baked, "{config:?}");
        let is_named = running::find(&name).is_ok();
        assert_eq!(is_named, config == library_config().with_name(&name));
    }
    let same = library_config().with_memory_mib(256).with_vcpus(1);
    assert_eq!(worker_of(&image.start(&same).unwrap()), baked);
}

#[test]
fn machines_kept_warm_are_for_all_who_ask_for_the_same() {
    let _alone = alone_without_workers();
    let shelf = Shelf::new("warm");
    let image = Image::from_snapshot(shelf.bake().snapshot_path().unwrap()).unwrap();
    // As the published example has it.
    drop(
        image
            .acquire_with(&VmConfig::new().with_pool_warm(3))
            .unwrap(),
    );
    // Three machines and the worker kept started, and one machine more where the
    // lease came back so late that another was made for it.
    until("three warm machines", || {
        let set = || BTreeSet::from_iter(workers());
        let before = set();
        std::thread::sleep(Duration::from_secs(1));
        before.len() >= 4 && before == set()
    });
    let warm: BTreeSet<u32> = workers().into_iter().collect();
    let vms: Vec<_> = (0..3).map(|_| image.acquire().unwrap()).collect();
    for vm in &vms {
        assert!(warm.contains(&worker_of(vm)), "another pool's");
    }
    drop(vms);
    // Asking for fewer takes nothing away from who asked for more.
    drop(
        image
            .acquire_with(&VmConfig::new().with_pool_warm(1))
            .unwrap(),
    );
    assert!(workers().len() >= 3, "{:?}", workers());
}

#[test]
fn nothing_is_left_of_a_pool_that_was_shut_down() {
    let _alone = alone_without_workers();
    let shelf = Shelf::new("shut");
    let image = shelf.bake();
    let pool = image.pool().vm_config(library_config()).max(4);
    let pool = pool.min(1).prestart(3).build().unwrap();
    until("spare workers", || workers().len() >= 4);
    drop(pool.acquire().unwrap());
    pool.shutdown();
    until("the end of all workers", || workers().is_empty());
    // And nothing is started after that.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(workers(), Vec::<u32>::new());
    drop(pool);
}

#[test]
fn a_pool_that_cannot_start_machines_says_why() {
    let _alone = alone_without_workers();
    let shelf = Shelf::new("why");
    let image = shelf.bake();
    let config = library_config().with_worker("/nowhere/worker");
    let pool = image.pool().vm_config(config).build().unwrap();
    let text = causes(&pool.acquire().unwrap_err());
    assert!(text.contains("/nowhere/worker"), "{text}");
    assert!(text.contains("No such file"), "{text}");
}

#[test]
fn limits_and_sizes_hold_in_whatever_order_they_are_given() {
    let _alone = alone_without_workers();
    let shelf = Shelf::new("order");
    let image = shelf.builder().memory_mib(128).vm_config(library_config());
    let image = image.build().unwrap();
    assert_eq!(image.memory_mib(), Some(128));
    let pool = image.pool().vcpus(2).vm_config(library_config()).max(1);
    assert_eq!(sh(&pool.build().unwrap().acquire().unwrap(), "nproc"), "2");
}

#[test]
fn a_tenant_has_so_many_machines_and_the_others_the_rest() {
    let _alone = alone_without_workers();
    let shelf = Shelf::new("shares");
    let builder = two(&shelf.bake()).max_per_tenant(1);
    let patience = Duration::from_secs(1);
    let pool = builder.acquire_timeout(patience).build().unwrap();
    until("two idle machines", || pool.stats().idle == 2);
    let first = pool.acquire_for("a").unwrap();
    // However long it takes, it is in vain.
    assert!(matches!(pool.acquire_for("a"), Err(Error::Pool(_))));
    // The other machine is idle all the time.
    drop(pool.acquire_for("b").unwrap());
    drop(first);
    until("its machine again", || pool.acquire_for("a").is_ok());
    pool.shutdown();
}

#[test]
fn hooks_see_machines_when_they_are_made_handed_out_and_given_back() {
    let _alone = alone_without_workers();
    let shelf = Shelf::new("hooks");
    let image = shelf.bake();
    let (given, left) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let pool = {
        let left = left.clone();
        let builder = image.pool().vm_config(library_config()).max(1).prestart(0);
        builder
            .after_create(|vm| vm.write_file("/tmp/created", b"x"))
            .before_hand_out(move |vm| {
                let number = given.fetch_add(1, Ordering::SeqCst);
                vm.write_file("/tmp/given", number.to_string().as_bytes())
            })
            .after_release(move |vm| {
                left.lock().unwrap().push(vm.read_file("/tmp/left")?);
                Ok(())
            })
            .build()
            .unwrap()
    };
    let look = "ls /tmp | tr '\\n' ' '; cat /tmp/given";
    let vm = pool.acquire().unwrap();
    assert_eq!(sh(&vm, look), "created given 0");
    vm.write_file("/tmp/left", b"first").unwrap();
    drop(vm);
    // It was reset in between.
    let vm = pool.acquire().unwrap();
    assert_eq!(sh(&vm, look), "given 1");
    // One in which a hook fails is ended, and another made.
    drop(vm);
    assert_eq!(sh(&pool.acquire().unwrap(), look), "created given 2");
    assert_eq!(*left.lock().unwrap(), [b"first"]);
    pool.shutdown();

    // The hook is called where nothing is reset, too.
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let builder = image.pool().vm_config(library_config()).max(1).prestart(0);
    let pool = builder.restore_on_release(false).after_release(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let pool = pool.build().unwrap();
    sh(&pool.acquire().unwrap(), "echo kept > /tmp/kept");
    assert_eq!(sh(&pool.acquire().unwrap(), "cat /tmp/kept"), "kept");
    assert!(count.load(Ordering::SeqCst) >= 1);
    pool.shutdown();

    let builder = image.pool().vm_config(library_config()).max(1).prestart(0);
    let pool = builder.before_hand_out(|_| Err(Error::Cancelled)).build();
    let error = pool.unwrap().acquire().unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
}
