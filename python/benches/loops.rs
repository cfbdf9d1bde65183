//! The Rust side of `python/bench`: the loops that the column functions and the streams of Python are compared with, on
//! one thread.
//!
//! For each line of its input, the name of a loop, it runs that loop once and prints the nanoseconds. The argument is a
//! file to write.

use std::{
    fs::File,
    hint::black_box,
    io::{self, BufRead as _, Cursor, Read, Seek, Write},
    time::Instant,
};

use dekseal::{EncryptionContext, Engine, KeyId, Keyset, MemoryKeyring, SealedDek, payload::PayloadSeekReader};

const ROWS: usize = 20_000;
const STREAM: usize = 32 << 20;
const CHUNK: usize = 1 << 20;

fn contexts() -> impl Iterator<Item = EncryptionContext> {
    (0..ROWS)
        .map(|row| EncryptionContext::from_pairs([("table", "patient"), ("row", &row.to_string())]).expect("a context"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    let mut keys = Keyset::new();
    keys.create_key(key_id)?;
    let engine = Engine::new(MemoryKeyring::new(keys));
    let create = |context| {
        engine
            .create_dek(&key_id, &context)
            .map(|(_, sealed)| *sealed.as_bytes())
    };
    let blobs = contexts().map(create).collect::<Result<Vec<_>, _>>()?;
    engine.keyring().update(|keys| keys.rotate(&key_id))?;

    let none = EncryptionContext::none();
    let write = |target: &mut dyn Write| -> io::Result<()> {
        let chunk = vec![7; CHUNK];
        let mut writer = engine.encrypt_writer(&key_id, &none, target)?;
        for _ in 0..STREAM / CHUNK {
            writer.write_all(&chunk)?;
        }
        writer.finish().map(drop)
    };
    // With random access, as Python's file objects have it.
    fn read(mut reader: PayloadSeekReader<impl Read + Seek>) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        for _ in 0..STREAM / CHUNK {
            reader.read_exact(&mut buffer)?;
        }
        // At the end the last segment is verified as such.
        reader.read(&mut buffer).map(drop)
    }

    let data = [7; 100];
    let (mut payloads, mut stream) = (Vec::new(), Vec::new());
    let path = std::env::args().nth(1).ok_or("the path of a file to write")?;
    write(&mut stream)?;
    std::fs::write(&path, &stream)?;
    for name in io::stdin().lock().lines() {
        let begun = Instant::now();
        match &name?[..] {
            "rewrap" => {
                for (context, blob) in contexts().zip(&blobs) {
                    let sealed = SealedDek::from_bytes(blob)?;
                    black_box(engine.rewrap_dek(&key_id, &context, &sealed)?);
                }
            }
            "open" => {
                for (context, blob) in contexts().zip(&blobs) {
                    let sealed = SealedDek::from_bytes(blob)?;
                    black_box(engine.decrypt_dek(&key_id, &context, &sealed)?);
                }
            }
            "encrypt" => {
                let encrypted = contexts().map(|context| engine.encrypt(&key_id, &context, &data));
                payloads = encrypted.collect::<Result<Vec<_>, _>>()?;
            }
            "decrypt" => {
                for (context, payload) in contexts().zip(&payloads) {
                    black_box(engine.decrypt(&key_id, &context, payload)?);
                }
            }
            "write to a file" => write(&mut File::create("/dev/null")?)?,
            "read of a file" => read(engine.decrypt_seek_reader(&key_id, &none, File::open(&path)?)?)?,
            "write to memory" => {
                stream.clear();
                write(&mut stream)?;
            }
            "read of memory" => read(engine.decrypt_seek_reader(&key_id, &none, Cursor::new(&stream[..]))?)?,
            other => return Err(other.into()),
        }
        println!("{}", begun.elapsed().as_nanos());
    }
    Ok(())
}
