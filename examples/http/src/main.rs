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

use std::{env, error::Error, fs, process::ExitCode, sync::Arc, thread, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use dekseal::{Cmk, Engine, FileKeyring, api, zeroize::Zeroizing};
use tokio::net::TcpListener;

const USAGE: &str = "usage: dekseal-http KEYRING ROOT_KEY_FILE ADDRESS";

/// How long a change to the keyring file may go unnoticed.
const REFRESH: Duration = Duration::from_secs(10);

type Kms = Arc<Engine<FileKeyring>>;

// The guide kms-api shows this function, to the letter.
async fn kms(State(engine): State<Kms>, method: Method, uri: Uri, body: Result<Bytes, BytesRejection>) -> Response {
    // A body beyond the limit was not read. One that is too long by a byte stands for it, and gets the API's answer.
    let body = body.unwrap_or(Bytes::from_static(&[0; api::MAX_BODY + 1]));
    let answer = api::handle(&engine, method.as_str(), uri.path(), &body);
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, answer.body().to_owned()).into_response()
}

fn router(engine: Kms) -> Router {
    let limit = DefaultBodyLimit::max(api::MAX_BODY);
    Router::new().fallback(kms).layer(limit).with_state(engine)
}

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
    Ok(axum::serve(listener, router(engine)).await?)
}

/// The root CMK, by the ID that the examples call it.
fn root(path: &str) -> Result<Cmk, Box<dyn Error>> {
    let digits = Zeroizing::new(fs::read_to_string(path).map_err(|error| format!("root key file: {error}"))?);
    let material = base16ct::mixed::decode_vec(digits.trim()).map_err(|_| "root key file: not hex")?;
    Ok(Cmk::new(
        "00000000-0000-0000-0000-00000000root".parse()?,
        0,
        &Zeroizing::new(material),
    )?)
}

/// Takes up what others change in the keyring file. A thread of its own, since reading a file blocks.
fn refresh(engine: Kms) {
    thread::spawn(move || {
        loop {
            thread::sleep(REFRESH);
            if let Err(error) = engine.keyring().refresh() {
                eprintln!("dekseal-http: the keys stay as they were: {error}");
            }
        }
    });
}
