//! FSEvents (CoreServices), which says by path what changes below a directory.
//!
//! It is no part of the hypervisor, and here because it is a C ABI of macOS as that is: no
//! other crate of these has one.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most paths that wait. What comes when there are as many is lost, and said to be.
const MAX_WAITING: usize = 8192;
/// `kFSEventStreamEventIdSinceNow`.
const SINCE_NOW: u64 = u64::MAX;
/// How long the system waits for more before it says anything, in seconds.
const LATENCY: f64 = 0.005;
/// `kFSEventStreamCreateFlagNoDefer`, `WatchRoot`, `IgnoreSelf` and `FileEvents`: at once
/// after a rest; also that the directory was moved; not what this process does; each file.
const FLAGS: u32 = 0x2 | 0x4 | 0x8 | 0x10;
/// `kCFStringEncodingUTF8`.
const UTF8: u32 = 0x0800_0100;

type Ref = *const c_void;
type Callback = unsafe extern "C" fn(Ref, *mut c_void, usize, *mut c_void, *const u32, *const u64);

/// `FSEventStreamContext`.
#[repr(C)]
struct Context {
    version: isize,
    info: *mut c_void,
    retain: Option<unsafe extern "C" fn(Ref) -> Ref>,
    release: Option<unsafe extern "C" fn(Ref)>,
    description: Option<unsafe extern "C" fn(Ref) -> Ref>,
}

/// `CFArrayCallBacks`, of which only the address is used.
#[repr(C)]
struct ArrayCallbacks([usize; 5]);

#[link(name = "CoreFoundation", kind = "framework")]
unsafe extern "C" {
    static kCFTypeArrayCallBacks: ArrayCallbacks;
    fn CFStringCreateWithBytes(
        allocator: Ref,
        bytes: *const u8,
        length: isize,
        encoding: u32,
        is_external: u8,
    ) -> Ref;
    fn CFArrayCreate(
        allocator: Ref,
        values: *const Ref,
        count: isize,
        callbacks: *const ArrayCallbacks,
    ) -> Ref;
    fn CFRelease(object: Ref);
}

#[link(name = "CoreServices", kind = "framework")]
unsafe extern "C" {
    fn FSEventStreamCreate(
        allocator: Ref,
        callback: Callback,
        context: *const Context,
        paths: Ref,
        since: u64,
        latency: f64,
        flags: u32,
    ) -> *mut c_void;
    fn FSEventStreamSetDispatchQueue(stream: *mut c_void, queue: *mut c_void);
    fn FSEventStreamStart(stream: *mut c_void) -> u8;
    fn FSEventStreamStop(stream: *mut c_void);
    fn FSEventStreamInvalidate(stream: *mut c_void);
    fn FSEventStreamRelease(stream: *mut c_void);
}

// Of libSystem, which every program links.
unsafe extern "C" {
    fn dispatch_queue_create(label: *const c_char, attributes: *const c_void) -> *mut c_void;
    fn dispatch_sync_f(
        queue: *mut c_void,
        context: *mut c_void,
        work: unsafe extern "C" fn(*mut c_void),
    );
    fn dispatch_release(queue: *mut c_void);
}

/// What the system has said, and nobody has taken yet.
#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    said: Said,
    woken: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, path: &CStr, flags: u32) {
        let mut waiting = self.lock();
        match waiting.said.paths.len() < MAX_WAITING {
            true => waiting.said.paths.push((path.to_bytes().to_vec(), flags)),
            false => waiting.said.lost = true,
        }
        self.changed.notify_all();
    }
}

/// What has been said since it was asked last.
#[derive(Debug, Default)]
pub struct Said {
    /// Paths, and what has happened to each (`kFSEventStreamEventFlag*`).
    pub paths: Vec<(Vec<u8>, u32)>,
    /// There was more than is kept.
    pub lost: bool,
}

/// A stream of what changes below one directory.
pub struct FsEvents {
    stream: *mut c_void,
    queue: *mut c_void,
    /// What the stream's callback is given; of this place until the stream has ended.
    inbox: Box<Inbox>,
}

// SAFETY: a stream and a dispatch queue may be used by any thread, and only `drop`, which
// has `self` alone, uses them after `of`; all else is behind mutexes.
unsafe impl Send for FsEvents {}
// SAFETY: as above.
unsafe impl Sync for FsEvents {}

impl fmt::Debug for FsEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsEvents")
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
    }
}

impl FsEvents {
    /// Of an open directory, at the path that it has now.
    ///
    /// # Errors
    /// The host's, if it does not say the path, or there is no stream.
    pub fn of(directory: &File) -> io::Result<Self> {
        let path = path_of(directory.as_fd())?;
        let inbox = Box::<Inbox>::default();
        let (stream, queue) = open_stream(&path, &inbox)?;
        let opened = Self {
            stream,
            queue,
            inbox,
        };
        // SAFETY: the stream is ours, and has its queue.
        match unsafe { FSEventStreamStart(opened.stream) } {
            0 => Err(io::Error::other("the stream of events does not start")),
            _ => Ok(opened),
        }
    }

