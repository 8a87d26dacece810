//! The orders in which a disk's workers, the vCPU that notifies them and whoever
//! pauses the machine can meet: the workers' file, compiled with loom's types.
//!
//! What a request does is not the subject: it touches a [`Memory`], which whoever
//! paused the disk may write to. That fails if they do so at once, and loom
//! fails on a thread that is never woken.

// Not all of it is used here, and its unit tests are not.
#![allow(dead_code, unused_imports)]

use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::SeqCst;
use supermachine_devices::DeviceMemory;

/// Guest memory, by those who use it now: loom may let others run between the
/// beginning and the end of a use.
struct Memory(AtomicU32);

/// Somebody uses it alone.
const ALONE: u32 = 1 << 16;

impl Memory {
    /// By a request: others may do the same at once.
    fn touch(&self) {
        assert!(self.0.fetch_add(1, SeqCst) < ALONE, "a request in a pause");
        self.0.fetch_sub(1, SeqCst);
    }

    /// By who has been promised that no request is in flight.
    fn replace(&self) {
        assert_eq!(self.0.fetch_add(ALONE, SeqCst), 0, "requests in flight");
        self.0.fetch_sub(ALONE, SeqCst);
    }
}

mod testing {
    use std::sync::Arc;
    use supermachine_devices::Ram;
    use vm_memory::GuestAddress;

    pub fn guest_ram(bytes: usize) -> Arc<Ram> {
        Arc::new(Ram::from_ranges(&[(GuestAddress(0), bytes)]).unwrap())
    }
}

#[path = "../src/virtio"]
mod virtio {
    pub use supermachine_devices::virtio::{ActivateError, Activation, Interrupt, chain};

    pub mod blk {
        pub const ID_BYTES: usize = 20;

        pub mod disk {
            use crate::Memory;
            use loom::sync::atomic::AtomicU32;

            /// Where requests leave traces.
            pub struct Disk {
                pub memory: Memory,
                /// Whether requests need no thread.
                pub is_cached: bool,
            }

            impl Disk {
                pub fn new(is_cached: bool) -> Self {
                    Self {
                        memory: Memory(AtomicU32::new(0)),
                        is_cached,
                    }
                }
            }
        }

        mod feature;

        pub mod request {
            use super::disk::Disk;
            use crate::virtio::chain::{Chain, QueueError};
            use std::cell::Cell;

            pub const BUFFER_BYTES: usize = 64;

            #[derive(Clone, Copy)]
            pub struct Header;

            pub struct Executor<'a> {
                disk: &'a Disk,
                pub failed: Cell<Option<std::io::Error>>,
            }

            impl<'a> Executor<'a> {
                pub fn new<M>(disk: &'a Disk, _: &'a M, _: bool) -> Self {
                    Self {
                        disk,
                        failed: Cell::new(None),
                    }
                }

                pub fn header(&self, _: &Chain) -> Result<Header, QueueError> {
                    self.disk.memory.touch();
                    Ok(Header)
                }

                pub fn run(&self, _: &Chain, _: Header, _: &mut [u8]) -> Result<usize, QueueError> {
                    self.disk.memory.touch();
                    Ok(0)
                }

                pub fn run_cached(&self, _: &Chain, _: Header, _: &mut [u8]) -> Option<usize> {
                    self.disk.memory.touch();
                    self.disk.is_cached.then_some(0)
                }
            }
        }

        mod sync {
            pub use loom::sync::{Condvar, Mutex, MutexGuard};
            pub use loom::thread::{Builder, JoinHandle};
        }

        mod worker;

        mod models {
            use super::disk::Disk;
            use super::worker::Workers;
            use crate::testing::guest_ram;
            use crate::virtio::chain::QueueError;
            use crate::virtio::{Activation, Interrupt};
            use loom::sync::Notify;
            use loom::thread::spawn;
            use std::sync::Arc;
            use supermachine_devices::Ram;
            use virtio_queue::{Queue, QueueT};
            use vm_memory::{Bytes, GuestAddress};

            /// A driver that sleeps until the device says something.
            struct Irq(Notify);

            impl Interrupt for Irq {
                fn used_buffers(&self, _: u16) {
                    self.0.notify();
                }

                fn config_changed(&self) {}
                fn work_left(&self, _: u16) {}
                fn needs_reset(&self, mistake: &QueueError) {
                    panic!("{mistake}");
                }
            }

            const ENTRIES: u16 = 4;
            /// Descriptor table, available ring, used ring and the requests.
            const TABLE: u32 = 0;
            const AVAILABLE: u32 = 0x1000;
            const USED: u32 = 0x2000;
            const REQUESTS: u64 = 0x3000;

            fn queue() -> Queue {
                let mut queue = Queue::new(ENTRIES).unwrap();
                queue.set_desc_table_address(Some(TABLE), None);
                queue.set_avail_ring_address(Some(AVAILABLE), None);
                queue.set_used_ring_address(Some(USED), None);
                queue.set_ready(true);
                queue
            }

