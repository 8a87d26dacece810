//! Snapshots whose state is damaged but has good checksums: an error, or a
//! machine that runs or fails, and nothing else.

mod support;

use snapshot::Store;
use snapshot::{
    FileEntry, Inspection, Section, SectionKind, SnapshotError, StateFile, StateWriter, SystemFiles,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use supermachine::{Error, Image, Vm, VmConfig};
use support::shelf::*;
use support::*;

/// How long a copy may take to be one.
const RESTORE: Duration = Duration::from_secs(2);

/// How long a copy may take in all that restores and then does not answer: a
/// command is waited for 10 s longer than its limit.
const LATEST: Duration = Duration::from_secs(40);
/// Damages of each section.
const DAMAGES: usize = 8;

/// A worker that keeps what it has to say about itself.
fn outspoken_worker(shelf: &Shelf) -> (PathBuf, PathBuf) {
    let (script, log) = (shelf.0.join("worker"), shelf.0.join("worker.log"));
    let text = format!(
        "#!/bin/sh\nexec '{}' \"$@\" 2>>'{}'\n",
        env!("CARGO_BIN_EXE_supermachine-worker"),
        log.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    (script, log)
}

/// Publishes a snapshot like another one, but for its state.
fn publish(store: &Store, name: &str, like: &Inspection, state: &[u8]) -> PathBuf {
    let mut draft = store.lock(name, PATIENCE).unwrap().draft().unwrap();
    let manifest = like.manifest();
    fs::write(draft.path().join("state.bin"), state).unwrap();
    draft.share(like).unwrap();
    fs::hard_link(like.path().join("mem.bin"), draft.path().join("mem.bin")).unwrap();
    let state_file = FileEntry::of(&SystemFiles, &draft.path().join("state.bin")).unwrap();
    // As a worker says what it wrote.
    let written = serde_json::json!({
        "memory_file": manifest.files["mem.bin"],
        "memory": manifest.memory,
        "state_file": state_file,
    });
    draft
        .adopt(serde_json::from_value(written).unwrap())
        .unwrap();
    for (file, entry) in manifest.extra_files() {
        draft.link(file, &like.path().join(file), entry).unwrap();
    }
    draft.publish(manifest.machine.clone()).unwrap();
    store.root().join(name)
}

/// A state file like another one, but for the bytes of one section.
fn with_section(file: &StateFile, changed: usize, bytes: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    let mut writer = StateWriter::new();
    for (number, section) in file.sections().enumerate() {
        let bytes = if number == changed {
            bytes
        } else {
            section.bytes
        };
        writer.section(&Section { bytes, ..section })?;
    }
    writer.finish()
}

/// Each in another place of the section. Most leave the top bit of a byte, by
/// which numbers of a variable length end, and so are still a state.
fn damages(bytes: &[u8], seed: u64) -> Vec<Vec<u8>> {
    let random = noise(4 * DAMAGES, seed + 1);
    let damage = |random: &[u8]| {
        let mut bytes = bytes.to_vec();
        let place = usize::from(u16::from_le_bytes([random[0], random[1]]));
        let place = place % bytes.len();
        match random[2] % 4 {
            0 => bytes[place] = random[3],
            1 => {
                let end = bytes.len().min(place + 8);
                bytes[place..end].fill(0x7f);
            }
            _ => bytes[place] ^= 1 << (random[3] % 7),
        }
        bytes
    };
    random.chunks(4).map(damage).collect()
}

/// Makes the checksum right that the software engine's interrupt controller has
/// at the end of its state.
fn fix_checksum(state: &mut [u8]) {
    let (body, sum) = state.split_last_chunk_mut::<4>().unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(body);
    *sum = crc.sum().to_le_bytes();
}

/// Whether there is a copy that serves commands.
fn try_copy(path: &Path, config: &VmConfig) -> Result<(), Error> {
    let image = Image::from_snapshot_with(path, config)?;
    let vm = Vm::start(&image, config)?;
    let limit = Duration::from_secs(2);
    // What it says is up to a guest in that state.
    vm.exec_builder().argv(["true"]).timeout(limit).output()?;
    Ok(())
}

#[test]
fn damaged_states_with_good_checksums_are_errors_or_machines() {
    let _alone = alone();
    let shelf = Shelf::new("forged");
    let image = shelf.builder().memory_mib(64).vcpus(2).build().unwrap();
    let good = Store::inspect_path(image.snapshot_path().unwrap()).unwrap();
    drop(image);
    let state = fs::read(good.path().join("state.bin")).unwrap();
    let state = StateFile::parse(state).unwrap();

    let (worker, log) = outspoken_worker(&shelf);
    let config = library_config()
        .with_worker(worker)
        .with_restore_timeout(RESTORE);
    let store = Store::new(shelf.0.join("forged")).unwrap();
    let bystander = Vm::start(
        &Image::from_snapshot_with(good.path(), &config).unwrap(),
        &config,
    )
    .unwrap();
    let before = left_behind();
    let (mut errors, mut machines) = (0, 0);
    for (number, section) in state.sections().enumerate() {
        for (which, bytes) in damages(section.bytes, number as u64).iter().enumerate() {
            let mut bytes = bytes.clone();
            if section.kind == SectionKind::INTERRUPTS {
                fix_checksum(&mut bytes);
            }
            let Ok(state) = with_section(&state, number, &bytes) else {
                continue;
            };
            let name = format!("m{number}-{which}");
            let path = publish(&store, &name, &good, &state);
            let begun = Instant::now();
            match try_copy(&path, &config) {
                Ok(()) => machines += 1,
                Err(error) => {
                    errors += 1;
                    println!("{} {which}, {:?}: {error}", section.kind, begun.elapsed());
                }
            }
            let took = begun.elapsed();
            assert!(took < LATEST, "{} {which}: {took:?}", section.kind);
            await_end_of_others(&before, left_behind);
            fs::remove_dir_all(path).unwrap();
        }
    }
    println!("{errors} errors, {machines} machines");
    assert!(
        errors > 5 && machines > 2,
        "{errors} errors, {machines} machines"
    );
    assert_eq!(sh(&bystander, "echo fine"), "fine");
    let said = fs::read_to_string(log).unwrap();
    assert!(!said.contains("panicked"), "{said}");
}
