//! Programs that a guest's kernel killed because there was no memory left, as its
//! console tells.

use super::monitor::News;
use crate::VmEventKind;
use std::io::{self, Write};

/// Longest part of a line that is looked at, in bytes.
const MOST_OF_A_LINE: usize = 512;
/// Longest name of a program (Linux, `TASK_COMM_LEN`, with room for what escapes it).
const MOST_OF_A_NAME: usize = 64;
/// What the kernel writes before the process id, for the machine and for a control
/// group (Linux, `__oom_kill_process`).
const KILLED: &str = "ut of memory: Killed process ";

/// A console's output on its way to who listens, if anybody does.
pub struct OomWatch {
    listener: Option<Box<dyn Write + Send>>,
    line: Vec<u8>,
    news: News,
}

impl OomWatch {
    pub fn new(listener: Option<Box<dyn Write + Send>>, news: News) -> Self {
        Self {
            listener,
            line: Vec::new(),
            news,
        }
    }
}

/// The process id and the name that a line of the kernel says were killed.
fn killed(line: &[u8]) -> Option<(u32, String)> {
    let text = String::from_utf8_lossy(line);
    let (_, rest) = text.split_once(KILLED)?;
    let (pid, rest) = rest.split_once(" (")?;
    let (name, _) = rest.split_once(')')?;
    let name = name.chars().filter(|c| !c.is_control());
    Some((pid.parse().ok()?, name.take(MOST_OF_A_NAME).collect()))
}

impl Write for OomWatch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MOST_OF_A_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                if let Some((pid, program)) = killed(&self.line) {
                    self.news.tell(VmEventKind::OomKilled { pid, program });
                }
                self.line.clear();
            }
        }
        match &mut self.listener {
            Some(listener) => listener.write_all(bytes).map(|()| bytes.len()),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.listener.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_name_process_and_program() {
        let machine = b"[    9.1] Out of memory: Killed process 77 (tail) total-vm:1kB\r\n";
        assert_eq!(killed(machine), Some((77, "tail".into())));
        let group = b"Memory cgroup out of memory: Killed process 4294967295 (a b) x";
        assert_eq!(killed(group), Some((u32::MAX, "a b".into())));
        let bad: [&[u8]; 6] = [
            b"Out of memory: Killed process",
            b"Out of memory: Killed process 7",
            b"Out of memory: Killed process 7 (open",
            b"Out of memory: Killed process 99999999999 (big) ",
            b"Out of memory: Killed process -1 (less) ",
            b"\xff\xfe",
        ];
        for line in bad {
            assert_eq!(killed(line), None, "{}", String::from_utf8_lossy(line));
        }
        let hostile = format!(
            "out of memory: Killed process 1 (\x1b[2J{})",
            "n".repeat(400)
        );
        let (_, name) = killed(hostile.as_bytes()).unwrap();
        assert!(name.starts_with("[2Jn") && name.len() == MOST_OF_A_NAME);
    }

    #[test]
    fn lines_without_an_end_stay_short_and_the_listener_gets_all() {
        struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = std::sync::Arc::default();
        let listener = Box::new(Shared(std::sync::Arc::clone(&written)));
        let mut watch = OomWatch::new(Some(listener), News::default());
        for _ in 0..100 {
            watch.write_all(&[b'x'; 100]).unwrap();
        }
        assert_eq!(watch.line.len(), MOST_OF_A_LINE);
        watch.write_all(b"\nnext").unwrap();
        assert_eq!(watch.line, b"next");
        assert_eq!(written.lock().unwrap().len(), 100 * 100 + 5);
    }
}
