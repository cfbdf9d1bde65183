//! Seals and opens the DEK of a test vector without std, with its own random generator. Exits with code 0 on success.

#![no_std]
#![no_main]

use core::{
    alloc::{GlobalAlloc, Layout},
    convert::Infallible,
    ffi::c_void,
    panic::PanicInfo,
};

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, MemoryKeyring,
    rand_core::{TryCryptoRng, TryRng},
};

/// The allocator of the C library.
struct Malloc;

#[link(name = "c")]
unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn free(pointer: *mut c_void);
}

// SAFETY: `malloc` aligns to 16 bytes, and larger alignments are refused. `free` gets only pointers from `malloc`.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > 16 {
            return core::ptr::null_mut();
        }
        unsafe { malloc(layout.size()) }.cast()
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        unsafe { free(pointer.cast()) }
    }
}

#[global_allocator]
static MALLOC: Malloc = Malloc;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// A microcontroller would read its hardware generator here.
struct Counter(u8);

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

impl TryCryptoRng for Counter {}

fn run() -> Result<bool, Error> {
    let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    let context = EncryptionContext::from_pairs([("tenant", "42")])?;

    let cmk = CmkVersion::new(key_id, 0, &[7; 32])?;
    let dek = Dek::generate_with_rng(&mut Counter(0))?;
    let sealed = cmk.seal(&context, &dek);

    let engine = Engine::new(MemoryKeyring::from_versions([cmk])?);
    let (made, sealed_by_engine) = engine.create_dek_with_rng(&key_id, &context, &mut Counter(0))?;
    let opened = engine.decrypt_dek(&key_id, &context, &sealed)?;
    let refused = engine
        .decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)
        .is_err();
    Ok(opened == dek && made == dek && sealed == sealed_by_engine && refused)
}

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    i32::from(!run().unwrap_or(false))
}
