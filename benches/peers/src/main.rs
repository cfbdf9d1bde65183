//! Measures dekseal beside its peers: the same job for each, in one process, and one table at the end.
//!
//! The job: make a fresh 64-byte key, wrap it under a 256-bit master key, and bind a context of two pairs; and the way back.
//!
//! `cargo run --release --features dekseal -- [--rounds N | --quick]`

mod aes_kw_rows;
mod alloc;
mod by_hand;
#[cfg(feature = "dekseal")]
mod dekseal_rows;
mod envelopers_rows;
mod esdk_rows;
#[cfg(feature = "kms-aead-031")]
mod kms_aead_031_rows;
mod kms_aead_rows;
mod measure;
mod peer;
mod table;
mod tink_rows;

use std::{hint::black_box, process::ExitCode};

use peer::{Facts, Row, measured};

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

const USAGE: &str = "usage: dekseal-peers [--rounds N | --quick]";
const ROUNDS: usize = 31;
const QUICK_ROUNDS: usize = 3;

/// Calls over which allocations are counted: the generators of some peers allocate now and then.
const COUNTED: u64 = 64;

const NOTES: &str = "\
- Every peer was checked first: the key came back the same, and not with a wrong context (aes-kw takes none).
- ring, aws-lc-rs, aes-gcm and aes-gcm-siv are what a service author writes: 12 + 64 + 16 bytes, with no key ID and no key
  version in them, and a key that is not wiped.
- Envelopes (KmsEnvelopeAead, EnvelopeCipher, kms-aead) bind the context to the 64-byte key, which is the message of an
  inner key; the inner key is wrapped under the master key without the context.
- envelopers has master keys of 128 bits only. SimpleKeyProvider makes the key itself, of 32 bytes at most. The length of
  an EnvelopeCipher record varies by a few bytes: it is CBOR with an array of numbers.
";

fn main() -> ExitCode {
    match rounds(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn rounds(mut args: impl Iterator<Item = String>) -> Result<usize, String> {
    let mut rounds = ROUNDS;
    while let Some(arg) = args.next() {
        rounds = match arg.as_str() {
            "--quick" => QUICK_ROUNDS,
            "--rounds" => args
                .next()
                .and_then(|n| n.parse().ok())
                .filter(|n| *n > 0)
                .ok_or(USAGE)?,
            _ => return Err(USAGE.to_owned()),
        };
    }
    Ok(rounds)
}

fn run(rounds: usize) -> Result<(), String> {
    let rows = rows()?;
    let numbers = measure::all(&rows, rounds, COUNTED);
    let base = rows
        .iter()
        .position(|row| row.job.is_ok())
        .ok_or("there is nothing to measure")?;
    print!("{}", table::keys(&rows, &numbers, base));

    let os = measure::alone(rounds, || {
        let mut key = [0; 64];
        getrandom::fill(&mut key).expect("there is randomness");
        black_box(key);
    });
    println!();
    println!(
        "- Medians of {rounds} rounds. A ratio is the median of the ratios to \"{}\" within a round.",
        rows[base].facts.name
    );
    println!(
        "- 64 bytes from the operating system take {os:.0} ns here: part of each row whose randomness is an OS call."
    );
    print!("{NOTES}");
    Ok(())
}

/// Every row; the first that is measured is what the others are compared with.
fn rows() -> Result<Vec<Row<Facts>>, String> {
    Ok(vec![
        #[cfg(feature = "dekseal")]
        measured(dekseal_rows::Os::new())?,
        #[cfg(feature = "dekseal")]
        measured(dekseal_rows::ContextEachCall::new())?,
        #[cfg(feature = "dekseal")]
        measured(dekseal_rows::UserSpace::new())?,
        #[cfg(not(feature = "dekseal"))]
        peer::absent(
            Facts {
                name: "dekseal",
                package: ("dekseal", "0."),
                ..Facts::default()
            },
            "built without the feature `dekseal`",
        ),
        measured(by_hand::Ring::new())?,
        measured(by_hand::AwsLc::new())?,
        measured(by_hand::RustCrypto::<aes_gcm::Aes256Gcm>::new())?,
        measured(by_hand::RustCrypto::<aes_gcm_siv::Aes256GcmSiv>::new())?,
        measured(aes_kw_rows::AesKw::new())?,
        measured(tink_rows::Direct::new())?,
        measured(tink_rows::Envelope::new())?,
        measured(envelopers_rows::Provider::new())?,
        measured(envelopers_rows::Envelope::new())?,
        measured(kms_aead_rows::Envelope::new())?,
        #[cfg(feature = "kms-aead-031")]
        measured(kms_aead_031_rows::Envelope::new())?,
        #[cfg(not(feature = "kms-aead-031"))]
        peer::absent(
            Facts {
                name: "kms-aead",
                package: ("kms-aead", "0.31"),
                ..Facts::default()
            },
            "it asks for Rust 1.99; the feature `kms-aead-031` has it",
        ),
        measured(esdk_rows::Esdk::<esdk_rows::Unsigned>::new())?,
        measured(esdk_rows::Esdk::<esdk_rows::Signed>::new())?,
    ])
}
