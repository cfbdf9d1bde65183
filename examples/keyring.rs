//! Manages a keyring file: makes keys, rotates them, and changes their states.
//!
//! ```text
//! keyring --keyring FILE --root-key-file FILE COMMAND
//!
//! init                                  make a keyring file without keys
//! create-key [KEY_ID]                   make a key with this ID, or with a random one
//! list                                  show all keys
//! versions KEY_ID                       show all versions of a key
//! rotate KEY_ID                         add a version, which seals from now on
//! disable KEY_ID                        stop sealing and opening with this key
//! enable KEY_ID                         use a disabled key again
//! schedule-deletion KEY_ID DAYS         schedule the deletion of a key, 7 to 1096 days ahead
//! cancel-deletion KEY_ID                cancel it; the key is disabled then
//! purge KEY_ID                          delete a key whose date has come
//! set-min-version KEY_ID VERSION        set the oldest version that still opens
//! destroy-versions KEY_ID VERSION DAYS  destroy versions before VERSION that were replaced DAYS days ago
//! ```
//!
//! The root key file holds 32 to 64 random bytes in hex. Errors go to standard error, with exit code 1.

#[path = "support/root.rs"]
mod root;

use std::{
    env,
    error::Error,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use dekseal::{FileKeyring, KeyId, KeyState, UnixTime};

const USAGE: &str = "usage: keyring --keyring FILE --root-key-file FILE \
    init | create-key [KEY_ID] | list | versions KEY_ID | rotate KEY_ID | disable KEY_ID | enable KEY_ID | \
    schedule-deletion KEY_ID DAYS | cancel-deletion KEY_ID | purge KEY_ID | set-min-version KEY_ID VERSION | \
    destroy-versions KEY_ID VERSION DAYS";

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
            let id = id.first().map_or_else(KeyId::generate, |id| id.parse())?;
            keyring.update(|keys| keys.create_key(id))?;
            println!("made {id}");
        }
        ["list"] => {}
        ["versions", id] => {
            println!("{:>8}  created", "version");
            for version in keyring.keys().versions(&id.parse()?)? {
                println!("{:>8}  {}", version.key_version, date(version.created));
            }
            return Ok(());
        }
        ["rotate", id] => drop(keyring.update(|keys| keys.rotate(&id.parse()?))?),
        ["disable", id] => keyring.update(|keys| keys.disable(&id.parse()?))?,
        ["enable", id] => keyring.update(|keys| keys.enable(&id.parse()?))?,
        ["schedule-deletion", id, days] => {
            let days = days.parse().map_err(|_| "DAYS is not a number")?;
            keyring.update(|keys| keys.schedule_deletion(&id.parse()?, days))?;
        }
        ["cancel-deletion", id] => keyring.update(|keys| keys.cancel_deletion(&id.parse()?))?,
        ["set-min-version", id, version] => {
            let version = version.parse().map_err(|_| "VERSION is not a number")?;
            keyring.update(|keys| keys.set_min_version(&id.parse()?, version))?;
        }
        ["destroy-versions", id, version, days] => {
            let version = version.parse().map_err(|_| "VERSION is not a number")?;
            let days: u32 = days.parse().map_err(|_| "DAYS is not a number")?;
            let grace = Duration::from_secs(u64::from(days) * 24 * 60 * 60);
            let destroyed = keyring.update(|keys| keys.destroy_versions(&id.parse()?, version, grace))?;
            println!("destroyed {destroyed} versions");
        }
        ["purge", id] => keyring.update(|keys| keys.purge(&id.parse()?))?,
        _ => return Err(USAGE.into()),
    }
    list(&keyring);
    Ok(())
}

/// Prints the keys after each command.
fn list(keyring: &FileKeyring) {
    let heads = ["key ID", "current", "created", "minimum"];
    println!(
        "{:36}  {:>8}  {:20}  {:>8}  state",
        heads[0], heads[1], heads[2], heads[3]
    );
    for key in keyring.keys().list() {
        let state = match key.state {
            KeyState::Enabled => "enabled".to_owned(),
            KeyState::Disabled => "disabled".to_owned(),
            KeyState::PendingDeletion { at } => format!("pending deletion on {}", date(Some(at))),
            other => format!("{other:?}"),
        };
        println!(
            "{}  {:>8}  {:20}  {:>8}  {state}",
            key.key_id,
            key.current_version,
            date(key.current_created),
            key.min_version
        );
    }
    println!("generation {}", keyring.generation());
}

fn date(time: Option<UnixTime>) -> String {
    time.map_or_else(String::new, |time| {
        humantime::format_rfc3339_seconds(SystemTime::from(time)).to_string()
    })
}
