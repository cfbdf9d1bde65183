//! `dekseal key`.

mod show;

use std::time::Duration;

use dekseal::{KeyId, KeyState, StoreSettings, UnixTime};
use serde_json::json;

use crate::{
    confirm::Yes,
    duration,
    failure::Failure,
    globals::Globals,
    keyring::AnyKeyring,
    output,
    root::{Kind, material},
};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  dekseal key list")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a key, and print its ID
    #[command(after_help = "\
Examples:
  dekseal key create
  KEY_ID=$(dekseal key create)")]
    Create {
        /// The ID of the key, 36 characters; by default a random UUID
        key_id: Option<KeyId>,
    },

    /// Add a key, or a version of a key, whose material was made elsewhere
    ///
    /// The material is 32 to 64 random bytes, raw or in hex. Never import a password, or the key of another system that
    /// stays in use there.
    #[command(after_help = "\
Examples:
  dekseal key import --material file:key.hex
  dekseal key import --material 'command:vault kv get -field=key app' $KEY_ID
  dekseal key import --material fd:3 --as-version $KEY_ID 3<version-1.bin")]
    Import {
        /// The ID of the key; by default a random UUID
        key_id: Option<KeyId>,
        /// Where the material is: file:PATH, env:NAME, fd:N, command:COMMAND or credential:NAME
        #[arg(long, value_name = "SOURCE")]
        material: String,
        /// Add the material as the next version of an existing key
        #[arg(long, requires = "key_id")]
        as_version: bool,
    },

    /// List the keys
    #[command(after_help = "\
Examples:
  dekseal key list
  dekseal key list --json | jq -r 'select(.state == \"enabled\").key_id'")]
    List,

    /// Show a key and its versions
    #[command(after_help = "\
Example:
  dekseal key show 0d0466b0-e727-4d9c-b35d-f84bb474a37f")]
    Show {
        /// The ID of the key
        key_id: KeyId,
    },

    /// Add a version to a key, which seals from now on
    ///
    /// Older versions still open. Other processes take the version up when they next refresh their keyring.
    #[command(after_help = "\
Example:
  dekseal key rotate 0d0466b0-e727-4d9c-b35d-f84bb474a37f")]
    Rotate {
        /// The ID of the key
        key_id: KeyId,
    },

    /// Stop sealing and opening with a key, until it is enabled again
    #[command(after_help = "\
Example:
  dekseal key disable 0d0466b0-e727-4d9c-b35d-f84bb474a37f")]
    Disable {
        /// The ID of the key
        key_id: KeyId,
    },

    /// Use a disabled key again
    #[command(after_help = "\
Example:
  dekseal key enable 0d0466b0-e727-4d9c-b35d-f84bb474a37f")]
    Enable {
        /// The ID of the key
        key_id: KeyId,
    },

    /// Schedule the deletion of a key
    ///
    /// The key neither seals nor opens from now on. It is not deleted before `key purge`, which refuses until the date
    /// has come. Until then, `key cancel-deletion` keeps it.
    #[command(after_help = "\
Example:
  dekseal key delete --days 30 0d0466b0-e727-4d9c-b35d-f84bb474a37f")]
    Delete {
        /// The ID of the key
        key_id: KeyId,
        /// The number of days until the key can be purged, 7 to 1096
        #[arg(long, default_value_t = 30)]
        days: u32,
        #[command(flatten)]
        yes: Yes,
    },

    /// Cancel a scheduled deletion; the key is disabled then
    #[command(after_help = "\
Example:
  dekseal key cancel-deletion 0d0466b0-e727-4d9c-b35d-f84bb474a37f")]
    CancelDeletion {
        /// The ID of the key
        key_id: KeyId,
    },

    /// Delete a key whose date has come; this cannot be undone
    #[command(after_help = "\
Example:
  dekseal key purge 0d0466b0-e727-4d9c-b35d-f84bb474a37f")]
    Purge {
        /// The ID of the key
        key_id: KeyId,
        #[command(flatten)]
        yes: Yes,
    },

    /// Set the oldest version that still opens; this can be undone
    #[command(after_help = "\
Example:
  dekseal key set-min-version 0d0466b0-e727-4d9c-b35d-f84bb474a37f 1")]
    SetMinVersion {
        /// The ID of the key
        key_id: KeyId,
        /// The oldest version that still opens
        version: u32,
    },

    /// Destroy the material of old versions; this cannot be undone
    ///
    /// The versions must be below the minimum version. A process that has not seen a rotation yet goes on sealing under
    /// the old version, so a version is destroyed only if its successor is older than the grace period. Sweep after
    /// that period, and destroy after the sweep.
    #[command(after_help = "\
Example:
  dekseal key destroy-versions --before 1 --grace 1day $KEY_ID")]
    DestroyVersions {
        /// The ID of the key
        key_id: KeyId,
        /// The first version that is kept
        #[arg(long, value_name = "VERSION")]
        before: u32,
        /// The time after a rotation in which processes may still seal under the older version [default: that of a
        /// fleet with default settings]
        #[arg(long, value_parser = duration::parse, value_name = "TIME")]
        grace: Option<Duration>,
        /// Destroy without a grace period, for example because a version has leaked
        #[arg(long, conflicts_with = "grace")]
        no_grace: bool,
        #[command(flatten)]
        yes: Yes,
    },
}

