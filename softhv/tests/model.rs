//! All orders in which vCPUs can meet, as far as the memory model lets them come
//! about: the files of the shoot-down protocol, compiled with loom's types.
//!
//! What a stale translation leads to is a [`Frame`], which the sender reuses when
//! it has waited. Loom fails on a use that does not come before the reuse, on a
//! thread that is never woken, and on a failed assertion.

// Not all of those files is used here, and their unit tests are not.
#![allow(dead_code, unused_imports, clippy::cast_possible_truncation)]

mod sync {
    use loom::sync::Notify;
    pub use loom::sync::{Arc, Mutex, atomic};
    pub use std::sync::PoisonError;

    /// A thread that can be woken. Loom's own would also be woken where it waits
    /// for a lock or for the end of another.
    #[derive(Clone)]
    pub struct Thread(Arc<Notify>);

    impl Thread {
        pub fn unpark(&self) {
            self.0.notify();
        }
    }

    impl std::fmt::Debug for Thread {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Thread")
        }
    }

    loom::thread_local! {
        static CURRENT: Thread = Thread(Arc::new(Notify::new()));
    }

    pub fn current() -> Thread {
        CURRENT.with(Thread::clone)
    }

    pub fn park() {
        current().0.wait();
    }

    /// No time passes: who is not woken never goes on.
    pub fn park_timeout(_: std::time::Duration) {
        park();
    }
}
#[path = "../src/code_place.rs"]
mod code_place;
#[path = "../src/held/mod.rs"]
mod held;
#[path = "../src/link/mod.rs"]
mod link;
#[path = "../src/mail.rs"]
mod mail;
#[path = "../src/zeroes.rs"]
mod zeroes;

use held::{CurrentSpace, Looking};
use link::{AckWait, VcpuShared, attention};
use loom::cell::UnsafeCell;
use loom::thread::{JoinHandle, spawn};
use mail::{CodeRange, TlbInvalidate};
use std::time::Instant;
use sync::Arc;
use sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

const SPACE: u16 = 7;
const PAGE: TlbInvalidate = TlbInvalidate::Va {
    va: 0x1000,
    asid: SPACE,
    pages: 1,
};
const LINE: CodeRange = CodeRange {
    pa: 0x4000,
    bytes: 64,
};

/// A page of guest memory.
struct Frame(UnsafeCell<u32>);

// SAFETY: loom checks every access.
unsafe impl Sync for Frame {}
// SAFETY: as above.
unsafe impl Send for Frame {}

impl Frame {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(0)))
    }

    /// By a translation that was valid at some time.
    fn touch(&self) {
        self.0.with(|at| {
            // SAFETY: loom checks that nobody writes it.
            let _value = unsafe { at.read() };
        });
    }

    /// By one that knows that there are no translations left.
    fn reuse(&self) {
        // SAFETY: loom checks that nobody else uses it.
        self.0.with_mut(|at| unsafe { at.write(1) });
    }
}

/// A vCPU with a TLB of one entry and one decoded line.
struct Vcpu {
    link: Arc<VcpuShared>,
    has_entry: bool,
    has_line: bool,
}

impl Vcpu {
    fn new(link: &Arc<VcpuShared>) -> Self {
        Self {
            link: Arc::clone(link),
            has_entry: true,
            has_line: true,
        }
    }

    /// What the run loop does between blocks.
    fn attend(&mut self) {
        while self.link.attention.load(Ordering::Acquire) & attention::MAIL != 0 {
            let mail = self.link.take_mail();
            self.has_entry &= mail.tlb.is_empty();
            self.has_line &= mail.code.is_empty();
            let rounds = self.link.acknowledge(mail);
            if !rounds.is_empty() {
                self.link.pause();
                rounds.iter().for_each(|round| round.sit_out());
                self.link.resume();
            }
        }
    }

    fn use_entry(&self, frame: &Frame) {
        if self.has_entry {
            frame.touch();
        }
    }
}

fn wait_for(targets: &[(&Arc<VcpuShared>, u64)]) {
    let mut acks = AckWait::default();
    for (target, ticket) in targets {
        acks.add(target, *ticket);
    }
    if !acks.poll() {
        acks.sleep();
    }
}

