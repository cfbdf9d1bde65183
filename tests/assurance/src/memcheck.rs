//! Client requests to valgrind's memcheck. Outside valgrind they do nothing.
//!
//! Existing bindings compile C against valgrind's headers, which a machine that only runs the tests need not have. A
//! request is a fixed sequence of instructions, which `valgrind.h` defines for each processor. This is the sequence for
//! x86-64.

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
    // SAFETY: the rotations add up to 128 bits, and exchanging a register with itself does nothing. So only the flags
    // change, and asm! assumes that they do. Under valgrind, RDX receives the answer, and of the program's memory only
    // the requested bits change, at an address that the caller derived from a reference to enough memory.
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

/// The number of errors so far, without the suppressed ones.
pub fn errors() -> u64 {
    request([COUNT_ERRORS])
}

/// Marks the bytes as secret: from now on a branch or an address that depends on them is an error.
pub fn secret(bytes: &mut [u8]) {
    // The compiler must not assume that it knows the contents of the bytes.
    std::hint::black_box(&mut *bytes);
    request([MAKE_MEM_UNDEFINED, bytes.as_ptr() as u64, bytes.len() as u64]);
    std::hint::black_box(bytes);
}

/// Marks the bytes as public, and so everything that is computed from them later.
pub fn public<T: ?Sized>(value: &T) {
    let start = std::ptr::from_ref(value).addr();
    request([MAKE_MEM_DEFINED, start as u64, size_of_val(value) as u64]);
    std::hint::black_box(value);
}

/// The number of secret bytes.
pub fn count_secret(bytes: &[u8]) -> usize {
    // memcheck sets each bit that it considers undefined.
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
