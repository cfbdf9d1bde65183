//! `dekseal keyring`.

mod check;
mod held;
mod root;

use std::{
    fs,
    path::{Path, PathBuf},
};

use dekseal::{FileKeyring, KeyId, StoreKeyring, store::KeyStore};
use serde_json::json;

use self::held::Held;
use crate::{
    confirm::Yes,
    failure::Failure,
    globals::Globals,
    keyring::{Address, AnyKeyring, for_store},
    output, output_file,
    root::Root,
};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  dekseal keyring check")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a keyring without keys: a file, or a table in a database
    #[command(after_help = "\
Examples:
  dekseal --keyring file:keyring.json --root file:root.key keyring create
  dekseal keyring create --keyring postgres://admin@db1/keys --root file:root")]
    Create,

    /// Read every key, and verify its authenticity
    ///
    /// With a snapshot, this also finds keys that went back to an older state.
    #[command(after_help = "\
Examples:
  dekseal keyring check
  dekseal keyring check --snapshot backup/keyring.snapshot")]
    Check {
        /// A snapshot to compare with
        #[arg(long, value_name = "FILE")]
        snapshot: Option<PathBuf>,
    },

    /// Write a snapshot: a backup, and a state to compare with later
    ///
    /// A snapshot is sealed like the keyring, so it is useless without the root.
    #[command(after_help = "\
Example:
  dekseal keyring snapshot --force backup/keyring.snapshot")]
    Snapshot {
        /// The file to write
        file: PathBuf,
        /// Replace the file if it exists, in one step
        #[arg(short, long)]
        force: bool,
    },

    /// Seal the keyring under another root
    ///
    /// --root is the new root, and --reading-root the old one. For a database, first give the new root to every process
    /// as a reading root, and then make it the root of every process. It is safe to stop this and to run it again. Take
    /// the old root away after a run that says that nothing was sealed under it.
    #[command(after_help = "\
Example:
  dekseal keyring change-root --root 'file:new.key#version=1' \\
    --reading-root file:root.key")]
    ChangeRoot {
        #[command(flatten)]
        yes: Yes,
    },

    /// After a rollback, accept what the keyring has now, and renew the snapshot
    ///
    /// Versions that only the snapshot has are lost with it. Running processes go on refusing the older state until
    /// they adopt it as well, or are started again.
    #[command(after_help = "\
Example:
  dekseal keyring adopt --snapshot backup/keyring.snapshot")]
    Adopt {
        /// The snapshot with the newer state
        #[arg(long, value_name = "FILE")]
        snapshot: PathBuf,
        #[command(flatten)]
        yes: Yes,
    },

    /// After a rollback, write back what a snapshot has
    ///
    /// Changes that were made after the rollback are lost.
    #[command(after_help = "\
Examples:
  dekseal keyring write-back --snapshot backup/keyring.snapshot
  dekseal keyring write-back --snapshot backup/keyring.snapshot $KEY_ID")]
    WriteBack {
        /// The snapshot with the newer state
        #[arg(long, value_name = "FILE")]
        snapshot: PathBuf,
        /// The keys to write back, by default all that were rolled back; a keyring file is written as a whole
        #[arg(value_name = "KEY_ID")]
        key_ids: Vec<KeyId>,
        #[command(flatten)]
        yes: Yes,
    },
}

pub(crate) fn run(args: Args, globals: &Globals) -> Result<(), Failure> {
    let (address, roots) = (globals.address()?, globals.roots()?);
    match args.command {
        Command::Create => {
            AnyKeyring::create(&address, &roots)?;
            output::print(globals.json, &json!({ "created": address.to_string() }), |out| {
                writeln!(out, "{address} is ready")
            })
        }
        Command::Check { snapshot } => check::run(&address, &roots, snapshot.as_deref(), globals),
        Command::Snapshot { file, force } => {
            let keys = write_snapshot(&address, &roots, &file, force)?;
            let value = json!({ "file": file.display().to_string(), "keys": keys });
            output::print(globals.json, &value, |out| {
                writeln!(out, "{}: keys: {keys}", file.display())
            })
        }
        Command::ChangeRoot { yes } => root::change(&address, &roots, yes, globals),
        Command::Adopt { snapshot, yes } => {
            let behind = Held::open(&address, &roots, &snapshot)?.rolled_back()?;
            if behind.is_empty() {
                return settled(globals);
            }
            yes.or_typed(
                &format!(
                    "{address} is older than the snapshot in {} places. What only the snapshot has will be lost with \
                     it.",
                    behind.len()
                ),
                "adopt",
            )?;
            let keys = write_snapshot(&address, &roots, &snapshot, true)?;
            let value = json!({ "adopted": behind.len(), "keys": keys });
            output::print(globals.json, &value, |out| {
                writeln!(out, "{}: keys: {keys}, as in {address}", snapshot.display())
            })
        }
        Command::WriteBack { snapshot, key_ids, yes } => {
            let held = Held::open(&address, &roots, &snapshot)?;
            let behind = match key_ids.is_empty() {
                true => held.rolled_back()?,
                false => key_ids.into_iter().map(Some).collect(),
            };
            if behind.is_empty() {
                return settled(globals);
            }
            yes.or_typed(
                &format!("{address} will get the state of the snapshot. Changes since the rollback will be lost."),
                "write-back",
            )?;
            for key_id in &behind {
                held.write_back(key_id.as_ref())?;
            }
            let value = json!({ "written_back": behind.len() });
            output::print(globals.json, &value, |out| {
                writeln!(out, "{address} has the state of the snapshot again")
            })
        }
    }
}

fn settled(globals: &Globals) -> Result<(), Failure> {
    output::print(globals.json, &json!({ "rolled_back": 0 }), |out| {
        writeln!(
            out,
            "the keyring is not older than the snapshot; there is nothing to do"
        )
    })
}

/// Writes a snapshot of the keyring. Returns the number of keys.
fn write_snapshot(address: &Address, roots: &[Root], file: &Path, replace: bool) -> Result<usize, Failure> {
    use std::io::Write;

    let keyring = AnyKeyring::open(address, roots)?;
    let (bytes, keys) = match (&keyring, address) {
        (AnyKeyring::File(_), Address::File(path)) => snapshot_of_file(path, roots)?,
        _ => for_store!(&keyring, _file => (Vec::new(), 0), keyring => snapshot_of_store(keyring)?),
    };
    output_file::create(file, replace, |output| {
        output
            .write_all(&bytes)
            .map_err(|error| Failure::of_io(file.display(), &error))
    })?;
    Ok(keys)
}

/// A copy of a keyring file that was seen to open.
fn snapshot_of_file(path: &Path, roots: &[Root]) -> Result<(Vec<u8>, usize), Failure> {
    let failed = |error: &std::io::Error| Failure::of_io(path.display(), error);
    let bytes = fs::read(path).map_err(|error| failed(&error))?;
    let copy = tempfile::NamedTempFile::new().map_err(|error| failed(&error))?;
    fs::write(copy.path(), &bytes).map_err(|error| failed(&error))?;
    let keyring: FileKeyring = crate::keyring::open_file(copy.path(), roots)?;
    Ok((bytes, keyring.keys().list().len()))
}

fn snapshot_of_store<S: KeyStore>(keyring: &StoreKeyring<S>) -> Result<(Vec<u8>, usize), Failure> {
    let key_ids = crate::keyring::store_ids(keyring)?;
    for key_id in &key_ids {
        keyring.load(key_id)?;
    }
    Ok((keyring.snapshot()?, key_ids.len()))
}
