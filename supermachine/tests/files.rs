//! Files of any length, and trees as tar archives.

mod support;

use std::io::{self, Read};
use supermachine::{CopyOptions, Error, ExecErrorKind, FileOptions};
use support::shelf::sh;
use support::*;

/// Gives some bytes, then fails.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.min(buffer.len());
        self.0 -= count;
        match count {
            0 => Err(io::Error::other("it broke")),
            count => Ok(count),
        }
    }
}

#[test]
fn files_longer_than_a_message_go_both_ways_whole_or_not_at_all() {
    let vm = library_image()
        .start(&library_config().with_memory_mib(512))
        .unwrap();
    let bytes = noise((9 << 20) + 3, 11);
    let mut options = FileOptions::default();
    let too_large = |result: Result<u64, Error>, limit: u64| {
        let found = matches!(result, Err(Error::CopyTooLarge { limit: at, .. }) if at == limit);
        assert!(found, "{result:?}");
    };
    too_large(
        vm.write_file_from("/srv/a/f", &bytes[..], &options),
        4 << 20,
    );
    options.max_bytes = bytes.len() as u64 - 1;
    too_large(
        vm.write_file_from("/srv/a/f", &bytes[..], &options),
        options.max_bytes,
    );
    let broken = vm.write_file_from("/srv/a/f", Broken(5 << 20), &options);
    assert!(matches!(broken, Err(Error::System { .. })), "{broken:?}");
    assert_eq!(
        sh(&vm, "ls -A /srv/a"),
        "",
        "nothing of a file that failed is left"
    );
    // Exactly as long as it may be, over a link that is not followed.
    sh(
        &vm,
        "echo precious > /srv/victim; ln -s /srv/victim /srv/a/f",
    );
    options.max_bytes = bytes.len() as u64;
    options.mode = 0o640;
    vm.write_file_with("/srv/a/f", &bytes, &options).unwrap();
    assert_eq!(
        sh(&vm, "cat /srv/victim; stat -c '%a %s' /srv/a/f"),
        format!("precious\n640 {}", bytes.len())
    );
    assert!(vm.read_file_with("/srv/a/f", &options).unwrap() == bytes);
    let mut sink = Vec::new();
    assert_eq!(
        vm.read_file_to("/srv/a/f", &mut sink, &options).unwrap(),
        options.max_bytes
    );
    assert!(sink == bytes);
    options.max_bytes -= 1;
    too_large(
        vm.read_file_to("/srv/a/f", io::sink(), &options),
        options.max_bytes,
    );
    assert_eq!(
        vm.write_file_from("/srv/empty", io::empty(), &options)
            .unwrap(),
        0
    );
    assert_eq!(vm.read_file_with("/srv/empty", &options).unwrap(), b"");
    // What has no length of its own, and what is no file.
    assert!(
        vm.read_file_with("/proc/version", &options)
            .unwrap()
            .starts_with(b"Linux")
    );
    sh(&vm, "mkfifo /srv/fifo");
    for path in ["/dev/zero", "/srv/fifo", "/srv"] {
        let read = vm.read_file_with(path, &options);
        let refused = matches!(&read, Err(Error::Exec { kind, .. }) if *kind == ExecErrorKind::NotRegularFile);
        assert!(refused, "{path}: {read:?}");
    }
    assert!(matches!(
        vm.read_file_with("/no/such", &options),
        Err(Error::Exec { .. })
    ));
    assert!(matches!(
        vm.write_file_with("/dev/null", b"", &options),
        Err(Error::Exec { .. })
    ));
}

#[test]
fn trees_go_both_ways_as_archives_that_others_read_and_write() {
    let vm = library_image().start(&library_config()).unwrap();
    let long = "n".repeat(150);
    let plant = format!(
        "mkdir -p /srv/t/d && cd /srv/t && head -c 200000 /dev/urandom > f && echo x > d/{long} && \
         ln f d/hard && ln -s ../f d/soft && ln -s /{long} d/far && chmod 751 d && mkfifo p && \
         touch -d @1000000 f && : > empty"
    );
    sh(&vm, &plant);
    let list = |dir: &str| {
        sh(
            &vm,
            &format!(
                "cd {dir} && find . -type f -exec sha1sum {{}} + | sort && find . -exec stat -c '%n %a %F %N %h' {{}} + | sort"
            ),
        )
    };
    let mut archive = Vec::new();
    let options = CopyOptions::default();
    let copied = vm.copy_out_tar("/srv/t", &mut archive, &options).unwrap();
    assert_eq!((copied.entries, copied.skipped), (9, 0));
    // The guest's own tar reads what we wrote.
    let mut large = FileOptions::default();
    large.max_bytes = 64 << 20;
    vm.write_file_with("/tmp/a.tar", &archive, &large).unwrap();
    sh(&vm, "mkdir /srv/theirs && tar xf /tmp/a.tar -C /srv/theirs");
    assert_eq!(list("/srv/theirs/t"), list("/srv/t"));
    assert_eq!(sh(&vm, "stat -c %Y /srv/theirs/t/f"), "1000000");
    // And so do we, into a directory that is not there yet.
    let back = vm
        .copy_in_tar(&archive[..], "/srv/ours/deep", &options)
        .unwrap();
    assert_eq!(back.entries, copied.entries);
    assert_eq!(list("/srv/ours/deep/t"), list("/srv/t"));
    // What its tar wrote, we read.
    sh(&vm, "tar cf /tmp/b.tar -C /srv/t .");
    let theirs = vm.read_file_with("/tmp/b.tar", &large).unwrap();
    vm.copy_in_tar(&theirs[..], "/srv/again", &options).unwrap();
    assert_eq!(list("/srv/again"), list("/srv/t"));

    // A process that finds the machine can do the same.
    let found = supermachine::running::find(vm.id()).unwrap();
    let mut same = Vec::new();
    found.copy_out_tar("/srv/t", &mut same, &options).unwrap();
    assert!(same == archive);
    found.write_file("/srv/found", b"short").unwrap();
    assert_eq!(found.read_file("/srv/found").unwrap(), b"short");
    assert!(found.read_file_with("/tmp/a.tar", &large).unwrap() == archive);
    found.rename("/srv/found", "/srv/moved").unwrap();
    assert_eq!(found.stat("/srv/moved").unwrap().bytes, 5);
    assert_eq!(found.exec(["cat", "/srv/moved"]).unwrap().stdout, b"short");

    let mut few = CopyOptions::default();
    few.max_bytes = 100_000;
    let bounded = [
        vm.copy_out_tar("/srv/t", io::sink(), &few),
        vm.copy_in_tar(&archive[..], "/srv/few", &few),
    ];
    for result in bounded {
        assert!(
            matches!(result, Err(Error::CopyTooLarge { limit: 100_000, .. })),
            "{result:?}"
        );
    }
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..9].copy_from_slice(b"a/../../b");
    header.set_size(0);
    header.set_cksum();
    let outside = [header.as_bytes(), &[0; 1024][..]].concat();
    let result = vm.copy_in_tar(&outside[..], "/srv/out", &options);
    assert!(
        matches!(result, Err(Error::Unsuitable { .. })),
        "{result:?}"
    );
    for broken in [&archive[..archive.len() / 2], &[7; 2000][..]] {
        let result = vm.copy_in_tar(broken, "/srv/broken", &options);
        assert!(matches!(result, Err(Error::System { .. })), "{result:?}");
    }
    assert!(matches!(
        vm.copy_out_tar("/no/such", io::sink(), &options),
        Err(Error::Exec { .. })
    ));
}