    /// Waits until there is something to [take](Self::take) or it is woken.
    pub fn wait(&self) {
        let waits = |waiting: &mut Waiting| {
            !waiting.woken && !waiting.said.lost && waiting.said.paths.is_empty()
        };
        let waiting = self.inbox.changed.wait_while(self.inbox.lock(), waits);
        waiting.unwrap_or_else(PoisonError::into_inner).woken = false;
    }

    /// Ends the wait that is going on, or the next.
    pub fn wake(&self) {
        self.inbox.lock().woken = true;
        self.inbox.changed.notify_all();
    }

    /// What has been said, without waiting.
    pub fn take(&self) -> Said {
        std::mem::take(&mut self.inbox.lock().said)
    }
}

/// The path that an open directory has now, without links.
///
/// # Errors
/// The host's.
pub fn path_of(directory: BorrowedFd<'_>) -> io::Result<CString> {
    const LONGEST: usize = libc::PATH_MAX as usize;
    let mut path = [0_u8; LONGEST];
    // SAFETY: the call writes a C string of at most PATH_MAX bytes, for which there is room.
    let done = unsafe { libc::fcntl(directory.as_raw_fd(), libc::F_GETPATH, path.as_mut_ptr()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let path = CStr::from_bytes_until_nul(&path).map_err(io::Error::other)?;
    Ok(path.to_owned())
}

/// Makes a stream of what changes below a path, and the queue that it calls back on.
fn open_stream(path: &CStr, inbox: &Inbox) -> io::Result<(*mut c_void, *mut c_void)> {
    let failed = || io::Error::other("there is no stream of events for the directory");
    let bytes = path.to_bytes();
    let length = isize::try_from(bytes.len()).map_err(|_| failed())?;
    // SAFETY: the bytes are there for the call, which copies them.
    let text = unsafe { CFStringCreateWithBytes(ptr::null(), bytes.as_ptr(), length, UTF8, 0) };
    if text.is_null() {
        return Err(failed());
    }
    // SAFETY: one value, an object; the array keeps it, so that it can be let go.
    let paths = unsafe {
        let paths = CFArrayCreate(ptr::null(), &text, 1, &raw const kCFTypeArrayCallBacks);
        CFRelease(text);
        paths
    };
    if paths.is_null() {
        return Err(failed());
    }
    let context = Context {
        version: 0,
        info: ptr::from_ref(inbox).cast_mut().cast(),
        retain: None,
        release: None,
        description: None,
    };
    // SAFETY: the context is copied; the inbox stays where it is until `drop` of its owner
    // has waited for the last callback.
    let stream = unsafe {
        let stream = FSEventStreamCreate(
            ptr::null(),
            called,
            &raw const context,
            paths,
            SINCE_NOW,
            LATENCY,
            FLAGS,
        );
        CFRelease(paths);
        stream
    };
    if stream.is_null() {
        return Err(failed());
    }
    // SAFETY: a label of static storage; null attributes are a serial queue. The stream is
    // ours and not started.
    unsafe {
        let queue = dispatch_queue_create(c"supermachine.fsevents".as_ptr(), ptr::null());
        FSEventStreamSetDispatchQueue(stream, queue);
        Ok((stream, queue))
    }
}

/// Called by the system, on the stream's queue.
unsafe extern "C" fn called(
    _stream: Ref,
    info: *mut c_void,
    count: usize,
    paths: *mut c_void,
    flags: *const u32,
    _ids: *const u64,
) {
    // SAFETY: `info` is the inbox, which is there until the stream has ended and this has
    // returned. Without `UseCFTypes` the paths are an array of `count` C strings, beside an
    // array of as many flags; both are there for this call.
    unsafe {
        let inbox = &*info.cast::<Inbox>().cast_const();
        let paths = paths.cast::<*const c_char>().cast_const();
        for n in 0..count {
            inbox.put(CStr::from_ptr(*paths.add(n)), *flags.add(n));
        }
    }
}

unsafe extern "C" fn nothing(_context: *mut c_void) {}

impl Drop for FsEvents {
    fn drop(&mut self) {
        // SAFETY: the stream and the queue are ours and used by nobody else. After
        // `Invalidate` nothing more is put on the queue, which is serial: what is done last
        // there is done when all callbacks have returned.
        unsafe {
            FSEventStreamStop(self.stream);
            FSEventStreamInvalidate(self.stream);
            FSEventStreamRelease(self.stream);
            dispatch_sync_f(self.queue, ptr::null_mut(), nothing);
            dispatch_release(self.queue);
        }
    }
}
