//! Machines copied in the middle of disk, console and socket traffic.

mod support;

use std::io::Read;
use std::time::Duration;
use supermachine::{Image, Vm};
use support::shelf::*;
use support::*;

/// Reads every file of the disk again and again, with nothing cached.
const READ: &str = "cat $(find /bin /usr /etc /sbin -type f) 2>/dev/null | sha1sum";
/// Keeps the disk, the console and a pipe busy; counts its rounds and its
/// wrong answers.
const LOAD: &str = r#"
expected=$1
(while :; do yes 0123456789012345678901234567890123456789 | head -c 20000 > /dev/console; done) &
while :; do
    echo 3 > /proc/sys/vm/drop_caches
    [ "$(sh -c "$2")" = "$expected" ] || echo wrong >> /tmp/wrong
    echo round >> /tmp/rounds
done"#;

fn start_load(vm: &Vm) -> String {
    let expected = sh(vm, READ);
    vm.write_file("/tmp/load", LOAD.as_bytes()).unwrap();
    let start = format!("setsid sh /tmp/load '{expected}' '{READ}' < /dev/null > /dev/null 2>&1 &");
    sh(vm, &start);
    expected
}

/// The load goes on, and nothing was ever read wrong.
fn assert_well(vm: &Vm, expected: &str) {
    let rounds = || -> u32 {
        sh(vm, "cat /tmp/rounds 2>/dev/null | wc -l")
            .parse()
            .unwrap()
    };
    let before = rounds();
    let begun = std::time::Instant::now();
    while rounds() < before + 2 {
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "the load has stopped"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(sh(vm, "cat /tmp/wrong 2>/dev/null; true"), "");
    assert_eq!(sh(vm, READ), expected);
}

#[test]
fn copies_made_under_load_are_whole_and_the_original_goes_on() {
    let shelf = Shelf::new("traffic");
    let vm = Vm::start(&shelf.bake(), &library_config().with_vcpus(2)).unwrap();
    let expected = start_load(&vm);
    // A stream in each direction that must arrive whole.
    let mut stream = vm
        .exec_builder()
        .argv(["sh", "-c", "seq 300000; cat > /dev/null"])
        .spawn()
        .unwrap();
    let mut output = stream.stdout().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        output.read_to_end(&mut text).unwrap();
        text
    });
    let mut input = stream.stdin().unwrap();
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut input, &noise(8 << 20, 3)).unwrap();
    });
    let mut images: Vec<Image> = Vec::new();
    let mut forks = Vec::new();
    for number in 0..4 {
        std::thread::sleep(Duration::from_millis(37 * (number + 1)));
        images.push(
            vm.snapshot(shelf.0.join(format!("moment{number}")))
                .unwrap(),
        );
        forks.extend(vm.fork(1).unwrap());
    }
    writer.join().unwrap();
    assert!(stream.wait().unwrap().success());
    let whole: Vec<u8> = (1..=300_000)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    assert!(reader.join().unwrap() == whole, "the stream was disturbed");
    for fork in &forks {
        assert_well(fork, &expected);
    }
    drop(forks);
    for image in &images {
        let other = copy(image);
        assert_well(&other, &expected);
        assert!(other.status().unwrap().console.contains("0123456789"));
    }
    assert_well(&vm, &expected);
}

#[test]
fn a_pooled_machine_goes_back_from_the_middle_of_its_work() {
    let shelf = Shelf::new("middle");
    let image = shelf.builder().vcpus(2).build().unwrap();
    let pool = image.pool().vm_config(library_config()).max(1);
    let pool = pool.prestart(0).build().unwrap();
    let worker = worker_of(&pool.acquire().unwrap());
    for round in 0..6 {
        let vm = pool.acquire().unwrap();
        assert_eq!(sh(&vm, "ls /tmp; ps | grep -c '[/]tmp/load'; true"), "0");
        start_load(&vm);
        let mut child = vm.exec_builder().argv(["yes"]).spawn().unwrap();
        let mut some = [0; 4096];
        child.stdout().unwrap().read_exact(&mut some).unwrap();
        std::thread::sleep(Duration::from_millis(23 * round));
        // Also with the stream still open.
        drop(vm);
        drop(child);
    }
    assert_eq!(worker_of(&pool.acquire().unwrap()), worker);
}
