//! An allocator that searches each block that it takes back for what is secret.

#![allow(unsafe_code, reason = "an allocator is unsafe to implement")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    collections::BTreeMap,
    mem::MaybeUninit,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// The secrets are known by each window of so many bytes, raw or as twice as many hex digits.
pub const WINDOW: usize = 8;

/// Examines what is freed.
pub struct Examining;

// SAFETY: all is passed on to `System`, and `examine` does not allocate by way of this allocator, unless it has found
// something: then
// `BUSY` keeps it from being called again.
unsafe impl GlobalAlloc for Examining {
    // Zeroed, so that no byte of a block was never written, and none is left from whoever had it before.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        examine(block, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }

    // `realloc` is the one that the trait provides: it takes a new block, copies, and frees the old one by the method
    // above. So each block that grows is examined, as if none could grow where it is.
}

const SLOTS: usize = 1 << 18;
/// A hash set of windows; 0 is an empty slot.
static WINDOWS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
/// Which secret the window is from.
static OWNERS: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(0) }; SLOTS];
static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static FOUND: Mutex<Vec<Found>> = Mutex::new(Vec::new());
static ON: AtomicBool = AtomicBool::new(false);
static BLOCKS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// A freed block in which there was a secret.
#[derive(Clone)]
pub struct Found {
    pub secret: String,
    pub as_hex: bool,
    pub block: usize,
    /// How many windows of it.
    pub windows: usize,
    /// Who freed it.
    pub trace: String,
}

/// What was examined.
pub struct Examined {
    pub blocks: usize,
    pub bytes: usize,
    pub found: Vec<Found>,
}

/// From now on these bytes are secret. Nothing here keeps them but as windows.
pub fn register(name: &str, bytes: &[u8]) {
    unexamined(|| {
        let mut names = locked(&NAMES);
        names.push(name.to_owned());
        for window in bytes.windows(WINDOW) {
            let window = u64::from_le_bytes(window.try_into().expect("a window"));
            assert_ne!(window, 0, "zeros are no secret");
            let mut slot = slot(window);
            while ![0, window].contains(&WINDOWS[slot].load(Relaxed)) {
                slot = (slot + 1) % SLOTS;
            }
            if WINDOWS[slot].swap(window, Relaxed) == 0 {
                OWNERS[slot].store(names.len() - 1, Relaxed);
                assert!(COUNT.fetch_add(1, Relaxed) < SLOTS / 2, "too many windows");
            }
        }
    });
}

/// How many secrets there are, and how many windows they have.
pub fn registered() -> (usize, usize) {
    (locked(&NAMES).len(), COUNT.load(Relaxed))
}

/// Examines what is freed while `f` runs, on any thread.
pub fn examined(f: impl FnOnce()) -> Examined {
    BLOCKS.store(0, Relaxed);
    BYTES.store(0, Relaxed);
    ON.store(true, Relaxed);
    f();
    ON.store(false, Relaxed);
    Examined {
        blocks: BLOCKS.load(Relaxed),
        bytes: BYTES.load(Relaxed),
        found: std::mem::take(&mut *locked(&FOUND)),
    }
}

/// Runs `f` apart: nothing that it frees is examined, and nothing that it leaves on the stack gets into what others
/// make of theirs.
pub fn apart<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    unexamined(|| std::thread::scope(|scope| scope.spawn(|| unexamined(f)).join().expect("no panic")))
}

/// Examines nothing that this thread frees while `f` runs.
fn unexamined<T>(f: impl FnOnce() -> T) -> T {
    let before = BUSY.replace(true);
    let value = f();
    BUSY.set(before);
    value
}

#[inline(never)]
fn examine(block: *const u8, length: usize) {
    if !ON.load(Relaxed) || BUSY.get() {
        return;
    }
    BLOCKS.fetch_add(1, Relaxed);
    BYTES.fetch_add(length, Relaxed);
    // SAFETY: the block is still allocated, `alloc` has written all of it, and nobody else has it any more. Volatile,
    // since to the compiler nobody reads what is about to be freed.
    let bytes = (0..length).map(|at| unsafe { block.add(at).read_volatile() });
    let (mut windows, mut first) = (0, None);
    search(bytes, |owner, as_hex| {
        windows += 1;
        first = first.or(Some((owner, as_hex)));
    });
    if let Some((owner, as_hex)) = first {
        unexamined(|| {
            locked(&FOUND).push(Found {
                secret: locked(&NAMES)[owner].clone(),
                as_hex,
                block: length,
                windows,
                trace: Backtrace::force_capture().to_string(),
            });
        });
    }
}

/// Calls `found` for each window, with the secret that it is from, and whether it stood there as hex.
fn search(bytes: impl Iterator<Item = u8>, mut found: impl FnMut(usize, bool)) {
    let mut raw = 0_u64;
    let (mut text, mut digits) = (0_u64, 0);
    for byte in bytes {
        // The eight bytes that end here. Before the eighth the upper ones alone are set, which is no window but by
        // chance.
        raw = raw >> 8 | u64::from(byte) << 56;
        if let Some(owner) = lookup(raw) {
            found(owner, false);
        }
        // The sixteen digits that end here, in either case.
        match char::from(byte).to_digit(16) {
            Some(digit) => {
                text = text << 4 | u64::from(digit);
                digits += 1;
                if let Some(owner) = lookup(text.swap_bytes()).filter(|_| digits >= 2 * WINDOW) {
                    found(owner, true);
                }
            }
            None => digits = 0,
        }
    }
}

/// What `f` leaves on the stack: how many windows of which secret. On a thread of its own.
pub fn left_on_stack(f: impl FnOnce() + Send) -> BTreeMap<String, usize> {
    #[inline(never)]
    fn call(f: impl FnOnce()) {
        f();
    }
    apart(|| {
        // Threads are given stacks that others had before them.
        below(|byte| {
            // SAFETY: `below` gives addresses within a value of its own.
            unsafe { byte.write_volatile(0) }
        });
        call(f);
        let mut bytes = Vec::new();
        below(|byte| {
            // SAFETY: the address may be read. What was not written holds whatever the stack held, which is what is
            // asked for; volatile, so that the compiler makes of it no more than a load.
            bytes.push(unsafe { byte.read_volatile() });
        });
        let mut left = BTreeMap::new();
        search(bytes.into_iter(), |owner, as_hex| {
            let name = &locked(&NAMES)[owner];
            *left
                .entry(format!("{}{name}", if as_hex { "hex of " } else { "" }))
                .or_default() += 1;
        });
        left
    })
}

/// Calls `f` with the address of each byte below the caller's frame, as deep as anything here goes.
#[inline(never)]
fn below(mut f: impl FnMut(*mut u8)) {
    const DEPTH: usize = 256 * 1024;
    let mut room = MaybeUninit::<[u8; DEPTH]>::uninit();
    let start: *mut u8 = std::hint::black_box(room.as_mut_ptr()).cast();
    for at in 0..DEPTH {
        f(start.wrapping_add(at));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lookup(window: u64) -> Option<usize> {
    let mut slot = slot(window);
    loop {
        match WINDOWS[slot].load(Relaxed) {
            0 => return None,
            found if found == window => return Some(OWNERS[slot].load(Relaxed)),
            _ => slot = (slot + 1) % SLOTS,
        }
    }
}

fn slot(window: u64) -> usize {
    (window.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 46) as usize
}
