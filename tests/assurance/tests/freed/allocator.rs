//! An allocator that searches each freed block for secrets.

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

/// Secrets are recognised by each window of this many bytes, raw or as hex digits.
pub const WINDOW: usize = 8;

/// Examines freed blocks.
pub struct Examining;

// SAFETY: all calls are passed on to `System`. `examine` allocates from this allocator only when it has found a secret,
// and then `BUSY` prevents a nested call.
unsafe impl GlobalAlloc for Examining {
    // Zeroed, so that every byte of a block is initialized, and no byte is left from a former owner.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract of the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        examine(block, layout.size());
        // SAFETY: the contract of the caller.
        unsafe { System.dealloc(block, layout) }
    }

    // The default `realloc` of the trait allocates a new block, copies, and frees the old block with the method above.
    // So each block that grows is examined, as if no block could grow in place.
}

const SLOTS: usize = 1 << 18;
/// A hash set of windows; 0 is an empty slot.
static WINDOWS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
/// The secret that each window belongs to.
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

/// A freed block that contained a secret.
#[derive(Clone)]
pub struct Found {
    pub secret: String,
    pub as_hex: bool,
    pub block: usize,
    /// The number of its windows in the block.
    pub windows: usize,
    /// A backtrace of the call that freed it.
    pub trace: String,
}

/// The number of examined blocks and bytes, and the findings.
pub struct Examined {
    pub blocks: usize,
    pub bytes: usize,
    pub found: Vec<Found>,
}

/// Registers bytes as secret. They are kept only as windows.
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

/// The number of secrets and of their windows.
pub fn registered() -> (usize, usize) {
    (locked(&NAMES).len(), COUNT.load(Relaxed))
}

/// Examines the blocks that any thread frees while `f` runs.
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

/// Runs `f` on a separate thread. The blocks that it frees are not examined, and its stack is not part of what others
/// leave on theirs.
pub fn apart<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    unexamined(|| std::thread::scope(|scope| scope.spawn(|| unexamined(f)).join().expect("no panic")))
}

/// Does not examine the blocks that this thread frees while `f` runs.
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
    // SAFETY: the block is still allocated, `alloc` initialized all of it, and nothing else uses it any more. The read
    // is volatile, because the compiler may assume that nothing reads a block before it is freed.
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

/// Calls `found` for each window, with its secret and whether it was found as hex.
fn search(bytes: impl Iterator<Item = u8>, mut found: impl FnMut(usize, bool)) {
    let mut raw = 0_u64;
    let (mut text, mut digits) = (0_u64, 0);
    for byte in bytes {
        // The last eight bytes. Before the eighth byte the value is incomplete, and is a window only by chance.
        raw = raw >> 8 | u64::from(byte) << 56;
        if let Some(owner) = lookup(raw) {
            found(owner, false);
        }
        // The last sixteen digits, in either case.
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

/// The number of windows of each secret that `f` leaves on the stack, and those that are left after
/// `dekseal::wipe_stack`. Runs on a separate thread.
pub fn left_on_stack(f: impl FnOnce() + Send) -> [BTreeMap<String, usize>; 2] {
    #[inline(never)]
    fn call(f: impl FnOnce()) {
        f();
    }
    apart(|| {
        // Threads may get stacks that other threads used before.
        below(|byte| {
            // SAFETY: `below` passes addresses within a value of its own.
            unsafe { byte.write_volatile(0) }
        });
        call(f);
        let left = stack();
        dekseal::wipe_stack();
        [left, stack()].map(|bytes| {
            let mut left = BTreeMap::new();
            search(bytes.into_iter(), |owner, as_hex| {
                let name = &locked(&NAMES)[owner];
                *left
                    .entry(format!("{}{name}", if as_hex { "hex of " } else { "" }))
                    .or_default() += 1;
            });
            left
        })
    })
}

/// A copy of the stack below the caller's frame.
#[inline(never)]
fn stack() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DEPTH);
    below(|byte| {
        // SAFETY: the address may be read. Bytes that were not written hold old contents of the stack, which is the
        // purpose here. The read is volatile, so that the compiler makes it an ordinary load.
        bytes.push(unsafe { byte.read_volatile() });
    });
    bytes
}

/// As deep as any code here goes.
const DEPTH: usize = 256 * 1024;

/// Calls `f` with the address of each byte below the caller's frame.
#[inline(never)]
fn below(mut f: impl FnMut(*mut u8)) {
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