/// A vCPU that runs, looks at its mail now and then, and uses its entry.
fn running(link: &Arc<VcpuShared>, frame: &Arc<Frame>) -> JoinHandle<()> {
    let (mut vcpu, frame) = (Vcpu::new(link), Arc::clone(frame));
    spawn(move || {
        vcpu.link.enter();
        vcpu.attend();
        vcpu.use_entry(&frame);
        vcpu.attend();
        vcpu.use_entry(&frame);
        vcpu.link.leave();
    })
}

fn a_frame_is_reused_after_its_last_use_by_a_vcpu_that_runs() {
    let (link, frame) = (Arc::new(VcpuShared::new(0)), Frame::new());
    let target = running(&link, &frame);
    wait_for(&[(&link, link.post_tlb(PAGE))]);
    frame.reuse();
    target.join().unwrap();
}

fn a_sender_is_woken_once_two_vcpus_have_settled_and_so_are_they() {
    let links = [0, 1].map(|index| Arc::new(VcpuShared::new(index)));
    let frame = Frame::new();
    let targets = [0, 1].map(|index| {
        let (mut vcpu, frame) = (Vcpu::new(&links[index]), Arc::clone(&frame));
        vcpu.link.enter();
        spawn(move || {
            vcpu.use_entry(&frame);
            vcpu.attend();
            vcpu.link.leave();
        })
    });
    let tickets = [0, 1].map(|index| (&links[index], links[index].post_tlb(PAGE)));
    wait_for(&tickets);
    frame.reuse();
    for target in targets {
        target.join().unwrap();
    }
}

fn two_vcpus_that_wait_for_each_other_both_go_on() {
    let links = [0, 1].map(|index| Arc::new(VcpuShared::new(index)));
    // Each of them is what the other moves.
    let frames = [Frame::new(), Frame::new()];
    let vcpus = [0, 1].map(|me| {
        let (links, frames) = (links.clone(), frames.clone());
        spawn(move || {
            let mut vcpu = Vcpu::new(&links[me]);
            vcpu.link.enter();
            vcpu.attend();
            vcpu.use_entry(&frames[me]);
            let other = &links[1 - me];
            let ticket = other.post_tlb(PAGE);
            vcpu.link.pause();
            wait_for(&[(other, ticket)]);
            frames[1 - me].reuse();
            vcpu.link.resume();
            vcpu.attend();
            vcpu.use_entry(&frames[me]);
            vcpu.link.leave();
        })
    });
    for vcpu in vcpus {
        vcpu.join().unwrap();
    }
}

fn a_vcpu_that_was_not_told_walks_the_new_tables() {
    let (link, frame) = (Arc::new(VcpuShared::new(0)), Frame::new());
    let looking = Arc::new(Looking::default());
    let (table, note) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(0)));
    let target = {
        let (mut vcpu, frame) = (Vcpu::new(&link), Arc::clone(&frame));
        let (looking, table, note) = (looking.clone(), table.clone(), note.clone());
        spawn(move || {
            vcpu.has_entry = false;
            vcpu.link.enter();
            vcpu.attend();
            looking.begin();
            vcpu.has_entry = table.load(Ordering::Relaxed) == 1;
            if vcpu.has_entry {
                note.store(1, Ordering::Release);
            }
            looking.end();
            vcpu.use_entry(&frame);
            vcpu.attend();
            vcpu.use_entry(&frame);
            vcpu.link.leave();
        })
    };
    table.store(0, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    if looking.is_on() || note.load(Ordering::Acquire) == 1 {
        wait_for(&[(&link, link.post_tlb(PAGE))]);
    }
    frame.reuse();
    target.join().unwrap();
}

