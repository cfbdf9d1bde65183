//! `dekseal keyring check`.

use std::{collections::BTreeMap, path::Path};

use dekseal::{Error, ErrorKind, KeyId};
use serde_json::json;

use super::held::Held;
use crate::{
    failure::Failure,
    globals::Globals,
    keyring::{Address, AnyKeyring},
    output,
    root::Root,
};

pub(super) fn run(
    address: &Address,
    roots: &[Root],
    snapshot: Option<&Path>,
    globals: &Globals,
) -> Result<(), Failure> {
    let mut faults = BTreeMap::new();
    if let Some(snapshot) = snapshot {
        for behind in Held::open(address, roots, snapshot)?.rolled_back()? {
            let name = behind.map_or_else(|| address.to_string(), |key_id| key_id.to_string());
            faults.insert(name, "it is older than in the snapshot".to_owned());
        }
    }
    let (mut keys, mut versions, mut generation) = (0_u64, 0_u64, None);
    match AnyKeyring::open(address, roots) {
        Ok(keyring) => {
            if let AnyKeyring::File(file) = &keyring {
                generation = Some(file.generation());
            }
            for key_id in keyring.key_ids()? {
                match versions_of(&keyring, &key_id) {
                    Ok(count) => {
                        keys = keys.saturating_add(1);
                        versions = versions.saturating_add(count);
                    }
                    Err(error) if error.kind() == ErrorKind::UnknownKey => {}
                    Err(error) => {
                        faults.entry(key_id.to_string()).or_insert_with(|| error.to_string());
                    }
                }
            }
        }
        // A file that was rolled back to nothing.
        Err(_) if !faults.is_empty() => {}
        Err(failure) => return Err(failure),
    }
    let value = json!({ "keys": keys, "versions": versions, "generation": generation, "faults": faults });
    output::print(globals.json, &value, |out| {
        for (name, fault) in &faults {
            writeln!(out, "{name}: {fault}")?;
        }
        let authentic = if faults.is_empty() { "authentic, " } else { "" };
        write!(out, "{address}: {authentic}keys: {keys}, versions: {versions}")?;
        // A store has a generation for each key.
        match generation {
            Some(generation) => writeln!(out, ", generation: {generation}"),
            None => writeln!(out),
        }
    })?;
    if faults.is_empty() {
        return Ok(());
    }
    let hint = match snapshot {
        Some(snapshot) => {
            let snapshot = snapshot.display();
            format!("decide between `dekseal keyring write-back --snapshot {snapshot}` and `adopt`")
        }
        None => "compare with a snapshot, or restore a backup".to_owned(),
    };
    Err(Failure::key(format!(
        "what the keyring has is not what it should have; {hint}"
    )))
}

fn versions_of(keyring: &AnyKeyring, key_id: &KeyId) -> Result<u64, Error> {
    Ok(keyring.versions(key_id)?.len() as u64)
}
