//! The Rust side of `python/bench`: the loops that the column functions and the streams of Python are compared with, on
//! one thread. Prints `name value`: nanoseconds for each row, or bytes in a nanosecond.

use std::{
    io::{Read as _, Write as _},
    time::Instant,
};

use dekseal::{EncryptionContext, Engine, KeyId, Keyset, MemoryKeyring};

const ROWS: usize = 100_000;
const STREAM: usize = 256 << 20;

/// The fastest of five runs, in nanoseconds.
fn fastest(mut run: impl FnMut()) -> f64 {
    let times = (0..5).map(|_| {
        let began = Instant::now();
        run();
        began.elapsed().as_nanos() as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

fn contexts() -> impl Iterator<Item = EncryptionContext> {
    (0..ROWS)
        .map(|row| EncryptionContext::from_pairs([("table", "patient"), ("row", &row.to_string())]).expect("a context"))
}

fn main() -> Result<(), dekseal::Error> {
    let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    let mut keys = Keyset::new();
    keys.create_key(key_id)?;
    let engine = Engine::new(MemoryKeyring::new(keys));
    let blobs: Result<Vec<_>, _> = contexts()
        .map(|context| engine.create_dek(&key_id, &context).map(|(_, sealed)| sealed))
        .collect();
    let blobs = blobs?;
    engine.keyring().update(|keys| keys.rotate(&key_id))?;
    let row = |name: &str, nanoseconds: f64| println!("{name} {}", nanoseconds / ROWS as f64);

    row(
        "rewrap",
        fastest(|| {
            for (context, sealed) in contexts().zip(&blobs) {
                std::hint::black_box(engine.rewrap_dek(&key_id, &context, sealed).expect("rewraps"));
            }
        }),
    );
    row(
        "open",
        fastest(|| {
            for (context, sealed) in contexts().zip(&blobs) {
                std::hint::black_box(engine.decrypt_dek(&key_id, &context, sealed).expect("opens"));
            }
        }),
    );
    let data = [7; 100];
    let mut payloads = Vec::new();
    row(
        "encrypt",
        fastest(|| {
            payloads = contexts()
                .map(|context| engine.encrypt(&key_id, &context, &data).expect("encrypts"))
                .collect();
        }),
    );
    row(
        "decrypt",
        fastest(|| {
            for (context, payload) in contexts().zip(&payloads) {
                std::hint::black_box(engine.decrypt(&key_id, &context, payload).expect("decrypts"));
            }
        }),
    );

    let context = EncryptionContext::none();
    let chunk = vec![7; 1 << 20];
    let mut payload = Vec::new();
    let written = fastest(|| {
        payload.clear();
        let mut writer = engine
            .encrypt_writer(&key_id, &context, &mut payload)
            .expect("a writer");
        for _ in 0..STREAM / chunk.len() {
            writer.write_all(&chunk).expect("writes");
        }
        writer.finish().expect("finishes");
    });
    println!("write {}", STREAM as f64 / written);
    let mut buffer = vec![0; 1 << 20];
    let read = fastest(|| {
        let mut reader = engine
            .decrypt_reader(&key_id, &context, &payload[..])
            .expect("a reader");
        while reader.read(&mut buffer).expect("reads") > 0 {}
    });
    println!("read {}", STREAM as f64 / read);
    Ok(())
}
