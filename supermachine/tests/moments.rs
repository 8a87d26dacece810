//! Captures and forks of one running machine.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use supermachine::{Error, Vm};
use support::library_config;
use support::shelf::*;

#[test]
fn captures_and_forks_of_one_machine_at_once_take_turns() {
    const ROUNDS: usize = 3;
    let shelf = Shelf::new("turns");
    let vm = copy(&shelf.bake());
    sh(&vm, "echo here > /tmp/mark");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (vm, shelf) = (&vm, &shelf);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        if number % 2 == 0 {
                            let place = shelf.0.join(format!("moment-{number}"));
                            let image = vm.snapshot(place).unwrap();
                            assert_eq!(sh(&copy(&image), "cat /tmp/mark"), "here");
                        } else {
                            let children = vm.fork(1).unwrap();
                            assert_eq!(sh(&children[0], "cat /tmp/mark"), "here");
                        }
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(sh(&vm, "cat /tmp/mark"), "here");
}

#[test]
fn a_machine_captured_again_and_again_leaves_one_generation() {
    let shelf = Shelf::new("again");
    let vm = copy(&shelf.bake());
    let place = shelf.0.join("moment");
    let mut kept = Vec::new();
    for round in 0..4 {
        let image = vm.snapshot(&place).unwrap();
        if round == 0 {
            kept.push(image);
        }
    }
    // What is set aside has a name that begins with a point.
    let directories = |is_aside: bool| {
        let entries = std::fs::read_dir(&place).unwrap().flatten();
        let entries = entries.filter(|entry| entry.path().is_dir());
        let names = entries.map(|entry| entry.file_name().into_encoded_bytes());
        names
            .filter(|name| name.starts_with(b".") == is_aside)
            .count()
    };
    // A process that another test starts just then has the locks for an instant, too, and
    // what is locked stays until the next time.
    let until = |count| {
        let begun = Instant::now();
        while directories(false) != count {
            assert!(begun.elapsed() < Duration::from_secs(60), "never {count}");
            drop(vm.snapshot(&place).unwrap());
        }
    };
    // The one in use, and the current one.
    until(2);
    assert_eq!(sh(&copy(&kept[0]), "echo on"), "on");
    kept.clear();
    drop(vm.snapshot(&place).unwrap());
    until(1);
    // It goes by itself.
    let begun = Instant::now();
    while directories(true) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it stays");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn children_beyond_the_descriptors_of_the_process_are_refused_at_once() {
    let shelf = Shelf::new("many");
    let vm = copy(&shelf.bake());
    let begun = Instant::now();
    let error = vm.fork(1_000_000_000).unwrap_err();
    assert!(matches!(error, Error::Descriptors { .. }), "{error:?}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(sh(&vm.fork(2).unwrap()[1], "echo on"), "on");
    assert_eq!(sh(&vm, "echo on"), "on");
}

/// Counts until the machine is another one, and then says how far it came.
const COUNT: &str = "(
    read -r first < /proc/sys/kernel/random/boot_id; id=$first; i=0
    while [ \"$id\" = \"$first\" ]; do
        i=$((i+1)); read -r id < /proc/sys/kernel/random/boot_id
    done
    echo $i > /dev/shm/count
) > /dev/null 2>&1 &";

#[test]
fn children_of_several_orders_are_of_one_moment() {
    // More than fit into one order to the worker.
    const CHILDREN: usize = 70;
    let shelf = Shelf::new("orders");
    let config = library_config().with_restore_timeout(Duration::from_secs(120));
    let vm = Vm::start(&shelf.bake(), &config).unwrap();
    sh(&vm, COUNT);
    let children = vm.fork(CHILDREN).unwrap();
    assert_eq!(children.len(), CHILDREN);
    let counts: BTreeSet<u64> = children
        .iter()
        .map(|child| {
            let wait = "while [ ! -s /dev/shm/count ]; do sleep 0.05; done; cat /dev/shm/count";
            sh(child, wait).parse().unwrap()
        })
        .collect();
    let (least, most) = (counts.first().unwrap(), counts.last().unwrap());
    // One may have been about to look.
    assert!(most - least <= 1, "{counts:?}");
    assert_eq!(
        sh(&vm, "ls /dev/shm/count 2>/dev/null || echo none"),
        "none"
    );
}
