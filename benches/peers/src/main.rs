//! Measures dekseal and its peers: the same jobs for each, in one process, and a table for each of the three jobs.
//!
//! Keys: make a new 64-byte key, wrap it under a 256-bit master key, and bind a context of two pairs. Then unwrap it.
//!
//! Payloads: encrypt 16 MiB in memory under a key that no other message has, and bind the same context. Then decrypt
//! it. A peer with streams gets the data in pieces of 64 KiB, writes into existing memory, and is read to the end.
//!
//! Records: encrypt 64 bytes, as a cell of a database, in that context; and the way back. dekseal and asherah.
//!
//! `cargo run --release --features dekseal -- [keys | records | payloads] [--rounds N | --quick]`

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
mod record_rows;
mod table;
mod tink_rows;

use std::{hint::black_box, process::ExitCode};

use peer::{Facts, Row, measured};

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

const USAGE: &str = "usage: dekseal-peers [keys | records | payloads] [--rounds N | --quick]";
/// The tables, by the names of their jobs.
const TABLES: [(&str, fn(usize) -> Result<(), String>); 3] =
    [("keys", keys), ("records", records), ("payloads", payloads)];
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

const RECORDS_NOTES: &str = "\
- A record has 64 bytes. asherah's length is that of its data. The wrapped key of 60 bytes, the ID of its intermediate
  key and two times come in addition.
- Each peer was checked first: the record came back the same, and dekseal refused a wrong context.
- asherah's context is a partition, which selects the intermediate key. No associated data is bound. The session and the
  intermediate key are in the cache. decrypt takes the record by value, so each call clones it.
- A DEK for many records is open already, and its context was checked then: nothing is looked up, sealed or opened for a
  record.
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
    /// The only table, or all.
    table: Option<String>,
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
    let table = args.next_if(|arg| TABLES.iter().any(|(name, _)| name == arg));
    let mut asked = Asked { table, rounds: ROUNDS };
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
    let asked_for = |name| asked.table.as_deref().is_none_or(|table| table == name);
    for (name, table) in TABLES.iter().filter(|(name, _)| asked_for(*name)) {
        println!("{name}:\n");
        table(asked.rounds)?;
        println!();
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

fn records(rounds: usize) -> Result<(), String> {
    let rows = record_rows()?;
    // Ratios to asherah, which is the last.
    let base = rows.len() - 1;
    let numbers = measure::all(&rows, rounds, COUNTED_KEYS);
    print!("{}", table::records(&rows, &numbers, base));

    println!();
    print_medians(rounds, rows[base].facts.name);
    print!("{RECORDS_NOTES}");
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

/// Every row of the table of records.
fn record_rows() -> Result<Vec<Row<Facts>>, String> {
    Ok(vec![
        #[cfg(feature = "dekseal")]
        measured(record_rows::dekseal::Os::new())?,
        #[cfg(feature = "dekseal")]
        measured(record_rows::dekseal::UserSpace::new())?,
        #[cfg(feature = "dekseal")]
        measured(record_rows::dekseal::Reused::new())?,
        measured(record_rows::asherah::Asherah::new())?,
    ])
}
