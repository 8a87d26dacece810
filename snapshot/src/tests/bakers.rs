//! Several bakers of one image at once.

use super::*;
use std::thread;

#[test]
fn one_of_eight_bakes_and_the_others_wait_and_reuse() {
    let scratch = Scratch::new();
    let baked = AtomicU32::new(0);
    let store = scratch.store();
    let reused: usize = thread::scope(|scope| {
        let bakers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    store.bake("a", "key", &testing::stamp(), PATIENCE, |draft| {
                        baked.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(20));
                        fill(draft, "key", 4)
                    })
                })
            })
            .collect();
        let results = bakers
            .into_iter()
            .map(|baker| baker.join().unwrap().unwrap());
        results
            .map(|result| {
                let reused = usize::from(matches!(result, Baked::Reused(_)));
                check(&result.into_snapshot(), 4);
                reused
            })
            .sum()
    });
    assert_eq!(reused, 7);
    assert_eq!(baked.into_inner(), 1);
    assert_eq!(names(&scratch.path().join("a")), ["0000000001", "current"]);
}

#[test]
fn baker_that_fails_lets_the_next_one_try() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let failed = store.bake("a", "key", &testing::stamp(), PATIENCE, |draft| {
        drop(draft);
        Err(SnapshotError::Missing {
            kind: SectionKind::MACHINE,
            instance: 0,
        })
    });
    failed.unwrap_err();
    let next = store.bake("a", "key", &testing::stamp(), PATIENCE, |draft| {
        fill(draft, "key", 1)
    });
    assert!(matches!(next.unwrap(), Baked::New(..)));
}

#[test]
fn readers_always_find_a_whole_generation_while_others_replace_and_collect() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "0", 0).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..12u8 {
                publish(&store, "a", &round.to_string(), round).unwrap();
                store.lock("a", PATIENCE).unwrap().collect().unwrap();
            }
        });
        while !writer.is_finished() {
            let snapshot = store.open("a", &testing::stamp()).unwrap();
            let seed = snapshot.manifest().machine.key.parse().unwrap();
            check(&snapshot, seed);
        }
    });
}