            /// A disk with its driver.
            struct Rig {
                disk: Arc<Disk>,
                workers: Workers<Ram>,
                ram: Arc<Ram>,
                irq: Arc<Irq>,
            }

            impl Rig {
                fn new(is_cached: bool, threads: usize) -> Arc<Self> {
                    let disk = Arc::new(Disk::new(is_cached));
                    let rig = Self {
                        workers: Workers::new(disk.clone(), threads),
                        ram: guest_ram(0x4000),
                        irq: Arc::new(Irq(Notify::new())),
                        disk,
                    };
                    rig.start(queue());
                    Arc::new(rig)
                }

                fn start(&self, queue: Queue) {
                    let activation = Activation {
                        ram: self.ram.clone(),
                        queues: vec![queue],
                        irq: self.irq.clone(),
                        features: 0,
                    };
                    self.workers.start(activation).unwrap();
                }

                fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
                    self.ram.write_obj(value, GuestAddress(at)).unwrap();
                }

                /// Makes request number `index` available (virtio 1.2 §2.7) and
                /// notifies the device.
                fn ask(&self, index: u16) {
                    let descriptor = u64::from(TABLE) + u64::from(index) * 16;
                    self.put(descriptor, REQUESTS + u64::from(index) * 16);
                    self.put(descriptor + 8, 16_u32);
                    let available = u64::from(AVAILABLE);
                    self.put(available + 4 + u64::from(index) * 2, index);
                    self.put(available + 2, index + 1);
                    self.workers.wake();
                }

                /// Requests that came back.
                fn answered(&self) -> u16 {
                    self.ram
                        .read_obj(GuestAddress(u64::from(USED) + 2))
                        .unwrap()
                }
            }

            fn requests_of_a_vcpu_are_all_answered_when_the_queue_is_drained() {
                let rig = Rig::new(false, 2);
                let vcpu = rig.clone();
                let vcpu = spawn(move || (0..2).for_each(|index| vcpu.ask(index)));
                vcpu.join().unwrap();
                rig.workers.drain();
                assert_eq!(rig.answered(), 2);
            }

            fn memory_is_left_alone_from_pause_to_resume_and_nothing_is_forgotten() {
                let rig = Rig::new(false, 1);
                let vcpu = rig.clone();
                let vcpu = spawn(move || vcpu.ask(0));
                rig.workers.pause();
                rig.disk.memory.replace();
                rig.workers.resume();
                // Nobody but the device wakes anybody now.
                while rig.answered() == 0 {
                    rig.irq.0.wait();
                }
                vcpu.join().unwrap();
                assert_eq!(rig.answered(), 1);
            }

            fn what_a_vcpu_serves_itself_is_over_at_a_pause_too() {
                let rig = Rig::new(true, 1);
                let vcpu = rig.clone();
                let vcpu = spawn(move || vcpu.ask(0));
                rig.workers.pause();
                rig.disk.memory.replace();
                rig.workers.resume();
                // Nobody but the device wakes anybody now.
                while rig.answered() == 0 {
                    rig.irq.0.wait();
                }
                vcpu.join().unwrap();
                assert_eq!(rig.answered(), 1);
            }

            fn a_reset_waits_for_what_is_in_flight_and_threads_serve_the_next_driver() {
                let rig = Rig::new(false, 1);
                let vcpu = rig.clone();
                let vcpu = spawn(move || vcpu.ask(0));
                rig.workers.stop();
                rig.disk.memory.replace();
                vcpu.join().unwrap();
                rig.put(u64::from(USED) + 2, 0_u16);
                rig.start(queue());
                rig.ask(0);
                rig.workers.drain();
                assert_eq!(rig.answered(), 1);
            }

            /// A model's name, itself, and how many switches at a bad moment it
            /// tries.
            pub type Model = (&'static str, fn(), usize);

            macro_rules! models {
                ($($name:ident: $switches:literal),* $(,)?) => {
                    &[$((stringify!($name), $name as fn(), $switches)),*]
                };
            }

            pub const MODELS: &[Model] = models![
                requests_of_a_vcpu_are_all_answered_when_the_queue_is_drained: 2,
                memory_is_left_alone_from_pause_to_resume_and_nothing_is_forgotten: 3,
                what_a_vcpu_serves_itself_is_over_at_a_pause_too: 3,
                a_reset_waits_for_what_is_in_flight_and_threads_serve_the_next_driver: 3,
            ];
        }
        pub use models::MODELS;
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    for (name, model, switches) in virtio::blk::MODELS {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let begun = std::time::Instant::now();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(*switches);
        builder.check(model);
        println!("model {name} ... ok, {:?}", begun.elapsed());
    }
}
