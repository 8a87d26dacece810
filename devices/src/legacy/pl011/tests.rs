use std::sync::mpsc;

use super::*;
use crate::testing::CountingIrq;

const DR: u64 = 0x00;
const FR: u64 = 0x18;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;
const RX: u32 = 1 << 4;
const TX: u32 = 1 << 5;
const RXFE: u32 = 1 << 4;
const PATIENCE: Duration = Duration::from_secs(10);

/// A sink that can be held up.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn port() -> (Arc<CountingIrq>, Sink, Pl011) {
    let irq = Arc::new(CountingIrq::default());
    let sink = Sink::default();
    let port = Pl011::new(irq.clone(), Box::new(sink.clone()));
    (irq, sink, port)
}

fn read<E: Pl011Events>(port: &Pl011<E>, offset: u64) -> u32 {
    let mut data = [0; 4];
    port.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write<E: Pl011Events>(port: &Pl011<E>, offset: u64, value: u32) {
    port.write(offset, &value.to_le_bytes());
}

#[test]
fn output_reaches_the_sink_in_order() {
    let (_irq, sink, port) = port();
    for byte in b"Hello, console!\n" {
        port.write(DR, &[*byte]);
    }
    assert!(port.flush(PATIENCE));
    assert_eq!(*sink.0.lock().unwrap(), b"Hello, console!\n");
}

#[test]
fn output_still_comes_after_the_port_is_gone() {
    let (_irq, sink, port) = port();
    port.write(DR, b"x");
    drop(port);
    let deadline = std::time::Instant::now() + PATIENCE;
    while sink.0.lock().unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn stuck_sink_never_blocks_the_guest_and_keeps_the_newest() {
    struct Stuck(mpsc::Receiver<()>, Sink);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    #[derive(Default)]
    struct Dropped(std::sync::atomic::AtomicUsize);
    impl Pl011Events for Arc<Dropped> {
        fn output_dropped(&self, count: usize) {
            self.0.fetch_add(count, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let (go, wait) = mpsc::channel();
    let sink = Sink::default();
    let dropped = Arc::new(Dropped::default());
    let port = Pl011::restore(
        &Pl011State::default(),
        Arc::new(CountingIrq::default()),
        Box::new(Stuck(wait, sink.clone())),
        dropped.clone(),
    );
    let total = 2 * OUTPUT_BYTES + 1000;
    for at in 0..total {
        port.write(DR, &[if at + 1 == total { b'!' } else { b'.' }]);
    }
    assert!(!port.flush(Duration::from_millis(1)));
    let lost = dropped.0.load(std::sync::atomic::Ordering::SeqCst);
    assert!(lost >= 1000, "{lost} characters were dropped");
    drop(go);
    assert!(port.flush(PATIENCE));
    let sink = sink.0.lock().unwrap();
    assert_eq!(sink.len(), total - lost);
    assert_eq!(sink.last(), Some(&b'!'));
}

#[test]
fn input_interrupts_until_it_is_read() {
    let (irq, _sink, port) = port();
    assert_eq!(read(&port, FR) & RXFE, RXFE);
    assert_eq!(port.enqueue(b"ab"), 2);
    assert!(!irq.level(), "masked");
    write(&port, IMSC, RX);
    assert!(irq.level());
    assert_eq!((read(&port, RIS), read(&port, MIS)), (RX, RX));
    assert_eq!(read(&port, DR), u32::from(b'a'));
    // Clearing does not lose what is still there.
    write(&port, ICR, u32::MAX);
    assert!(irq.level());
    assert_eq!(read(&port, DR), u32::from(b'b'));
    assert!(!irq.level());
    assert_eq!(read(&port, FR) & RXFE, RXFE);
    assert_eq!(read(&port, DR), 0);
}

#[test]
fn input_is_bounded() {
    let (_irq, _sink, port) = port();
    assert_eq!(port.enqueue(&vec![1; INPUT_BYTES + 5]), INPUT_BYTES);
    assert_eq!(port.enqueue(&[2]), 0);
    assert_ne!(read(&port, FR) & 1 << 6, 0);
    read(&port, DR);
    assert_eq!(port.enqueue(&[2, 3]), 1);
}

#[test]
fn transmit_interrupt_follows_each_character_until_cleared() {
    let (irq, _sink, port) = port();
    write(&port, IMSC, TX);
    assert!(!irq.level());
    port.write(DR, b"x");
    assert!(irq.level());
    write(&port, ICR, TX);
    assert!(!irq.level());
    // There is always room.
    assert_eq!(read(&port, FR) & (1 << 7 | 1 << 5 | 1 << 3), 1 << 7);
}

#[test]
fn linux_finds_a_pl011() {
    let (_irq, _sink, port) = port();
    let ids: Vec<u32> = (0..8).map(|i| read(&port, 0xfe0 + 4 * i)).collect();
    let id = ids[0] | ids[1] << 8 | ids[2] << 16 | ids[3] << 24;
    assert_eq!(id & 0x000f_ffff, 0x0004_1011);
    assert_eq!(ids[4..], [0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn line_is_driven_on_changes_only() {
    let (irq, _sink, port) = port();
    write(&port, IMSC, TX);
    for _ in 0..5 {
        port.write(DR, b"x");
    }
    assert_eq!(irq.level_calls(), 1);
}

#[test]
fn saved_port_continues() {
    let (_irq, _sink, port) = port();
    for offset in (0x20..0x4c).step_by(4) {
        write(&port, offset, 0xffff_ffff);
    }
    port.write(DR, b"x");
    port.enqueue(b"input");
    let state = port.state();
    let irq = Arc::new(CountingIrq::default());
    let sink = Box::new(std::io::sink());
    let restored = Pl011::restore(&state, irq.clone(), sink, NoEvents);
    assert_eq!(restored.state(), state);
    assert!(irq.level());
    assert_eq!(read(&restored, DR), u32::from(b'i'));
    let hostile = Pl011State {
        ris: u32::MAX,
        imsc: u32::MAX,
        cr: u32::MAX,
        input: vec![0; 1 << 20],
        ..Pl011State::default()
    };
    let sink = Box::new(std::io::sink());
    let restored = Pl011::restore(&hostile, irq, sink, NoEvents).state();
    assert_eq!(restored.input.len(), INPUT_BYTES);
    assert_eq!((restored.imsc, restored.cr), (0x7ff, 0xff87));
}

#[test]
fn odd_accesses_are_harmless() {
    let (_irq, _sink, port) = port();
    let mut wide = [0xff; 8];
    port.read(FR + 1, &mut wide);
    assert_eq!(wide[4..], [0; 4]);
    port.read(u64::MAX, &mut wide);
    port.write(u64::MAX, &[]);
    port.write(0x800, &[1; 8]);
    assert_eq!(read(&port, 0x800), 0);
}

/// A driver that waits for room when it is saved gets its interrupt, though
/// the one it waits for was seen to by the machine that is gone.
#[test]
fn port_saved_while_its_driver_sends_interrupts_again() {
    let (_irq, _sink, port) = port();
    port.write(DR, b"x");
    write(&port, ICR, TX);
    write(&port, IMSC, TX);
    let state = port.state();
    assert_eq!((state.ris & TX, state.imsc & TX), (0, TX));
    let irq = Arc::new(CountingIrq::default());
    let sink = Box::new(std::io::sink());
    let restored = Pl011::restore(&state, irq.clone(), sink, NoEvents);
    assert!(irq.level());
    assert_eq!(read(&restored, MIS), TX);
    write(&restored, IMSC, 0);
    assert!(!irq.level());
    restored.reset_to(&state);
    assert!(irq.level());
}

#[test]
fn port_in_use_goes_back_to_a_saved_state_again_and_again() {
    let (irq, sink, port) = port();
    write(&port, IMSC, RX);
    port.enqueue(b"a");
    let state = port.state();
    for round in 1..20 {
        assert_eq!(read(&port, DR), u32::from(b'a'));
        write(&port, IMSC, TX);
        port.write(DR, b"x");
        port.enqueue(b"lease");
        let before = irq.level_calls();
        port.reset_to(&state);
        assert!(irq.level() && irq.level_calls() > before, "round {round}");
        assert_eq!(port.state(), state);
    }
    let hostile = Pl011State {
        imsc: u32::MAX,
        ris: u32::MAX,
        input: vec![0; 1 << 20],
        ..Pl011State::default()
    };
    port.reset_to(&hostile);
    assert_eq!(port.state().input.len(), INPUT_BYTES);
    port.reset_to(&Pl011State::default());
    assert!(!irq.level());
    assert_eq!(read(&port, FR) & RXFE, RXFE);
    assert!(port.flush(PATIENCE));
    assert_eq!(sink.0.lock().unwrap().len(), 19);
}
