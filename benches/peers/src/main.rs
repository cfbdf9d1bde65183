//! Measures dekseal and its peers: the same jobs for each, in one process, and a table for each of the two jobs.
//!
//! Keys: make a new 64-byte key, wrap it under a 256-bit master key, and bind a context of two pairs. Then unwrap it.
//!
//! Payloads: encrypt 16 MiB in memory under a key that no other message has, and bind the same context. Then decrypt
//! it. A peer with streams gets the data in pieces of 64 KiB, writes into existing memory, and is read to the end.
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

/// The number of calls over which allocations are counted, because the generators of some peers allocate only
/// sometimes. A payload takes long, so there it is one.
const COUNTED_KEYS: u64 = 64;
const COUNTED_PAYLOADS: u64 = 1;

const KEYS_NOTES: &str = "\
- Every peer was checked first: it returned the same key, and refused a wrong context (aes-kw takes no context).
- The rows of ring, aws-lc-rs, aes-gcm and aes-gcm-siv are code as a service author would write it: 12 + 64 + 16 bytes
  without key ID and key version, and a key that is not wiped.
- Envelopes (KmsEnvelopeAead, EnvelopeCipher, kms-aead) encrypt the 64-byte key under an inner key and bind the context
  to it. The inner key is wrapped under the master key without the context.
- envelopers supports only master keys of 128 bits. SimpleKeyProvider makes the key itself, of at most 32 bytes. The
  length of an EnvelopeCipher record varies by a few bytes, because it is CBOR with an array of numbers.
";

const PAYLOADS_NOTES: &str = "\
- 16 MiB; a MB is 10^6 bytes. A ratio is of times: above 1.00 is slower. One thread.
- Every peer was checked first: it returned the same data, and refused a wrong context (age takes no context) and a
  changed byte. Truncation was tested at three places, one of them a byte into the last segment.
- Streams read and write pieces of 64 KiB, the length of a segment of dekseal and of age. All rows share their memory.
  Exceptions: rows in one call without a buffer allocate the result, and aws-esdk also copies its input.
- Rows by hand are code as a service author would write it: a wrapped key of 12 + 32 + 16 bytes without key ID and key
  version, no reader, no writer, and no wiping. dekseal wipes its buffers and its keys, except those that ring holds.
  age wipes the decrypted data.
- The key of tink's keyset and age's recipient take the place of the master key. age also computes X25519 for each
  message. The length of its header varies, because it has a stanza of random bytes.
";

#[cfg(not(feature = "dekseal"))]
const NO_DEKSEAL: &str = "built without the feature `dekseal`";

/// The parsed arguments.
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

/// The base of the ratios is the first row that was measured.
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
