//! Captures and forks of one running machine.

mod support;

use std::time::{Duration, Instant};
use supermachine::Error;
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
    let generations = || {
        let entries = std::fs::read_dir(&place).unwrap().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    // The one in use, and the current one.
    assert_eq!(generations(), 2);
    assert_eq!(sh(&copy(&kept[0]), "echo on"), "on");
    kept.clear();
    drop(vm.snapshot(&place).unwrap());
    assert_eq!(generations(), 1);
}

#[test]
fn children_beyond_the_descriptors_of_the_process_are_refused_at_once() {
    let shelf = Shelf::new("many");
    let vm = copy(&shelf.bake());
    let begun = Instant::now();
    let error = vm.fork(1_000_000_000).unwrap_err();
    assert!(matches!(error, Error::Descriptors { .. }), "{error:?}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(sh(&vm.fork(2).unwrap()[1], "echo on"), "on");
    assert_eq!(sh(&vm, "echo on"), "on");
}
