//! Manages a keyring file: makes keys, rotates them, and changes their states.
//!
//! ```text
//! keyring --keyring FILE --root-key-file FILE COMMAND
//!
//! init                              make a keyring file without keys
//! create-key [KEY_ID]               make a key with this ID, or with a random one
//! list                              show all keys
//! rotate KEY_ID                     add a version, which seals from now on
//! disable KEY_ID                    stop sealing and opening with this key
//! enable KEY_ID                     use a disabled key again
//! schedule-deletion KEY_ID DAYS     schedule the deletion of a key, 7 to 1096 days ahead
//! cancel-deletion KEY_ID            cancel it; the key is disabled then
//! set-min-version KEY_ID VERSION    set the lowest version that still opens
//! purge KEY_ID                      delete a key whose date has come
//! ```
//!
//! The root key file holds 32 to 64 random bytes in hex. Errors go to standard error, with exit code 1.

#[path = "support/root.rs"]
mod root;

use std::{
    env,
    error::Error,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dekseal::{FileKeyring, KeyId, KeyState};

const USAGE: &str = "usage: keyring --keyring FILE --root-key-file FILE \
    init | create-key [KEY_ID] | list | rotate KEY_ID | disable KEY_ID | enable KEY_ID | \
    schedule-deletion KEY_ID DAYS | cancel-deletion KEY_ID | set-min-version KEY_ID VERSION | purge KEY_ID";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyring: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprintln!("  because: {error}");
                source = error.source();
            }
            ExitCode::from(1)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut file, mut root_file, mut words) = (None, None, Vec::new());
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--keyring" => file = arguments.next(),
            "--root-key-file" => root_file = arguments.next(),
            _ => words.push(argument),
        }
    }
    let (Some(file), Some(root_file)) = (file, root_file) else {
        return Err(USAGE.into());
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words == ["init"] {
        FileKeyring::create(&file, root::root(root_file)?)?;
        println!("made {file}");
        return Ok(());
    }
    let keyring = FileKeyring::open(file, root::root(root_file)?)?;
    match words.as_slice() {
        ["create-key", id @ ..] if id.len() < 2 => {
            let id = id.first().map_or_else(random_id, |id| Ok(id.parse()?))?;
            keyring.update(|keys| keys.create_key(id))?;
            println!("made {id}");
        }
        ["list"] => {}
        ["rotate", id] => drop(keyring.update(|keys| keys.rotate(&id.parse()?))?),
        ["disable", id] => keyring.update(|keys| keys.disable(&id.parse()?))?,
        ["enable", id] => keyring.update(|keys| keys.enable(&id.parse()?))?,
        ["schedule-deletion", id, days] => {
            let (days, now) = (days.parse().map_err(|_| "DAYS is not a number")?, now()?);
            keyring.update(|keys| keys.schedule_deletion(&id.parse()?, days, now))?;
        }
        ["cancel-deletion", id] => keyring.update(|keys| keys.cancel_deletion(&id.parse()?))?,
        ["set-min-version", id, version] => {
            let version = version.parse().map_err(|_| "VERSION is not a number")?;
            keyring.update(|keys| keys.set_min_version(&id.parse()?, version))?;
        }
        ["purge", id] => {
            let now = now()?;
            keyring.update(|keys| keys.purge(&id.parse()?, now))?;
        }
        _ => return Err(USAGE.into()),
    }
    list(&keyring);
    Ok(())
}

/// Prints the keys after each command.
fn list(keyring: &FileKeyring) {
    println!("{:36}  {:>8}  {:>8}  state", "key ID", "current", "minimum");
    for key in keyring.keys().list() {
        let state = match key.state {
            KeyState::Enabled => "enabled".to_owned(),
            KeyState::Disabled => "disabled".to_owned(),
            KeyState::PendingDeletion { at } => {
                let at = UNIX_EPOCH + Duration::from_secs(at);
                format!("pending deletion on {}", humantime::format_rfc3339_seconds(at))
            }
            other => format!("{other:?}"),
        };
        println!(
            "{}  {:>8}  {:>8}  {state}",
            key.key_id, key.current_version, key.min_version
        );
    }
    println!("generation {}", keyring.generation());
}

fn random_id() -> Result<KeyId, Box<dyn Error>> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    let hex = hex::encode(bytes);
    let [a, b, c, d, e] = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(format!("{a}-{b}-{c}-{d}-{e}").parse()?)
}

/// Seconds since 1970-01-01 00:00 UTC.
fn now() -> Result<u64, Box<dyn Error>> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
