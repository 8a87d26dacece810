use super::*;
use std::io::Write;
use std::path::PathBuf;

fn load_files(
    memory: &GuestMemory,
    kernel: &Path,
    initrd: Option<&Path>,
) -> Result<Loaded, BootError> {
    let (kernel, initrd) = (HostFile::from(kernel), initrd.map(HostFile::from));
    let files = BootFiles {
        kernel: &kernel,
        initrd: initrd.as_ref(),
    };
    load(memory, &files)
}

struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("vmm-boot-{}-{name}", std::process::id()));
        File::create(&path).unwrap().write_all(content).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn kernel(text_offset: u64, image_bytes: u64, file_bytes: usize) -> Vec<u8> {
    let mut image = vec![0x5a; file_bytes];
    image[8..16].copy_from_slice(&text_offset.to_le_bytes());
    image[16..24].copy_from_slice(&image_bytes.to_le_bytes());
    image[24..32].copy_from_slice(&[0; 8]);
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

fn memory(mib: u64) -> GuestMemory {
    GuestMemory::allocate(layout::RAM, mib << 20).unwrap()
}

#[test]
fn files_land_where_the_boot_protocol_wants_them() {
    let memory = memory(32);
    let kernel = TempFile::new("good", &kernel(0x1000, 1 << 20, 4096));
    let initrd = TempFile::new("initrd", b"cpio");
    let loaded = load_files(&memory, &kernel.0, Some(&initrd.0)).unwrap();
    assert_eq!(loaded.entry, layout::RAM + 0x1000);
    assert_eq!(loaded.fdt, layout::RAM + (30 << 20));
    let (start, end) = loaded.initrd.unwrap();
    assert_eq!(end - start, 4);
    assert!(end <= loaded.fdt && start.is_multiple_of(INITRD_ALIGNMENT));
    let read = |at| memory.ram().read_obj::<u32>(GuestAddress(at)).unwrap();
    assert_eq!(read(start).to_le_bytes(), *b"cpio");
    assert_eq!(read(loaded.entry + 56).to_le_bytes(), *b"ARM\x64");
    write_fdt(&memory, &loaded, b"tree").unwrap();
    assert_eq!(read(loaded.fdt).to_le_bytes(), *b"tree");
}

#[test]
fn a_kernel_that_is_no_kernel_is_named() {
    let script = TempFile::new("script", b"#!/bin/sh\nexit 0\n");
    let error = load_files(&memory(32), &script.0, None).unwrap_err();
    assert!(matches!(error, BootError::NotAKernel { .. }), "{error}");
    let error = load_files(&memory(32), Path::new("/nonexistent/Image"), None).unwrap_err();
    assert!(matches!(error, BootError::Read { .. }), "{error}");
    let error = load_files(&memory(32), Path::new("/"), None).unwrap_err();
    assert!(matches!(error, BootError::Read { .. }), "{error}");
}

#[test]
fn what_does_not_fit_is_named() {
    let memory = memory(16);
    let what = |kernel: &TempFile, initrd: Option<&TempFile>| match load_files(
        &memory,
        &kernel.0,
        initrd.map(|file| &*file.0),
    )
    .unwrap_err()
    {
        BootError::DoesNotFit { what, .. } => what,
        other => panic!("{other}"),
    };
    // Cleared data counts, and sizes near the end of the number line wrap nowhere.
    let large = TempFile::new("large", &kernel(0, 15 << 20, 4096));
    assert_eq!(what(&large, None), "a kernel");
    let absurd = TempFile::new("absurd", &kernel(u64::MAX - 8, u64::MAX, 4096));
    assert_eq!(what(&absurd, None), "a kernel");
    let small = TempFile::new("small", &kernel(0, 8 << 20, 4096));
    let initrd = TempFile::new("large-initrd", &vec![0; 7 << 20]);
    assert_eq!(what(&small, Some(&initrd)), "an initial RAM disk");
    let loaded = load_files(&memory, &small.0, None).unwrap();
    let error = write_fdt(&memory, &loaded, &vec![0; (2 << 20) + 1]).unwrap_err();
    assert!(error.to_string().contains("device tree"), "{error}");
}