fn an_entry_that_took_the_place_of_another_was_made_after_its_last_use() {
    let (link, frame) = (Arc::new(VcpuShared::new(0)), Frame::new());
    let (looking, note) = (Arc::new(Looking::default()), Arc::new(AtomicU32::new(1)));
    let target = {
        let (mut vcpu, frame) = (Vcpu::new(&link), Arc::clone(&frame));
        let (looking, note) = (looking.clone(), note.clone());
        vcpu.link.enter();
        spawn(move || {
            vcpu.use_entry(&frame);
            looking.begin();
            vcpu.has_entry = false;
            note.store(2, Ordering::Release);
            looking.end();
            vcpu.attend();
            vcpu.link.leave();
        })
    };
    fence(Ordering::SeqCst);
    if looking.is_on() || note.load(Ordering::Acquire) == 1 {
        wait_for(&[(&link, link.post_tlb(PAGE))]);
    }
    frame.reuse();
    target.join().unwrap();
}

fn an_address_space_is_used_after_the_mail_about_it_was_taken() {
    let (link, frame) = (Arc::new(VcpuShared::new(0)), Frame::new());
    let space = Arc::new(CurrentSpace::new());
    let target = {
        let (mut vcpu, frame) = (Vcpu::new(&link), Arc::clone(&frame));
        let space = space.clone();
        spawn(move || {
            vcpu.link.enter();
            vcpu.attend();
            space.set(SPACE);
            vcpu.attend();
            vcpu.use_entry(&frame);
            space.set(SPACE + 1);
            // Nothing of it is used from here on.
            vcpu.link.leave();
        })
    };
    let ticket = link.post_tlb(PAGE);
    if space.is(SPACE) {
        wait_for(&[(&link, ticket)]);
    }
    frame.reuse();
    target.join().unwrap();
}

fn code_is_new_after_the_barrier_that_follows_the_news_of_it() {
    let link = Arc::new(VcpuShared::new(0));
    let looking = Arc::new(Looking::default());
    let (code, note) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let news = Arc::new(AtomicBool::new(false));
    let reader = {
        let mut vcpu = Vcpu::new(&link);
        let (looking, code, note) = (looking.clone(), code.clone(), note.clone());
        let news = news.clone();
        spawn(move || {
            let decode = || {
                looking.begin();
                let value = code.load(Ordering::Relaxed);
                note.store(true, Ordering::Release);
                looking.end();
                value
            };
            vcpu.link.enter();
            vcpu.attend();
            let mut decoded = decode();
            vcpu.has_line = true;
            if news.load(Ordering::Acquire) {
                // ISB: back to the run loop.
                vcpu.attend();
                if !vcpu.has_line {
                    decoded = decode();
                }
                assert_eq!(decoded, 1, "old code");
            }
            vcpu.link.leave();
        })
    };
    code.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    if looking.is_on() || note.load(Ordering::Acquire) {
        link.post_code(LINE);
    }
    news.store(true, Ordering::Release);
    reader.join().unwrap();
}

fn an_interrupt_wakes_a_vcpu_whenever_it_comes() {
    let (send, receive) = loom::sync::mpsc::channel();
    let sleeper = spawn(move || {
        let link = Arc::new(VcpuShared::new(0));
        link.enter();
        send.send(Arc::clone(&link)).unwrap();
        while link.take(attention::WAKE) == 0 {
            link.park(None);
        }
        link.leave();
    });
    receive.recv().unwrap().raise(attention::IRQ);
    sleeper.join().unwrap();
}

/// Models by their names, with how many switches at a bad moment each tries:
/// most mistakes need one or two, and two take half a minute with three threads.
macro_rules! models {
    ($($name:ident: $switches:literal),* $(,)?) => {
        [$((stringify!($name), $name as fn(), $switches)),*]
    };
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    for (name, model, switches) in models![
        a_frame_is_reused_after_its_last_use_by_a_vcpu_that_runs: 3,
        a_sender_is_woken_once_two_vcpus_have_settled_and_so_are_they: 1,
        two_vcpus_that_wait_for_each_other_both_go_on: 2,
        a_vcpu_that_was_not_told_walks_the_new_tables: 3,
        an_entry_that_took_the_place_of_another_was_made_after_its_last_use: 3,
        an_address_space_is_used_after_the_mail_about_it_was_taken: 3,
        code_is_new_after_the_barrier_that_follows_the_news_of_it: 3,
        an_interrupt_wakes_a_vcpu_whenever_it_comes: 3,
    ] {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(switches);
        builder.check(model);
        println!("model {name} ... ok, {:?}", begun.elapsed());
    }
}
