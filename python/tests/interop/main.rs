//! The Rust side of tests/test_interop.py: does over a keyring what lines on the standard input say, and answers each
//! with a line.
//!
//! ```text
//! interop file|sqlite|postgres LOCATION ROOT_FILE
//! create KEY · rotate KEY · seal KEY CONTEXT DEK · open KEY CONTEXT BLOB · rewrap_dek KEY CONTEXT BLOB
//! encrypt KEY CONTEXT DATA · decrypt KEY CONTEXT PAYLOAD · rewrap KEY CONTEXT PAYLOAD
//! write KEY CONTEXT PATH DATA · read KEY CONTEXT PATH
//! ```
//!
//! Bytes are hex, `-` stands for none. A context is `key=value,key=value`.

use std::{
    env,
    error::Error,
    fs::File,
    io::{self, BufRead as _, Read as _, Write as _},
    path::Path,
};

use base16ct::lower::encode_string;
use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, FileKeyring, KeyId, Keyring, Keyset, SealedDek, StoreKeyring,
    store::{Call, KeyStore},
};
use dekseal_postgres::{Options, PostgresStore};
use dekseal_sqlite::SqliteStore;

type Answer = Result<String, Box<dyn Error>>;
type Change = fn(&mut Keyset, &KeyId) -> Result<(), dekseal::Error>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [kind, location, root] = &arguments[..] else {
        return Err("usage: interop file|sqlite|postgres LOCATION ROOT_FILE".into());
    };
    let root = base16ct::mixed::decode_vec(std::fs::read_to_string(root)?.trim())?;
    let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &root)?;
    match kind.as_str() {
        "file" => {
            let keyring = match Path::new(location).exists() {
                true => FileKeyring::open(location, root)?,
                false => FileKeyring::create(location, root)?,
            };
            answer(Engine::new(keyring), |keyring, key_id, change| {
                keyring.update(|keys| change(keys, key_id))
            })
        }
        "sqlite" => over_store(SqliteStore::open(location)?, root),
        _ => {
            let store = PostgresStore::new(Options::new(location)?)?;
            store.create_schema(&Call::within(std::time::Duration::from_secs(5)))?;
            over_store(store, root)
        }
    }
}

fn over_store<S: KeyStore>(store: S, root: CmkVersion) -> Result<(), Box<dyn Error>> {
    answer(
        Engine::new(StoreKeyring::new(store, root)),
        |keyring, key_id, change| keyring.update(key_id, |keys| change(keys, key_id)),
    )
}

fn answer<K: Keyring>(
    engine: Engine<K>,
    update: impl Fn(&K, &KeyId, Change) -> Result<(), dekseal::Error>,
) -> Result<(), Box<dyn Error>> {
    // The keyring is open, or made.
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match run(&engine, &update, &words) {
            Ok(answer) => answer,
            Err(error) => format!("error {error}"),
        };
        println!("{answer}");
        io::stdout().flush()?;
    }
    Ok(())
}

fn run<K: Keyring>(
    engine: &Engine<K>,
    update: &impl Fn(&K, &KeyId, Change) -> Result<(), dekseal::Error>,
    words: &[&str],
) -> Answer {
    let (operation, key_id) = (words[0], words[1].parse()?);
    let change: Option<Change> = match operation {
        "create" => Some(|keys, key_id| keys.create_key(*key_id)),
        "rotate" => Some(|keys, key_id| keys.rotate(key_id).map(drop)),
        _ => None,
    };
    if let Some(change) = change {
        update(engine.keyring(), &key_id, change)?;
        return Ok("done".into());
    }
    let pairs = words[2].split(',').filter_map(|pair| pair.split_once('='));
    let context = EncryptionContext::from_pairs(pairs)?;
    let last = words[words.len() - 1];
    let bytes = || match last {
        "-" => Ok(Vec::new()),
        hex => base16ct::mixed::decode_vec(hex),
    };
    Ok(match operation {
        "seal" => {
            let dek = Dek::from_bytes(bytes()?.as_slice().try_into()?);
            encode_string(engine.encrypt_dek(&key_id, &context, &dek)?.as_bytes())
        }
        "open" => {
            let dek = engine.decrypt_dek(&key_id, &context, &SealedDek::from_bytes(&bytes()?)?)?;
            encode_string(dek.expose_secret())
        }
        "rewrap_dek" => {
            let rewrapped = engine.rewrap_dek(&key_id, &context, &SealedDek::from_bytes(&bytes()?)?)?;
            encode_string(rewrapped.sealed().as_bytes())
        }
        "encrypt" => encode_string(&engine.encrypt(&key_id, &context, &bytes()?)?),
        "decrypt" => encode_string(&engine.decrypt(&key_id, &context, &bytes()?)?),
        "rewrap" => {
            let mut payload = bytes()?;
            engine.rewrap(&key_id, &context, &key_id, &mut payload)?;
            encode_string(&payload)
        }
        "write" => {
            let mut writer = engine.encrypt_writer(&key_id, &context, File::create(words[3])?)?;
            writer.write_all(&bytes()?)?;
            writer.finish()?;
            "done".into()
        }
        "read" => {
            let mut data = Vec::new();
            let reader = engine.decrypt_reader(&key_id, &context, File::open(words[3])?);
            reader?.read_to_end(&mut data)?;
            encode_string(&data)
        }
        _ => return Err("unknown operation".into()),
    })
}
