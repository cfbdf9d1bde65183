//! Measures dekseal beside its peers: the same job for each, in one process, and a table for each of two jobs.
//!
//! Keyset: make a fresh 64-byte key, wrap it under a 256-bit master key, and bind a context of two pairs; and the way back.
//!
//! Payloads: encrypt 16 MiB in memory under a key that no other message has, and bind that context; and the way back. Where
//! a peer streams, it gets the data in pieces of 64 KiB, writes into memory that is there, and is read to the end.
//!
//! `cargo run --release --features dekseal -- [keys | payloads] [--rounds N | --quick]`

mod aes_kw_rows;
mod alloc;
mod by_hand;
#[cfg(feature = "dekseal")]
mod dekseal_rows;
mod envelopers_rows;
mod esdk_rows;
mod kms_aead_rows;
mod measure;
mod payload;
mod payload_rows;
mod peer;
mod table;
mod tink_rows;

use std::{hint::black_box, process::ExitCode};

use peer::{Facts, Row, measured};

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

const USAGE: &str = "usage: dekseal-peers [keys | payloads] [--rounds N | --quick]";
const ROUNDS: usize = 31;
const QUICK_ROUNDS: usize = 3;

/// Calls over which allocations are counted: the generators of some peers allocate now and then. A payload takes long.
const COUNTED_KEYS: u64 = 64;
const COUNTED_PAYLOADS: u64 = 1;

const KEYS_NOTES: &str = "\
- Every peer was checked first: the key came back the same, and not with a wrong context (aes-kw takes none).
- ring, aws-lc-rs, aes-gcm and aes-gcm-siv are what a service author writes: 12 + 64 + 16 bytes, with no key ID and no key
  version in them, and a key that is not wiped.
- Envelopes (KmsEnvelopeAead, EnvelopeCipher, kms-aead) bind the context to the 64-byte key, which is the message of an
  inner key; the inner key is wrapped under the master key without the context.
- envelopers has master keys of 128 bits only. SimpleKeyProvider makes the key itself, of 32 bytes at most. The length of
  an EnvelopeCipher record varies by a few bytes: it is CBOR with an array of numbers.
";

const PAYLOADS_NOTES: &str = "\
- 16 MiB; a MB is 10^6 bytes. A ratio is of times: above 1.00 is slower. One thread.
- Every peer was checked first: the data came back the same, and not with a wrong context (age takes none), nor with a byte
  changed; and whether it refuses what was cut short was tried at three places, one byte into the last segment among them.
- Streams get and give pieces of 64 KiB, the length of a segment of dekseal and of age. All rows share their memory, but for
  those in one call without a buffer, which allocate the result, and aws-esdk, which also takes a copy of what it is given.
- By hand is what a service author writes: a wrapped key of 12 + 32 + 16 bytes with no key ID and no key version, no reader
  and no writer, and nothing wiped by the author. dekseal wipes its buffers and its keys, those that ring holds excepted; age
  wipes what it decrypts.
- tink's keyset key and age's recipient stand in the place of the master key. age does the X25519 of each message too, and
  its header varies in length: it has a stanza of random bytes.
";

#[cfg(not(feature = "dekseal"))]
const NO_DEKSEAL: &str = "built without the feature `dekseal`";

/// What the arguments ask for.
struct Asked {
    keys: bool,
    payloads: bool,
    rounds: usize,
}

fn main() -> ExitCode {
    match asked(std::env::args().skip(1)).and_then(|asked| run(&asked)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn asked(args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut args = args.peekable();
    let table = args.next_if(|arg| ["keys", "payloads"].contains(&arg.as_str()));
    let mut asked = Asked {
        keys: table.as_deref() != Some("payloads"),
        payloads: table.as_deref() != Some("keys"),
        rounds: ROUNDS,
    };
    while let Some(arg) = args.next() {
        asked.rounds = match arg.as_str() {
            "--quick" => QUICK_ROUNDS,
            "--rounds" => args
                .next()
                .and_then(|n| n.parse().ok())
                .filter(|n| *n > 0)
                .ok_or(USAGE)?,
            _ => return Err(USAGE.to_owned()),
        };
    }
    Ok(asked)
}

fn run(asked: &Asked) -> Result<(), String> {
    if asked.keys {
        keys(asked.rounds)?;
    }
    if asked.keys && asked.payloads {
        println!();
    }
    if asked.payloads {
        payloads(asked.rounds)?;
    }
    Ok(())
}

fn keys(rounds: usize) -> Result<(), String> {
    let rows = key_rows()?;
    let base = base(&rows)?;
    let numbers = measure::all(&rows, rounds, COUNTED_KEYS);
    print!("{}", table::keys(&rows, &numbers, base));

    let os = measure::alone(rounds, || {
        let mut key = [0; 64];
        getrandom::fill(&mut key).expect("there is randomness");
        black_box(key);
    });
    println!();
    print_medians(rounds, rows[base].facts.name);
    println!(
        "- 64 bytes from the operating system take {os:.0} ns here: part of each row whose randomness is an OS call."
    );
    print!("{KEYS_NOTES}");
    Ok(())
}

fn payloads(rounds: usize) -> Result<(), String> {
    let rows = payload_rows::rows()?;
    let base = base(&rows)?;
    let numbers = measure::all(&rows, rounds, COUNTED_PAYLOADS);
    print!("{}", table::payloads(&rows, &numbers, base));

    println!();
    print_medians(rounds, rows[base].facts.name);
    print!("{PAYLOADS_NOTES}");
    Ok(())
}

/// The first row that is measured is what the others are compared with.
fn base<F>(rows: &[Row<F>]) -> Result<usize, String> {
    let base = rows.iter().position(|row| row.job.is_ok());
    Ok(base.ok_or("there is nothing to measure")?)
}

fn print_medians(rounds: usize, base: &str) {
    println!("- Medians of {rounds} rounds. A ratio is the median of the ratios to \"{base}\" within a round.");
}

/// Every row of the table of keys.
fn key_rows() -> Result<Vec<Row<Facts>>, String> {
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
            NO_DEKSEAL,
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
        measured(esdk_rows::Esdk::<esdk_rows::Unsigned>::new())?,
        measured(esdk_rows::Esdk::<esdk_rows::Signed>::new())?,
    ])
}
