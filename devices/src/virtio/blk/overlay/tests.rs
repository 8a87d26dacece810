use super::*;

/// SplitMix64, by Sebastiano Vigna (public domain).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn byte(value: u64) -> u8 {
    u8::try_from(value).unwrap()
}

fn file() -> File {
    tempfile::tempfile().unwrap()
}

/// A file that holds these bytes.
fn holding(content: &[u8]) -> Arc<File> {
    let file = file();
    file.write_all_at(content, 0).unwrap();
    Arc::new(file)
}

fn content(overlay: &Overlay) -> Vec<u8> {
    let mut all = vec![0xee; usize::try_from(overlay.bytes()).unwrap()];
    overlay.read(&mut all, 0).unwrap();
    let mut pieced = vec![0xee; all.len()];
    for (file, range) in overlay.pieces() {
        let start = usize::try_from(range.start).unwrap();
        let end = usize::try_from(range.end).unwrap();
        file.read_exact_at(&mut pieced[start..end], range.start)
            .unwrap();
    }
    assert!(all == pieced, "what pieces hold is what is read");
    all
}

fn read(file: &File, len: usize) -> Vec<u8> {
    let mut all = vec![0; len];
    file.read_exact_at(&mut all, 0).unwrap();
    all
}

/// Sectors, the last of which are no whole block.
const SECTORS: u64 = 8 * 37 + 3;

#[test]
fn any_requests_leave_what_they_leave_in_memory_and_the_base_as_it_was() {
    let mut random = Random(1);
    for round in 0..60_u64 {
        let len = usize::try_from(SECTORS * 512).unwrap();
        let original: Vec<u8> = (0..len).map(|_| byte(random.below(256))).collect();
        let base = holding(&original);
        let overlay = Overlay::new(base.clone(), file()).unwrap();
        let mut model = original.clone();
        for _ in 0..200 {
            let sector = random.below(SECTORS);
            let sectors = 1 + random.below((SECTORS - sector).min(60));
            let (at, count) = (sector * 512, sectors * 512);
            let place = usize::try_from(at).unwrap()..usize::try_from(at + count).unwrap();
            match random.below(8) {
                0..=2 => {
                    let byte = byte(random.below(255)) + 1;
                    overlay.write(&vec![byte; place.len()], at).unwrap();
                    model[place].fill(byte);
                }
                3 => {
                    if overlay.zero(at, count, random.below(2) == 0).is_ok() {
                        model[place].fill(0);
                    }
                }
                4 => {
                    if overlay.discard(at, count).is_ok() {
                        let whole = whole_blocks(at, count);
                        let at = |block: u64| usize::try_from(block * BLOCK_BYTES).unwrap();
                        if !whole.is_empty() {
                            model[at(whole.start)..at(whole.end)].fill(0);
                        }
                    }
                }
                5 => {
                    let mut buf = vec![0; place.len()];
                    if matches!(overlay.read_cached(&mut buf, at), Ok(len) if len == buf.len()) {
                        assert!(buf == model[place]);
                    }
                }
                6 if random.below(20) == 0 => {
                    overlay.rewind().unwrap();
                    model.clone_from(&original);
                }
                _ => {
                    let mut buf = vec![0; place.len()];
                    overlay.read(&mut buf, at).unwrap();
                    assert!(buf == model[place], "round {round}, {at}+{count}");
                }
            }
        }
        assert!(content(&overlay) == model, "round {round}");
        assert!(read(&base, len) == original, "round {round}");
        // A further disk of it goes its own way.
        let own = holding(&read(overlay.own(), len)).try_clone().unwrap();
        let further = overlay.further(base.clone(), own);
        assert!(content(&further) == model);
        further.write(&[0xaa; 512], 0).unwrap();
        assert!(content(&overlay) == model);
        overlay.rewind().unwrap();
        assert!(content(&overlay) == original);
        assert_eq!(&content(&further)[..513], &{
            let mut head = model[..513].to_vec();
            head[..512].fill(0xaa);
            head
        });
    }
}

#[test]
fn sectors_of_one_block_that_are_written_at_once_are_all_there() {
    let blocks = 64_u64;
    let len = usize::try_from(blocks * BLOCK_BYTES).unwrap();
    let original = vec![0x55; len];
    for _ in 0..50 {
        let overlay = Overlay::new(holding(&original), file()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let overlay = &overlay;
                scope.spawn(move || {
                    for block in 0..blocks {
                        // One sector of each in turn; the others stay the base's.
                        let at = block * BLOCK_BYTES + thread * 512;
                        let byte = u8::try_from(thread).unwrap();
                        overlay.write(&[byte; 512], at).unwrap();
                        let mut back = [0; 512];
                        overlay.read(&mut back, at).unwrap();
                        assert_eq!(back, [byte; 512]);
                    }
                });
            }
        });
        let all = content(&overlay);
        for block in all.chunks(4096) {
            for thread in 0..4_u8 {
                let at = usize::from(thread) * 512;
                assert!(block[at..at + 512].iter().all(|byte| *byte == thread));
            }
            assert!(block[2048..].iter().all(|byte| *byte == 0x55));
        }
    }
}

#[test]
fn what_is_written_and_nothing_else_takes_space() {
    use std::os::unix::fs::MetadataExt;
    let base = file();
    base.set_len(4 << 30).unwrap();
    let overlay = Overlay::new(base, file()).unwrap();
    overlay.write(&[1; 512], 1 << 30).unwrap();
    overlay.write(&[2; 8192], 3 << 30).unwrap();
    let metadata = overlay.own().metadata().unwrap();
    assert_eq!(metadata.len(), 4 << 30);
    assert!(metadata.blocks() * 512 <= 64 << 10, "{}", metadata.blocks());
    assert_eq!(overlay.pieces().count(), 5);
    overlay.rewind().unwrap();
    assert_eq!(overlay.own().metadata().unwrap().blocks(), 0);
    assert_eq!(overlay.pieces().count(), 1);
}

#[test]
fn base_that_is_cut_short_or_too_long_is_an_error() {
    let base = holding(&[7; 1 << 20]);
    let overlay = Overlay::new(base.clone(), file()).unwrap();
    overlay.write(&[1; 4096], 0).unwrap();
    base.set_len(4096).unwrap();
    let mut buf = [0; 4096];
    overlay.read(&mut buf, 0).unwrap();
    assert_eq!(buf, [1; 4096]);
    assert!(overlay.read(&mut buf, 8192).is_err());
    // A part of a block needs the rest of it.
    assert!(overlay.write(&[2; 512], 8192).is_err());
    overlay.write(&[2; 4096], 8192).unwrap();
    overlay.read(&mut buf, 8192).unwrap();
    assert_eq!(buf, [2; 4096]);
    let long = file();
    if long.set_len(MAX_BYTES + 1).is_ok() {
        let error = Overlay::new(long, file()).unwrap_err();
        assert!(matches!(error, OverlayError::TooLong(_)), "{error}");
    }
    let empty = Overlay::new(file(), file()).unwrap();
    assert_eq!((empty.bytes(), empty.pieces().count()), (0, 0));
}
