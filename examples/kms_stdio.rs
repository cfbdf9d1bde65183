//! Serves the KMS API without a network: reads one request per line from standard input, and writes one response per
//! line.
//!
//! ```text
//! kms_stdio --cmk-file FILE
//! kms_stdio --keyring FILE --root-key-file FILE
//! {"method":"POST","path":"/v1.0/p/kms/create-datakey","body":"{…}"}
//! {"status":200,"body":"{…}"}
//! ```
//!
//! A CMK file has one line `KEY_ID:VERSION:HEX` for each CMK version, where HEX is 32 to 64 bytes of material. `--cmk
//! KEY_ID:VERSION:HEX` passes a version on the command line. Use it only for experiments: every user of the machine can
//! read the command line.
//!
//! The command `dekseal`, in `crates/dekseal-cli`, makes a keyring file. The root key file holds the material of the
//! root in hex. Each line is answered with the keys that the keyring file has at that time.
//!
//! The program ends at the end of the input. If it cannot read a line, it exits with code 2.

#[path = "support/root.rs"]
mod root;

use std::{
    env,
    error::Error,
    fs,
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

const USAGE: &str = "usage: kms_stdio --cmk-file FILE | --keyring FILE --root-key-file FILE";

fn run() -> Result<(), Box<dyn Error>> {
    let (mut cmks, mut keyring, mut root) = (Vec::new(), None, None);
    let mut arguments = env::args().skip(1);
    while let Some(option) = arguments.next() {
        match (option.as_str(), arguments.next()) {
            ("--cmk", Some(value)) => cmks.push(cmk(&value).map_err(|error| format!("--cmk: {error}"))?),
            ("--cmk-file", Some(file)) => cmks.extend(cmk_file(&file).map_err(|error| format!("--cmk-file: {error}"))?),
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

/// Reads the CMKs of a file, one from each line.
fn cmk_file(file: &str) -> Result<Vec<CmkVersion>, Box<dyn Error>> {
    let text = Zeroizing::new(fs::read_to_string(file)?);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| cmk(line.trim()).map_err(|error| format!("line {}: {error}", at + 1).into()))
        .collect()
}

/// Parses a CMK. No error message contains the material.
fn cmk(argument: &str) -> Result<CmkVersion, Box<dyn Error>> {
    let mut parts = argument.splitn(3, ':');
    let (Some(key_id), Some(version), Some(material)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("not KEY_ID:VERSION:HEX".into());
    };
    let version = version.parse().map_err(|_| "the version is not a number of 32 bits")?;
    let material = Zeroizing::new(hex::decode(material).map_err(|_| "the material is not hex")?);
    Ok(CmkVersion::new(key_id.parse()?, version, &material)?)
}
