//! A host of the wire API without a network: requests on standard input, responses on standard output, a line each.
//!
//! ```text
//! kms_stdio --cmk KEY_ID:VERSION:HEX [--cmk …]
//! kms_stdio --keyring FILE --root-key-file FILE
//! {"method":"POST","path":"/v1.0/p/kms/create-datakey","body":"{…}"}
//! {"status":200,"body":"{…}"}
//! ```
//!
//! HEX is the material of the CMK, 32 to 64 bytes. It stands in the process list for all to see: a tool for trying things, no
//! place for a real key. A keyring file is one that `examples/keyring.rs` makes; the root key file holds the root's material in
//! hex; what others change in it counts from the next line on. It ends with the input; what it cannot read ends it with exit code 2.

#[path = "support/root.rs"]
mod root;

use std::{
    env,
    error::Error,
    io::{self, BufRead, Write},
    process::ExitCode,
};

use dekseal::{CmkVersion, Engine, FileKeyring, Keyring, MemoryKeyring, api};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    path: String,
    body: Zeroizing<String>,
}

#[derive(Serialize)]
struct Response<'a> {
    status: u16,
    body: &'a str,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kms_stdio: {error}");
            ExitCode::from(2)
        }
    }
}

const USAGE: &str = "usage: kms_stdio --cmk KEY_ID:VERSION:HEX [--cmk …] | --keyring FILE --root-key-file FILE";

fn run() -> Result<(), Box<dyn Error>> {
    let (mut cmks, mut keyring, mut root) = (Vec::new(), None, None);
    let mut arguments = env::args().skip(1);
    while let Some(option) = arguments.next() {
        match (option.as_str(), arguments.next()) {
            ("--cmk", Some(value)) => cmks.push(cmk(&value).map_err(|error| format!("--cmk: {error}"))?),
            ("--keyring", Some(file)) => keyring = Some(file),
            ("--root-key-file", Some(file)) => root = Some(file),
            _ => return Err(USAGE.into()),
        }
    }
    match (keyring, root) {
        (None, None) => serve(&Engine::new(MemoryKeyring::from_versions(cmks)?), |_| Ok(false)),
        (Some(keyring), Some(root)) if cmks.is_empty() => serve(
            &Engine::new(FileKeyring::open(keyring, root::root(root)?)?),
            FileKeyring::refresh,
        ),
        _ => Err(USAGE.into()),
    }
}

fn serve<K: Keyring>(
    engine: &Engine<K>,
    refresh: impl Fn(&K) -> Result<bool, dekseal::Error>,
) -> Result<(), Box<dyn Error>> {
    let mut output = io::stdout().lock();
    for (index, line) in io::stdin().lock().lines().enumerate() {
        let number = index + 1;
        let line = Zeroizing::new(line?);
        let request: Request = serde_json::from_str(&line).map_err(|error| format!("line {number}: {error}"))?;
        refresh(engine.keyring())?;
        let response = api::handle(engine, &request.method, &request.path, request.body.as_bytes());
        let answer = Response {
            status: response.status(),
            body: response.body(),
        };
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

/// No message repeats the material.
fn cmk(argument: &str) -> Result<CmkVersion, Box<dyn Error>> {
    let mut parts = argument.splitn(3, ':');
    let (Some(key_id), Some(version), Some(material)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("not KEY_ID:VERSION:HEX".into());
    };
    let version = version.parse().map_err(|_| "the version is not a number of 32 bits")?;
    let material = Zeroizing::new(hex::decode(material).map_err(|_| "the material is not hex")?);
    Ok(CmkVersion::new(key_id.parse()?, version, &material)?)
}
