//! Serves the KMS API over HTTP with the keys of a keyring file.
//!
//! ```text
//! dekseal-http KEYRING ROOT_KEY_FILE ADDRESS [REFRESH_SECONDS]
//! ```
//!
//! `cargo run --example keyring` makes the keyring file. The root key file holds the material of the root in hex. The
//! program prints the address that it listens on. It refreshes the keyring file every 10 seconds, or every
//! REFRESH_SECONDS.
//!
//! The program does not authenticate callers and does not speak TLS. Listen on a loopback address behind a proxy that
//! does both, or add both here: `docs/guide/kms-api.md` lists what a host adds.

mod kms;

use std::{
    env,
    error::Error,
    fmt, fs,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use dekseal::{CmkVersion, Engine, FileKeyring, zeroize::Zeroizing};
use tokio::net::TcpListener;

const USAGE: &str = "usage: dekseal-http KEYRING ROOT_KEY_FILE ADDRESS [REFRESH_SECONDS]";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(format_args!("{error}"));
            ExitCode::from(1)
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let (keyring, root_file, address, seconds) = match arguments.as_slice() {
        [keyring, root_file, address] => (keyring, root_file, address, "10"),
        [keyring, root_file, address, seconds] => (keyring, root_file, address, seconds.as_str()),
        _ => return Err(USAGE.into()),
    };
    let interval = seconds.parse().map(Duration::try_from_secs_f64)??;
    let engine = Arc::new(Engine::new(FileKeyring::open(keyring, root(root_file)?)?));
    refresh(Arc::clone(&engine), interval);
    let listener = TcpListener::bind(address).await?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    Ok(axum::serve(listener, kms::router(engine)).await?)
}

/// The root CMK. All examples give it this ID.
fn root(path: &str) -> Result<CmkVersion, Box<dyn Error>> {
    let digits = Zeroizing::new(fs::read_to_string(path).map_err(|error| format!("root key file: {error}"))?);
    let material = base16ct::mixed::decode_vec(digits.trim()).map_err(|_| "root key file: not hex")?;
    Ok(CmkVersion::new(
        "00000000-0000-0000-0000-00000000root".parse()?,
        0,
        &Zeroizing::new(material),
    )?)
}

/// Reads changes of the keyring file, on its own thread because reading a file blocks.
fn refresh(engine: Arc<Engine<FileKeyring>>, interval: Duration) {
    thread::spawn(move || {
        loop {
            thread::sleep(interval);
            if let Err(error) = engine.keyring().refresh() {
                report(format_args!("the keys stay as they were: {error}"));
            }
        }
    });
}

/// `eprintln!` panics if standard error is closed, which would end the thread above.
fn report(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "dekseal-http: {message}");
}
