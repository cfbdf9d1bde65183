//! Measures a `StoreKeyring` over PostgreSQL and SQLite, and prints tables for docs/BENCHMARKS.md.
//!
//! `scripts/bench fleet` runs it. Without arguments it measures `ratios` and `million`. The part `peers` needs the
//! feature of that name. It exits with 1 if a bound does not hold. `--documents N` sets the size of the large tables,
//! by default a million. `--reseal N` sets how many of their documents are sealed again, by default all. With `--wait`,
//! it waits for a line of input before it measures, so that the machine can be made quiet when the rows are there.

/// Makes the certificate of the server, as the tests of `dekseal-postgres` do.
#[path = "../../../crates/dekseal-postgres/tests/it/certificates.rs"]
mod certificates;
mod measure;
mod million;
#[cfg(feature = "peers")]
mod peers;
mod prepare;
#[path = "../../common/processor.rs"]
mod processor;
mod ratios;
/// Starts PostgreSQL, as the tests of `dekseal-postgres` do.
#[allow(dead_code)]
#[path = "../../../crates/dekseal-postgres/tests/it/server.rs"]
mod server;

use std::{env, io, process::ExitCode, time::Duration};

use dekseal::{CmkVersion, KeyId, store::Call};

/// The function that `server` uses of the tests.
mod conformance {
    pub(crate) use crate::call;
}

pub(crate) fn call() -> Call {
    Call::within(Duration::from_secs(60))
}

fn root(version: u32) -> CmkVersion {
    let key_id = "00000000-0000-0000-0000-00000000root".parse().expect("a key ID");
    CmkVersion::new(key_id, version, &[7 + version as u8; 64]).expect("a CMK")
}

/// The ID of a key. The IDs are not in the order of the numbers, as random ones are not.
fn key_id(number: u64) -> KeyId {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = format!("{:08x}-{:04x}-4000-8000-{number:012x}", spread >> 32, spread & 0xffff);
    text.parse().expect("a key ID")
}

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(million::LOOK_UP) {
        million::look_up_in_this_process();
        return ExitCode::SUCCESS;
    }
    let (mut documents, mut reseal, mut wait, mut parts) = (1_000_000, None, false, Vec::new());
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok()).expect("a number");
        match argument.as_str() {
            "--documents" => documents = number(),
            "--reseal" => reseal = Some(number()),
            "--wait" => wait = true,
            part @ ("ratios" | "million") => parts.push(part.to_owned()),
            part @ "peers" if cfg!(feature = "peers") => parts.push(part.to_owned()),
            _ => panic!("{argument}: not an argument"),
        }
    }
    if parts.is_empty() {
        parts = ["ratios", "million"].map(str::to_owned).into();
    }
    let runs = |part: &str| parts.iter().any(|wanted| wanted == part);
    let stores = (runs("ratios") || runs("million")).then(|| prepare::Stores::new(documents));
    if wait {
        eprintln!("the rows are there");
        io::stdin().read_line(&mut String::new()).expect("a line");
    }
    println!("{}\n", processor::processor());
    let mut holds = true;
    if let Some(stores) = stores {
        if runs("ratios") {
            holds &= ratios::run(&stores);
        }
        if runs("million") {
            holds &= million::run(&stores, reseal.unwrap_or(documents));
        }
    }
    #[cfg(feature = "peers")]
    if runs("peers") {
        peers::run();
    }
    ExitCode::from(u8::from(!holds))
}
