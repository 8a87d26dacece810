//! Signatures of a small program, read by us and by a library that others wrote.

use macho_codesign::{BlobType, HashType, parse_code_signature};
use macho_core::parse;
use supermachine_codesign::{
    Entitlements, Error, HYPERVISOR, Identity, Signature, entitle, sign, sign_file,
};

const PAGE: usize = 16 << 10;

/// A program of one page of code and one of what linkers read, without a signature;
/// `room` is how many bytes are between its load commands and its code.
fn program(room: usize) -> Vec<u8> {
    let segment = |name: &str, at: u64, size: u64, sections: u32| {
        let mut padded = [0; 16];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        let mut bytes = Vec::new();
        bytes.extend(0x19_u32.to_le_bytes());
        bytes.extend((72 + 80 * sections).to_le_bytes());
        bytes.extend(padded);
        bytes.extend((0x1_0000_0000 + at).to_le_bytes());
        bytes.extend((PAGE as u64).to_le_bytes());
        bytes.extend(at.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(5_u32.to_le_bytes());
        bytes.extend(5_u32.to_le_bytes());
        bytes.extend(sections.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes
    };
    let commands_end = 32 + 72 + 80 + 72;
    let code = u32::try_from(commands_end + room).unwrap();
    let mut section = Vec::new();
    section.extend(b"__text\0\0\0\0\0\0\0\0\0\0__TEXT\0\0\0\0\0\0\0\0\0\0");
    section.extend((0x1_0000_0000 + u64::from(code)).to_le_bytes());
    section.extend(4_u64.to_le_bytes());
    section.extend(code.to_le_bytes());
    section.extend([0; 80 - 16 - 16 - 8 - 8 - 4]);

    let mut commands = segment("__TEXT", 0, PAGE as u64, 1);
    commands.extend(section);
    commands.extend(segment("__LINKEDIT", PAGE as u64, 100, 0));
    let mut bytes = Vec::new();
    for word in [0xfeed_facf, 0x0100_000c, 0, 2, 2] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes.extend(u32::try_from(commands.len()).unwrap().to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(commands);
    assert_eq!(bytes.len(), commands_end);
    bytes.resize(code as usize, 0);
    bytes.extend([0xc0, 3, 0x5f, 0xd6]);
    bytes.resize(PAGE, 0);
    bytes.resize(PAGE + 100, b's');
    bytes
}

fn signature(bytes: &[u8]) -> Signature<'_> {
    Signature::read(bytes).unwrap().unwrap()
}

#[test]
fn another_library_reads_what_was_signed() {
    let signed = sign(&program(64), "app", &Entitlements::hypervisor()).unwrap();
    let container = parse(&signed).unwrap();
    let read = parse_code_signature(container.first_macho().unwrap()).unwrap();
    assert_eq!(read.identifier(), Some("app"));
    assert_eq!(read.team_id(), None);
    let xml = read.entitlements_xml().unwrap();
    assert!(xml.contains(HYPERVISOR) && xml.contains("<true"), "{xml}");
    assert_eq!(read.entitlements_der().unwrap().first(), Some(&0x70));
    let directory = &read.code_directories()[0];
    assert_eq!(directory.hash_type, HashType::Sha256);
    assert_eq!(directory.flags, 2);
    assert_eq!(directory.n_code_slots, 5);
    let slots: Vec<_> = read.blobs().iter().map(|blob| blob.blob_type).collect();
    assert!(slots.contains(&BlobType::Requirements), "{slots:?}");
}

#[test]
fn a_signature_fits_its_file_until_a_bit_changes() {
    let signed = sign(&program(64), "app", &Entitlements::hypervisor()).unwrap();
    let found = signature(&signed);
    assert_eq!(found.identifier(), Some("app"));
    assert!(found.entitlements().unwrap().has(HYPERVISOR));
    found.verify(&signed).unwrap();
    for at in [40, PAGE - 1, PAGE + 50] {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        let verified = Signature::read(&changed).map(|found| found.unwrap().verify(&changed));
        assert!(!matches!(verified, Ok(Ok(()))), "byte {at}");
    }
    let xml = signed.windows(4).position(|four| four == b"true").unwrap();
    let mut changed = signed.clone();
    changed[xml] = b'T';
    assert!(matches!(
        signature(&changed).verify(&changed),
        Err(Error::Mismatch(_))
    ));
}

#[test]
fn entitlements_stay_when_a_file_is_signed_again() {
    let list = b"<plist version=\"1.0\"><dict><key>a.b</key><true/></dict></plist>";
    let own = Entitlements::read(list).unwrap();
    let first = sign(&program(64), "app", &own).unwrap();
    let second = sign(&first, "app", &Entitlements::hypervisor()).unwrap();
    let both = signature(&second).entitlements().unwrap();
    assert!(both.has("a.b") && both.has(HYPERVISOR));
    signature(&second).verify(&second).unwrap();
    // Nothing is left of the first.
    let third = sign(&second, "app", &Entitlements::none()).unwrap();
    assert_eq!(third, second);
}

#[test]
fn a_file_without_entitlements_has_no_part_for_them() {
    let signed = sign(&program(64), "app", &Entitlements::none()).unwrap();
    let found = signature(&signed);
    assert!(found.entitlements().unwrap().is_empty());
    found.verify(&signed).unwrap();
}

#[test]
fn what_cannot_be_signed_is_named() {
    let hypervisor = Entitlements::hypervisor();
    let error = |bytes: &[u8]| sign(bytes, "app", &hypervisor).unwrap_err();
    assert!(matches!(error(b""), Error::NotMachO(_)));
    assert!(matches!(error(b"\x7fELF\x02\x01\x01"), Error::NotMachO(_)));
    assert!(matches!(error(&program(8)), Error::NoRoom));
    let mut more = program(64);
    more.extend([0; 10]);
    assert!(matches!(error(&more), Error::Malformed(_)));
    let mut several = program(64);
    several[..4].copy_from_slice(&[0xca, 0xfe, 0xba, 0xbe]);
    assert!(matches!(error(&several), Error::Universal));
}

#[test]
fn damaged_files_are_errors_and_no_panics() {
    let signed = sign(&program(64), "app", &Entitlements::hypervisor()).unwrap();
    for length in 0..signed.len() {
        if length > 600 && length < PAGE + 100 && length % 97 != 0 {
            continue;
        }
        let cut = &signed[..length];
        assert!(Signature::read(cut).is_err(), "{length}");
        assert!(sign(cut, "app", &Entitlements::none()).is_err(), "{length}");
    }
    let begin = signed.len() - 700;
    for at in (0..300).chain(begin..signed.len()) {
        for bit in 0..8 {
            let mut changed = signed.clone();
            changed[at] ^= 1 << bit;
            if let Ok(Some(found)) = Signature::read(&changed) {
                let _ = (
                    found.verify(&changed),
                    found.entitlements(),
                    found.identifier(),
                );
            }
            let _ = sign(&changed, "app", &Entitlements::hypervisor());
        }
    }
}

#[test]
fn a_file_is_replaced_and_keeps_its_permissions() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let dir = std::env::temp_dir().join(format!("codesign-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("app");
    std::fs::write(&path, program(64)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o751)).unwrap();
    let before = path.metadata().unwrap();
    let link = dir.join("link");
    symlink("app", &link).unwrap();
    sign_file(&link, &Entitlements::hypervisor()).unwrap();
    assert!(link.is_symlink());
    let after = path.metadata().unwrap();
    assert_ne!(before.ino(), after.ino());
    assert_eq!(after.permissions().mode() & 0o7777, 0o751);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(signature(&bytes).identifier(), Some("app"));

    // A certificate needs a Mac, and the file is as it was without one.
    if !cfg!(target_os = "macos") {
        let named = Identity::from("Developer ID Application: Nobody");
        let refused = named.sign(&path, &Entitlements::none());
        assert!(matches!(refused, Err(Error::NoTool)), "{refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    let text = dir.join("text");
    std::fs::write(&text, "text").unwrap();
    assert!(sign_file(&text, &Entitlements::none()).is_err());
    assert_eq!(std::fs::read(&text).unwrap(), b"text");
    assert!(matches!(
        sign_file(&dir, &Entitlements::none()),
        Err(Error::File { .. })
    ));
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().collect();
    assert_eq!(names.len(), 3, "a draft is left: {names:?}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn of_many_who_entitle_a_file_at_once_one_signs_it() {
    let path = std::env::temp_dir().join(format!("entitled-{}", std::process::id()));
    std::fs::write(
        &path,
        sign(&program(64), "app", &Entitlements::none()).unwrap(),
    )
    .unwrap();
    let entitled = || entitle(&path, &Entitlements::hypervisor()).unwrap();
    let signed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(entitled)).collect();
        let signed = threads.into_iter().map(|thread| thread.join().unwrap());
        signed.filter(|&signed| signed).count()
    });
    assert_eq!(signed, 1);
    let bytes = std::fs::read(&path).unwrap();
    signature(&bytes).verify(&bytes).unwrap();
    assert!(signature(&bytes).entitlements().unwrap().has(HYPERVISOR));
    // Another entitlement is one that lacks, and what is no program is an error.
    let list = b"<plist version=\"1.0\"><dict><key>a.b</key><true/></dict></plist>";
    let other = Entitlements::read(list).unwrap();
    assert!(entitle(&path, &other).unwrap() && !entitle(&path, &other).unwrap());
    let mut damaged = std::fs::read(&path).unwrap();
    let begin = damaged
        .windows(4)
        .position(|four| four == [0xfa, 0xde, 0x0c, 0xc0]);
    damaged[begin.unwrap()] = 0;
    for (bytes, is_signed) in [(&damaged[..], true), (b"", false), (b"#!/bin/sh", false)] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(entitle(&path, &other).is_ok(), is_signed);
    }
    std::fs::remove_file(&path).unwrap();
}
