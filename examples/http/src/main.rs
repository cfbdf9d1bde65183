//! The KMS API from an HTTP server, under the keys of a keyring file.
//!
//! ```text
//! dekseal-http KEYRING ROOT_KEY_FILE ADDRESS
//! ```
//!
//! `cargo run --example keyring` makes the keyring file; the root key file holds the root's material in hex. It says on standard output
//! where it listens.
//!
//! It knows no callers and speaks no TLS, so that ADDRESS is for a loopback interface, behind a proxy that does both, or this program is
//! where they are built in: `docs/guide/kms-api.md` says what a host adds.

mod kms;

use std::{env, error::Error, fs, process::ExitCode, sync::Arc, thread, time::Duration};

use dekseal::{CmkVersion, Engine, FileKeyring, zeroize::Zeroizing};
use tokio::net::TcpListener;

const USAGE: &str = "usage: dekseal-http KEYRING ROOT_KEY_FILE ADDRESS";

/// How long a change to the keyring file may go unnoticed.
const REFRESH: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dekseal-http: {error}");
            ExitCode::from(1)
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [keyring, root_file, address] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let engine = Arc::new(Engine::new(FileKeyring::open(keyring, root(root_file)?)?));
    refresh(Arc::clone(&engine));
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, kms::router(engine)).await?)
}

/// The root CMK, by the ID that the examples call it.
fn root(path: &str) -> Result<CmkVersion, Box<dyn Error>> {
    let digits = Zeroizing::new(fs::read_to_string(path).map_err(|error| format!("root key file: {error}"))?);
    let material = base16ct::mixed::decode_vec(digits.trim()).map_err(|_| "root key file: not hex")?;
    Ok(CmkVersion::new(
        "00000000-0000-0000-0000-00000000root".parse()?,
        0,
        &Zeroizing::new(material),
    )?)
}

/// Takes up what others change in the keyring file. A thread of its own, since reading a file blocks.
fn refresh(engine: Arc<Engine<FileKeyring>>) {
    thread::spawn(move || {
        loop {
            thread::sleep(REFRESH);
            if let Err(error) = engine.keyring().refresh() {
                eprintln!("dekseal-http: the keys stay as they were: {error}");
            }
        }
    });
}
