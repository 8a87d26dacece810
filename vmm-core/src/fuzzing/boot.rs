use super::Input;
use crate::arch::aarch64::boot::{INITRD_ALIGNMENT, place_initrd, place_kernel};
use crate::arch::aarch64::image::{self, ImageHeader};
use crate::arch::aarch64::layout;

/// Guest memory comes in pieces of this many bytes.
const RAM_UNIT: u64 = 16 << 10;

/// A kernel's header gives a place between the start of RAM and the device
/// tree, or nothing if there is no such place; so does the initial RAM disk
/// above it.
///
/// The input is the size of RAM, of the two files, and the kernel's first
/// bytes.
///
/// # Panics
/// When something would lie outside, overlap, or be refused though it fits.
pub fn fuzz_kernel_image(data: &[u8]) {
    let mut input = Input(data);
    let units = input.number() % ((layout::MAX_RAM_BYTES - layout::MIN_RAM_BYTES) / RAM_UNIT + 1);
    let ram_bytes = layout::MIN_RAM_BYTES + units * RAM_UNIT;
    let file_bytes = input.number();
    let initrd_bytes = input.number();
    let start = input.0;
    // The length and the bytes disagree in a file that changes meanwhile.
    for bytes in [start.len() as u64, file_bytes] {
        let parsed = image::parse(start, bytes);
        if let Err(error) = &parsed {
            assert!(!error.to_string().is_empty());
        }
        assert_eq!(parsed.is_ok(), is_image(start));
        if let Ok(header) = parsed {
            check_header(&header, start);
            check_edges(ram_bytes, header, bytes, initrd_bytes);
        }
    }
    let mut repaired = [0; image::HEADER_BYTES];
    let len = start.len().min(image::HEADER_BYTES);
    repaired[..len].copy_from_slice(&start[..len]);
    repaired[24] &= !1;
    repaired[56..60].copy_from_slice(b"ARM\x64");
    let header = image::parse(&repaired, file_bytes).expect("it has all it needs");
    check_header(&header, &repaired);
    check_edges(ram_bytes, header, file_bytes, initrd_bytes);
}

fn is_image(start: &[u8]) -> bool {
    start.len() >= image::HEADER_BYTES && start[56..60] == *b"ARM\x64" && start[24] & 1 == 0
}

fn check_header(header: &ImageHeader, bytes: &[u8]) {
    assert_eq!(header.image_bytes.to_le_bytes(), bytes[16..24]);
    if header.image_bytes == 0 {
        // Older than Linux 3.17, which always asks for this.
        assert_eq!(header.text_offset, 0x8_0000);
    } else {
        assert_eq!(header.text_offset.to_le_bytes(), bytes[8..16]);
    }
}

/// As asked for, and as close to what fits as can be.
fn check_edges(ram_bytes: u64, header: ImageHeader, file_bytes: u64, initrd_bytes: u64) {
    check_places(ram_bytes, header, file_bytes, initrd_bytes);
    let space = ram_bytes - layout::FDT_BYTES;
    let text_offset = header.text_offset % space;
    let room = space - text_offset;
    for edge in [room - 1, room, room + 1, room / 2] {
        let declared = ImageHeader {
            text_offset,
            image_bytes: edge,
        };
        let short = file_bytes % room;
        let rest = room - edge.max(short).min(room);
        for initrd_bytes in [initrd_bytes, rest, rest + 1, rest / 2] {
            check_places(ram_bytes, declared, short, initrd_bytes);
        }
        let undeclared = ImageHeader {
            text_offset,
            image_bytes: short,
        };
        check_places(ram_bytes, undeclared, edge, initrd_bytes);
    }
}

/// In numbers wide enough never to wrap.
fn check_places(ram_bytes: u64, header: ImageHeader, file_bytes: u64, initrd_bytes: u64) {
    let limit = layout::RAM + ram_bytes - layout::FDT_BYTES;
    let needed = u128::from(file_bytes.max(header.image_bytes));
    let wanted = u128::from(layout::RAM) + u128::from(header.text_offset);
    let fits = wanted + needed <= u128::from(limit);
    let placed = place_kernel(layout::RAM, limit, header, file_bytes);
    assert_eq!(placed.is_some(), fits, "{header:?} of {file_bytes} bytes");
    let Some((entry, kernel_end)) = placed else {
        return;
    };
    assert_eq!(u128::from(entry), wanted);
    assert_eq!(u128::from(kernel_end), wanted + needed);
    assert!(layout::RAM <= entry && entry <= kernel_end && kernel_end <= limit);

    let unit = u128::from(INITRD_ALIGNMENT);
    let lowest = u128::from(kernel_end).next_multiple_of(unit);
    let length = u128::from(initrd_bytes);
    let placed = place_initrd(kernel_end, limit, initrd_bytes);
    assert_eq!(placed.is_some(), lowest + length <= u128::from(limit));
    if let Some((start, end)) = placed {
        assert!(start.is_multiple_of(INITRD_ALIGNMENT));
        assert!(kernel_end <= start && start <= end && end <= limit);
        assert_eq!(end - start, initrd_bytes);
        let higher = u128::from(start) + unit + length;
        assert!(higher > u128::from(limit), "not as high as it goes");
    }
}
