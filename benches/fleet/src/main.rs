//! Measures a `StoreKeyring` over PostgreSQL and SQLite, and prints tables for docs/BENCHMARKS.md.
//!
//! `scripts/bench fleet` runs it. It exits with 1 if a bound does not hold. `--documents N` changes the size of the
//! large tables, by default a million. `--reseal N` sets how many of their documents are sealed again, by default all.

mod measure;
mod million;
mod misses;
#[cfg(feature = "peers")]
mod peers;
mod prepare;
mod rotation;
/// Starts PostgreSQL, as the tests of `dekseal-postgres` do.
#[allow(dead_code)]
#[path = "../../../crates/dekseal-postgres/tests/it/server.rs"]
mod server;

use std::{env, process::ExitCode, time::Duration};

use dekseal::{CmkVersion, EncryptionContext, KeyId, store::Call};

/// What `server` needs of the tests.
mod conformance {
    pub(crate) fn call() -> dekseal::store::Call {
        crate::call()
    }
}

fn call() -> Call {
    Call::within(Duration::from_secs(60))
}

fn root(version: u32) -> CmkVersion {
    let key_id = "00000000-0000-0000-0000-00000000root".parse().expect("a key ID");
    CmkVersion::new(key_id, version, &[7 + version as u8; 64]).expect("a CMK")
}

fn key_id(number: u64) -> KeyId {
    // In an order that is not that of the numbers, as random key IDs are.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = format!("{:08x}-{:04x}-4000-8000-{:012x}", spread >> 32, spread & 0xffff, number);
    text.parse().expect("a key ID")
}

fn context() -> EncryptionContext {
    EncryptionContext::none()
}

/// The value after an option.
fn option(name: &str, default: u64) -> u64 {
    let mut arguments = env::args().skip_while(|argument| argument != name);
    arguments
        .nth(1)
        .map_or(default, |value| value.parse().expect("a number"))
}

fn main() -> ExitCode {
    let documents = option("--documents", 1_000_000);
    let reseal = option("--reseal", documents);
    let parts: Vec<_> = env::args().skip(1).take_while(|part| !part.starts_with("--")).collect();
    let runs = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    println!("{}\n", measure::processor());
    let mut holds = true;
    if runs("misses") || runs("million") || runs("rotation") {
        let large = prepare::Stores::new(documents);
        if runs("misses") {
            holds &= misses::run(&large);
        }
        if runs("rotation") {
            holds &= rotation::run(&large);
        }
        if runs("million") {
            holds &= million::run(&large, reseal);
        }
    }
    #[cfg(feature = "peers")]
    if runs("peers") {
        peers::run();
    }
    ExitCode::from(u8::from(!holds))
}
