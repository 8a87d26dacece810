//! Copies of files that are mostly holes.

use snapshot::next_data;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// Makes `to`, which is empty, hold what `from` holds, by sharing it if the file system
/// can do that, else by copying what is no hole, as long as `go_on` is no error. The
/// position of `from` changes.
pub fn copy_content(from: &File, to: &File, go_on: impl Fn() -> io::Result<()>) -> io::Result<()> {
    if super::share_content(from, to).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    if length == 0 {
        return Ok(());
    }
    to.set_len(length)?;
    copy_data(from, to, 0..length, go_on)
}

/// Makes `to`, which is empty, as long as `length` says and hold these pieces of files, by
/// copying what is no hole in them.
pub fn copy_pieces<'a>(
    pieces: impl Iterator<Item = (&'a File, Range<u64>)>,
    length: u64,
    to: &File,
) -> io::Result<()> {
    to.set_len(length)?;
    for (from, range) in pieces {
        copy_data(from, to, range, || Ok(()))?;
    }
    Ok(())
}

/// Copies what is no hole to the same place.
fn copy_data(
    from: &File,
    to: &File,
    range: Range<u64>,
    go_on: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES.min(length_of(&range))];
    let mut at = range.start;
    while let Some((start, end)) = next_data(from, at, range.end)? {
        at = start;
        while at < end {
            go_on()?;
            let piece = &mut buffer[..PIECE_BYTES.min(length_of(&(at..end)))];
            from.read_exact_at(piece, at)?;
            to.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
    }
    Ok(())
}

fn length_of(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn copy_has_the_content_and_the_holes() {
        let dir = std::env::temp_dir().join(format!("sm-sparse-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let make = |name| {
            let mut options = std::fs::OpenOptions::new();
            let options = options.read(true).write(true).create_new(true);
            options.open(dir.join(name)).unwrap()
        };
        let (from, to) = (make("from"), make("to"));
        from.set_len(1 << 30).unwrap();
        let places = [0, 5 << 20, (1 << 30) - 3];
        for at in places {
            from.write_all_at(b"abc", at).unwrap();
        }
        from.write_all_at(&vec![7; 3 << 20], 100 << 20).unwrap();
        copy_content(&from, &to, || Ok(())).unwrap();
        let metadata = to.metadata().unwrap();
        assert_eq!(metadata.len(), 1 << 30);
        assert!(metadata.blocks() * 512 < 64 << 20);
        let mut bytes = [0; 3];
        for at in places {
            to.read_exact_at(&mut bytes, at).unwrap();
            assert_eq!(&bytes, b"abc");
        }
        let mut middle = vec![0; (3 << 20) + 2];
        to.read_exact_at(&mut middle, (100 << 20) - 1).unwrap();
        assert!(middle[1..=3 << 20].iter().all(|byte| *byte == 7));
        assert_eq!((middle[0], middle[(3 << 20) + 1]), (0, 0));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
