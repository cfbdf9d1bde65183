//! Functions whose machine code `scripts/assure branchless` reads: the comparison of secrets must have neither a
//! conditional jump nor a call. The program runs them once, so that the linker keeps them.

use std::{hint::black_box, process::ExitCode};

use dekseal::Dek;

/// `ct_eq` of the crate, which also compares salts, commitments and MACs.
#[inline(never)]
#[unsafe(no_mangle)]
fn branchless_compare(a: &Dek, b: &Dek) -> bool {
    a == b
}

/// It stops at the first difference: this must be found.
#[inline(never)]
#[unsafe(no_mangle)]
fn branching_compare(a: &[u8; 64], b: &[u8; 64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

fn main() -> ExitCode {
    let bytes: [u8; 64] = std::array::from_fn(|at| at as u8);
    let (one, other) = (Dek::from_bytes(black_box(&bytes)), Dek::from_bytes(black_box(&bytes)));
    if branchless_compare(&one, &other) && branching_compare(black_box(&bytes), black_box(&bytes)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