pub(crate) fn run(args: Args, globals: &Globals) -> Result<(), Failure> {
    let keyring = globals.open()?;
    match args.command {
        Command::Create { key_id } => {
            let key_id = key_id.map_or_else(KeyId::generate, Ok)?;
            keyring.update(&key_id, |keys| keys.create_key(key_id))?;
            made(&key_id, globals)
        }
        Command::Import {
            key_id,
            material,
            as_version,
        } => import(&keyring, key_id, &material, as_version, globals),
        Command::List => show::list(&keyring, globals),
        Command::Show { key_id } => show::show(&keyring, &key_id, globals),
        Command::Rotate { key_id } => {
            let version = keyring.update(&key_id, |keys| keys.rotate(&key_id))?;
            seals_under(&key_id, version, globals)
        }
        Command::Disable { key_id } => {
            keyring.update(&key_id, |keys| keys.disable(&key_id))?;
            show::state(&keyring, &key_id, globals)
        }
        Command::Enable { key_id } => {
            keyring.update(&key_id, |keys| keys.enable(&key_id))?;
            show::state(&keyring, &key_id, globals)
        }
        Command::Delete { key_id, days, yes } => {
            keyring.info(&key_id)?;
            yes.or_typed(
                &format!(
                    "Key {key_id} will neither seal nor open from now on, and can be purged in {days} days. What is \
                     sealed under it cannot be read unless `dekseal key cancel-deletion` comes first."
                ),
                key_id.as_str(),
            )?;
            keyring.update(&key_id, |keys| keys.schedule_deletion(&key_id, days))?;
            show::state(&keyring, &key_id, globals)
        }
        Command::CancelDeletion { key_id } => {
            keyring.update(&key_id, |keys| keys.cancel_deletion(&key_id))?;
            show::state(&keyring, &key_id, globals)
        }
        Command::Purge { key_id, yes } => {
            let now = UnixTime::now()?;
            // Otherwise the keyring refuses, and there is nothing to ask.
            if matches!(keyring.info(&key_id)?.state, KeyState::PendingDeletion { at } if at <= now) {
                yes.or_typed(
                    &format!(
                        "Key {key_id} will be deleted with all its versions. Everything that is sealed under it is \
                         lost for ever."
                    ),
                    key_id.as_str(),
                )?;
            }
            keyring.update(&key_id, |keys| keys.purge(&key_id))?;
            let value = json!({ "key_id": key_id.as_str(), "purged": true });
            output::print(globals.json, &value, |out| writeln!(out, "{key_id} is purged"))
        }
        Command::SetMinVersion { key_id, version } => {
            keyring.update(&key_id, |keys| keys.set_min_version(&key_id, version))?;
            let value = json!({ "key_id": key_id.as_str(), "min_version": version });
            output::print(globals.json, &value, |out| {
                writeln!(out, "{key_id} opens from version {version} on")
            })
        }
        Command::DestroyVersions {
            key_id,
            before,
            grace,
            no_grace,
            yes,
        } => {
            keyring.info(&key_id)?;
            yes.or_typed(
                &format!(
                    "The material of every version of key {key_id} before version {before} will be destroyed. What is \
                     still sealed under these versions is lost for ever."
                ),
                key_id.as_str(),
            )?;
            let destroyed = keyring.update(&key_id, |keys| match no_grace {
                true => keys.force_destroy_versions(&key_id, before),
                false => keys.destroy_versions(&key_id, before, grace.unwrap_or(StoreSettings::default().grace())),
            })?;
            let value = json!({ "key_id": key_id.as_str(), "destroyed": destroyed });
            output::print(globals.json, &value, |out| {
                let versions = if destroyed == 1 { "version is" } else { "versions are" };
                writeln!(out, "{destroyed} {versions} destroyed")
            })
        }
    }
}

fn import(
    keyring: &AnyKeyring,
    key_id: Option<KeyId>,
    source: &str,
    as_version: bool,
    globals: &Globals,
) -> Result<(), Failure> {
    let material = Kind::parse("--material", source)?.read(material::KEY)?;
    match key_id.filter(|_| as_version) {
        Some(key_id) => {
            let version = keyring.update(&key_id, |keys| keys.import_version(&key_id, &material))?;
            seals_under(&key_id, version, globals)
        }
        None => {
            let key_id = key_id.map_or_else(KeyId::generate, Ok)?;
            keyring.update(&key_id, |keys| keys.import_key(key_id, &material))?;
            made(&key_id, globals)
        }
    }
}

/// Prints the ID alone, for scripts.
fn made(key_id: &KeyId, globals: &Globals) -> Result<(), Failure> {
    let value = json!({ "key_id": key_id.as_str(), "key_version": 0 });
    output::print(globals.json, &value, |out| writeln!(out, "{key_id}"))
}

fn seals_under(key_id: &KeyId, version: u32, globals: &Globals) -> Result<(), Failure> {
    let value = json!({ "key_id": key_id.as_str(), "key_version": version });
    output::print(globals.json, &value, |out| {
        writeln!(out, "{key_id} seals under version {version} from now on")
    })
}
