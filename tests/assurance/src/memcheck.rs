//! Requests to valgrind's memcheck. Outside of valgrind they do nothing.
//!
//! The bindings that there are for this compile C against valgrind's headers, which a machine that only runs the
//! tests need not have. A request is one sequence of instructions, which valgrind's headers give for each processor
//! (`valgrind.h`); this is that of x86-64.

#![allow(unsafe_code, reason = "a request is made by instructions")]

const RUNNING_ON_VALGRIND: u64 = 0x1001;
const COUNT_ERRORS: u64 = 0x1201;
/// `VG_USERREQ_TOOL_BASE('M', 'C')`
const MEMCHECK: u64 = 0x4d43_0000;
const MAKE_MEM_UNDEFINED: u64 = MEMCHECK + 1;
const MAKE_MEM_DEFINED: u64 = MEMCHECK + 2;
const GET_VBITS: u64 = MEMCHECK + 8;

#[cfg(target_arch = "x86_64")]
fn request<const N: usize>(words: [u64; N]) -> u64 {
    let mut arguments = [0; 6];
    arguments[..N].copy_from_slice(&words);
    let mut answer = 0_u64;
    // SAFETY: the rotations are by 128 bits together, and an exchange of a register with itself does nothing: but for
    // the flags, which asm! takes for changed, all is as before. Under valgrind RDX has the answer; of the program's
    // memory the bits that are asked for change, at an address that its caller has made of a reference to as many.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") answer,
            options(nostack)
        );
    }
    answer
}

#[cfg(not(target_arch = "x86_64"))]
fn request<const N: usize>(_: [u64; N]) -> u64 {
    0
}

pub fn is_running() -> bool {
    request([RUNNING_ON_VALGRIND]) != 0
}

/// How many errors there were, but for those that are suppressed.
pub fn errors() -> u64 {
    request([COUNT_ERRORS])
}

/// From now on the bytes are secret: a branch or an address that depends on them is an error.
pub fn secret(bytes: &mut [u8]) {
    // The bytes may change hands behind the compiler's back: it must not know what is in them any more.
    std::hint::black_box(&mut *bytes);
    request([MAKE_MEM_UNDEFINED, bytes.as_ptr() as u64, bytes.len() as u64]);
    std::hint::black_box(bytes);
}

/// From now on the bytes are public, and so is what will be computed from them.
pub fn public<T: ?Sized>(value: &T) {
    let start = std::ptr::from_ref(value).addr();
    request([MAKE_MEM_DEFINED, start as u64, size_of_val(value) as u64]);
    std::hint::black_box(value);
}

/// How many of the bytes are secret.
pub fn count_secret(bytes: &[u8]) -> usize {
    // A bit is set where memcheck takes one of the byte for undefined.
    let mut bits = vec![0_u8; bytes.len()];
    request([
        GET_VBITS,
        bytes.as_ptr() as u64,
        bits.as_mut_ptr() as u64,
        bytes.len() as u64,
    ]);
    std::hint::black_box(&mut bits);
    bits.iter().filter(|bits| **bits != 0).count()
}
