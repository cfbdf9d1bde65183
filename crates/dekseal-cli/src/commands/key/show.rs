//! Prints keys.

use std::io::{self, Write};

use dekseal::{KeyId, KeyInfo, KeyState, VersionInfo};
use serde::Serialize;

use crate::{failure::Failure, globals::Globals, keyring::AnyKeyring, output};

/// A key as JSON.
#[derive(Serialize)]
struct Key<'a> {
    key_id: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    purge_from: Option<String>,
    current_version: u32,
    current_created: Option<String>,
    min_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<Vec<Version>>,
}

#[derive(Serialize)]
struct Version {
    key_version: u32,
    created: Option<String>,
}

impl<'a> Key<'a> {
    fn of(key: &'a KeyInfo) -> Self {
        let (state, purge_from) = match key.state {
            KeyState::Enabled => ("enabled", None),
            KeyState::Disabled => ("disabled", None),
            KeyState::PendingDeletion { at } => ("pending_deletion", Some(output::date(at))),
            _ => ("unknown", None),
        };
        Self {
            key_id: key.key_id.as_str(),
            state,
            purge_from,
            current_version: key.current_version,
            current_created: key.current_created.map(output::date),
            min_version: key.min_version,
            versions: None,
        }
    }

    fn state_in_words(&self) -> String {
        match &self.purge_from {
            Some(date) => format!("pending deletion, can be purged from {date} on"),
            None => self.state.to_owned(),
        }
    }
}

impl Version {
    fn of(version: &VersionInfo) -> Self {
        Self {
            key_version: version.key_version,
            created: version.created.map(output::date),
        }
    }
}

fn row(out: &mut dyn Write, cells: [&str; 5]) -> io::Result<()> {
    let [key_id, version, created, minimum, state] = cells;
    writeln!(out, "{key_id:36}  {version:>7}  {created:10}  {minimum:>7}  {state}")
}

/// Prints all keys: a table, or a line of JSON for each.
pub(super) fn list(keyring: &AnyKeyring, globals: &Globals) -> Result<(), Failure> {
    let mut keys = Vec::new();
    for key_id in keyring.key_ids()? {
        match keyring.info(&key_id) {
            Ok(key) => keys.push(key),
            // It was purged since the list was read.
            Err(error) if error.kind() == dekseal::ErrorKind::UnknownKey => {}
            Err(error) => return Err(error.into()),
        }
    }
    output::write(|out| {
        if globals.json {
            return keys.iter().try_for_each(|key| output::line(out, &Key::of(key)));
        }
        row(out, ["key ID", "version", "created", "minimum", "state"])?;
        keys.iter().try_for_each(|key| {
            let key = Key::of(key);
            let (version, minimum) = (key.current_version.to_string(), key.min_version.to_string());
            // The day alone, and a short word for the state, so that a row fits 80 columns.
            let created = key.current_created.as_deref().and_then(|created| created.get(..10));
            let state = if key.purge_from.is_some() { "pending" } else { key.state };
            row(out, [key.key_id, &version, created.unwrap_or(""), &minimum, state])
        })
    })
}

/// Prints one key with its versions.
pub(super) fn show(keyring: &AnyKeyring, key_id: &KeyId, globals: &Globals) -> Result<(), Failure> {
    let info = keyring.info(key_id)?;
    let versions: Vec<_> = keyring.versions(key_id)?.iter().map(Version::of).collect();
    let key = Key {
        versions: Some(versions),
        ..Key::of(&info)
    };
    output::print(globals.json, &key, |out| {
        writeln!(out, "key      {key_id}")?;
        writeln!(out, "state    {}", key.state_in_words())?;
        writeln!(out, "version  {}, which seals", key.current_version)?;
        writeln!(out, "minimum  {}, the oldest that opens", key.min_version)?;
        writeln!(out)?;
        writeln!(out, "version  created")?;
        key.versions.iter().flatten().try_for_each(|version| {
            let created = version.created.as_deref().unwrap_or("");
            writeln!(out, "{:>7}  {created}", version.key_version)
        })
    })
}

/// Prints the state of a key after it was changed.
pub(super) fn state(keyring: &AnyKeyring, key_id: &KeyId, globals: &Globals) -> Result<(), Failure> {
    let info = keyring.info(key_id)?;
    let key = Key::of(&info);
    output::print(globals.json, &key, |out| {
        writeln!(out, "{key_id} is {}", key.state_in_words())
    })
}
