//! Translation tables of the exception program, and the addresses in them.

use crate::machine::PROGRAM;

/// Access flag, inner shareable, attribute 0.
const BLOCK: u64 = 0x701;
const PAGE: u64 = 0x703;
const NO_FLAG: u64 = !0x400;
const TABLE: u64 = 3;
const USER: u64 = 1 << 6;
const READ: u64 = 1 << 7;
const DEVICE: u64 = 1 << 2;
const UXN: u64 = 1 << 54;
const PXN: u64 = 1 << 53;
/// Beyond the 40 bits of physical address.
const FAR: u64 = 1 << 41;

pub const TABLES: u64 = 0x4030_0000;
pub const UART: u64 = 0x0900_0000;
const USER_OFFSET: u64 = 0x8000;
/// The small pages.
const SMALL: u64 = 0x0040_0000;
const fn small(n: u64) -> u64 {
    SMALL + 0x1000 * n
}
const L3: u64 = TABLES + 0x6000;
const FRAMES: u64 = TABLES + 0x8000;

/// What the program's source calls its addresses.
pub const SYMBOLS: [(&str, u64); 37] = [
    ("TABLES", TABLES),
    ("LOG", 0x4000_0000),
    ("STACK", 0x4003_0000),
    ("DATA", 0x4002_0000),
    ("UART", UART),
    ("USER_OFFSET", USER_OFFSET),
    // 48-bit halves, 4 KiB pages, 40-bit physical addresses, tags ignored in
    // the lower half.
    ("TCR", 16 | 16 << 16 | 2 << 30 | 2 << 32 | 1 << 37),
    // MMU and caches; PAN set by exceptions; EL0 may do nothing special.
    ("SCTLR", 0x3050_0800 | 0x1005),
    (
        "OPEN",
        1 << 26 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 9,
    ),
    ("LEVEL0", 0x80_0000_0000),
    ("TABLE0", 0x100_0000_0000),
    ("APTABLE", 0x180_0000_0000),
    ("PXNTABLE", 0x200_0020_0000),
    ("LEVEL1", 4 << 30),
    ("FLAG1", 8 << 30),
    ("READ1", 12 << 30),
    ("SIZE1", 16 << 30),
    ("TABLE1", 20 << 30),
    ("LEVEL2", 8 << 21),
    ("FLAG2", 10 << 21),
    ("READ2", 11 << 21),
    ("SIZE2", 12 << 21),
    ("TABLE2", 13 << 21),
    ("USER_CODE", small(0)),
    ("USER_DATA", small(1)),
    ("USER_READ", small(2)),
    ("LEVEL3", small(3)),
    ("FLAG3", small(4)),
    ("READ3", small(5)),
    ("SIZE3", small(6)),
    ("NO_EXEC", small(7)),
    ("LAST", small(9)),
    ("MOVING", small(10)),
    ("MOVING_ENTRY", L3 + 8 * 10),
    ("HIGH", 0xffff_8000_0000_0000),
    ("FRAMES", FRAMES),
    ("PROGRAM", PROGRAM),
];

/// The tables, from [`TABLES`].
pub fn tables() -> Vec<u8> {
    let table = |n: u64| TABLES + 0x1000 * n;
    // 0 and 1 are the roots; 2 level 1, 3 and 4 level 2, 6 level 3; 5 level 1
    // of a gigabyte of RAM under restricted tables.
    let ram = 0x4000_0000;
    let entries = [
        (0, 0, table(2) | TABLE),
        (0, 2, FAR | TABLE),
        (0, 3, table(5) | TABLE | 1 << 62),
        (0, 4, table(5) | TABLE | 1 << 59),
        (2, 0, table(3) | TABLE),
        (2, 1, table(4) | TABLE),
        (2, 8, ram | BLOCK & NO_FLAG),
        (2, 12, ram | BLOCK | READ),
        (2, 16, FAR | ram | BLOCK),
        (2, 20, FAR | TABLE),
        (3, 2, L3 | TABLE),
        (3, 72, UART | BLOCK | DEVICE | UXN | PXN),
        (3, 10, ram | BLOCK & NO_FLAG),
        (3, 11, ram | BLOCK | READ),
        (3, 12, FAR | ram | BLOCK),
        (3, 13, FAR | TABLE),
        (4, 0, ram | BLOCK),
        (4, 1, ram | 0x20_0000 | BLOCK),
        (5, 0, ram | BLOCK),
        (6, 0, (PROGRAM + USER_OFFSET) | PAGE | USER | READ | PXN),
        (6, 1, 0x4005_0000 | PAGE | USER | UXN),
        (6, 2, 0x4005_1000 | PAGE | USER | READ | UXN),
        (6, 4, 0x4005_2000 | PAGE & NO_FLAG),
        (6, 5, 0x4005_3000 | PAGE | READ),
        (6, 6, FAR | PAGE),
        (6, 7, 0x4005_4000 | PAGE | PXN),
        (6, 8, 0x4005_5000 | PAGE),
        (6, 10, FRAMES | PAGE),
    ];
    let mut bytes = vec![0; 0xa000];
    for (table, index, entry) in entries {
        let at = 0x1000 * table + 8 * index;
        bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(entry));
    }
    bytes[0x8000] = 0x11;
    bytes[0x9000] = 0x22;
    bytes
}
