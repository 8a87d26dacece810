//! What a guest finds where a mapped file has ended since.
//!
//! A page of a mapping that the file no longer reaches is a bus error for whoever
//! touches it, which is a vCPU in the middle of an instruction. The signal's handler
//! puts zeros there, to the end of the piece that the page is in, notes it, and lets
//! the instruction go on. The owner of the window looks at the notes.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use devices::virtio::fs::PIECE_BYTES;

/// Bytes of a piece.
#[expect(clippy::cast_possible_truncation, reason = "it is 2 MiB")]
pub(super) const PIECE: usize = PIECE_BYTES as usize;
/// Most windows of a process.
pub const MAX_WINDOWS: usize = 32;
/// Most pieces of a window: the 8 GiB that the guest's addresses have for all.
const MAX_PIECES: usize = 4096;

/// A window on the host. The handler reads it without a lock.
struct Place {
    taken: AtomicBool,
    /// Address of the first byte, or 0 while there is nothing for the handler.
    start: AtomicUsize,
    bytes: AtomicUsize,
    /// Some bit below is set.
    any: AtomicBool,
    /// A bit for each piece that has lost something.
    lost: [AtomicU64; MAX_PIECES / 64],
}

static PLACES: [Place; MAX_WINDOWS] = [const { Place::new() }; MAX_WINDOWS];
/// What happened at bus errors before this.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

impl Place {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            any: AtomicBool::new(false),
            lost: [const { AtomicU64::new(0) }; MAX_PIECES / 64],
        }
    }

    /// Puts zeros from this address on, if it is here; for the handler.
    fn fill(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        let bytes = self.bytes.load(Ordering::Acquire);
        let Some(offset) = address.checked_sub(start) else {
            return false;
        };
        let page = PAGE_BYTES.load(Ordering::Relaxed);
        if start == 0 || offset >= bytes || page == 0 {
            return false;
        }
        let piece = offset / PIECE;
        let from = offset & !(page - 1);
        let length = (piece + 1) * PIECE - from;
        // SAFETY: the range is within one piece of a window, which nobody here uses
        // but vCPUs, by addresses that stay valid.
        let placed = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(start + from),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if placed == libc::MAP_FAILED {
            return false;
        }
        // Noted afterwards: whoever takes the note finds the zeros in place.
        if let Some(word) = self.lost.get(piece / 64) {
            word.fetch_or(1 << (piece % 64), Ordering::SeqCst);
            self.any.store(true, Ordering::SeqCst);
        }
        true
    }
}

extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives what it says it gives.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    let missing = code == libc::BUS_ADRERR;
    if missing && PLACES.iter().any(|place| place.fill(address)) {
        return;
    }
    pass_on(signal, info, context);
}

/// Does what would have been done without us.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get();
    let handler = previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // The instruction is repeated, and its error is the system's then.
        // SAFETY: the default needs nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    let takes_info = previous.is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0);
    // SAFETY: the system had this address as a handler of the kind its flag says.
    unsafe {
        if takes_info {
            type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
        }
    }
}

/// Takes over bus errors, once for the process.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: sysconf takes a number and returns a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page)
            .ok()
            .filter(|page| page.is_power_of_two());
        let Some(page) = page else { return false };
        PAGE_BYTES.store(page, Ordering::Relaxed);
        // SAFETY: all zeros are a value of this structure of the system's.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: it only reads the present handler, into a place of ours.
        if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut action) } != 0 {
            return false;
        }
        let _ = PREVIOUS.set(action);
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
        action.sa_sigaction = handler as usize;
        // On the stack that threads have for such cases, where they have one: a guest's
        // instruction may run with little left of its own.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler reads atomics and maps memory, and calls nothing else,
        // so that it may come at any instruction.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) == 0 }
    });
    match installed {
        true => Ok(()),
        false => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// A window whose missing pages become zeros.
#[derive(Debug)]
pub(super) struct Watch(usize);

impl Watch {
    /// Watches a range of whole pieces; an error if there are too many or it is too
    /// long.
    pub(super) fn new(start: usize, bytes: usize) -> io::Result<Self> {
        if bytes > MAX_PIECES * PIECE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        install()?;
        let free = PLACES.iter().position(|place| {
            let taken = &place.taken;
            let taking = taken.compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst);
            taking.is_ok()
        });
        let Some(number) = free else {
            return Err(io::ErrorKind::QuotaExceeded.into());
        };
        let place = &PLACES[number];
        place.take();
        place.bytes.store(bytes, Ordering::Release);
        place.start.store(start, Ordering::Release);
        Ok(Self(number))
    }

    /// Numbers of the pieces that have lost something since the last time.
    pub(super) fn take(&self) -> Vec<usize> {
        PLACES[self.0].take()
    }
}

impl Place {
    fn take(&self) -> Vec<usize> {
        let mut pieces = Vec::new();
        if !self.any.load(Ordering::Relaxed) || !self.any.swap(false, Ordering::SeqCst) {
            return pieces;
        }
        for (at, word) in self.lost.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                pieces.push(at * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
        pieces
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let place = &PLACES[self.0];
        place.start.store(0, Ordering::SeqCst);
        place.taken.store(false, Ordering::SeqCst);
    }
}

/// Forgets all windows, which a child of the process does not have.
#[cfg(target_os = "linux")]
pub(super) fn forget() {
    for place in &PLACES {
        place.start.store(0, Ordering::SeqCst);
        place.take();
        place.taken.store(false, Ordering::SeqCst);
    }
}
