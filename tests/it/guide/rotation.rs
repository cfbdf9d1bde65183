//! The code of docs/guide/rotation.md.

// ANCHOR: sweep
use std::{collections::BTreeMap, ops::Bound};

use dekseal::{EncryptionContext, Engine, Error, ErrorKind, KeyId, Keyring, Rewrapped, SealedDek};

struct Row {
    tenant: u32,
    sealed: Vec<u8>,
}

/// Stands for the database: the table, and the cursor of the sweep.
#[derive(Default)]
struct Database {
    document: BTreeMap<u64, Row>,
    cursor: Option<u64>,
}

#[derive(Debug, Default, PartialEq)]
struct Progress {
    rewrapped: u64,
    already_current: u64,
    failed: Vec<(u64, ErrorKind)>,
}

const BATCH: usize = 1000;

/// Processes one batch. Returns false when no rows are left.
fn sweep(
    engine: &Engine<impl Keyring>,
    key_id: &KeyId,
    db: &mut Database,
    progress: &mut Progress,
) -> Result<bool, Error> {
    let after = db.cursor.map_or(Bound::Unbounded, Bound::Excluded);
    let rows: Vec<_> = db.document.range((after, Bound::Unbounded)).take(BATCH).collect();
    let Some((last, _)) = rows.last() else {
        return Ok(false);
    };
    let last = **last;

    let contexts = rows
        .iter()
        .map(|(_, row)| context(row.tenant))
        .collect::<Result<Vec<_>, _>>()?;
    let blobs = contexts.iter().zip(rows.iter().map(|(_, row)| &row.sealed));
    let results: Vec<_> = engine.rewrap_deks(key_id, blobs).collect();

    let mut rewrapped = Vec::new();
    for ((id, row), result) in rows.into_iter().zip(results) {
        match result {
            Ok(Rewrapped::Renewed(sealed)) => rewrapped.push((*id, row.sealed.clone(), sealed)),
            Ok(Rewrapped::AlreadyCurrent(_)) => progress.already_current += 1,
            // Only this row is affected. Note it and continue.
            Err(error) if concerns_one_blob(error.kind()) => progress.failed.push((*id, error.kind())),
            // The keyring failed, so the other rows would fail too. The cursor has not moved.
            Err(error) => return Err(error),
        }
    }

    // Begin a transaction.
    for (id, old, new) in rewrapped {
        let row = db.document.get_mut(&id).filter(|row| row.sealed == old);
        if let Some(row) = row {
            row.sealed = new.as_bytes().to_vec();
            progress.rewrapped += 1;
        }
    }
    db.cursor = Some(last);
    // Commit.
    Ok(true)
}

fn concerns_one_blob(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotABlob(_)
            | ErrorKind::MalformedKeyId
            | ErrorKind::DamagedBlob
            | ErrorKind::KeyMismatch
            | ErrorKind::UnknownKeyVersion
            | ErrorKind::KeyVersionRetired
            | ErrorKind::AuthenticationFailed
    )
}

fn context(tenant: u32) -> Result<EncryptionContext, Error> {
    EncryptionContext::from_pairs([("table", "document"), ("tenant", &tenant.to_string())])
}
// ANCHOR_END: sweep

// ANCHOR: count
/// How many blobs name each version. `None` counts the rows that hold no valid blob.
fn count(db: &Database) -> BTreeMap<Option<u32>, u64> {
    let mut counts = BTreeMap::new();
    for row in db.document.values() {
        let version = SealedDek::from_bytes(&row.sealed)
            .ok()
            .map(|sealed| sealed.key_version());
        *counts.entry(version).or_default() += 1;
    }
    counts
}
// ANCHOR_END: count

#[test]
fn a_sweep_survives_a_crash_and_a_lost_cursor() -> Result<(), Error> {
    use dekseal::{Keyset, MemoryKeyring};

    let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    let mut keys = Keyset::new();
    keys.create_key(key_id)?;
    let engine = Engine::new(MemoryKeyring::new(keys));
    let mut db = Database::default();
    for id in 0..2500_u32 {
        let tenant = id % 7;
        let sealed = engine.create_dek_without_plaintext(&key_id, &context(tenant)?)?;
        let sealed = sealed.as_bytes().to_vec();
        db.document.insert(id.into(), Row { tenant, sealed });
    }
    db.document.get_mut(&1234).unwrap().sealed[50] ^= 1;
    engine.keyring().update(|keys| keys.rotate(&key_id))?;

    // A crash after the first batch.
    let mut progress = Progress::default();
    assert!(sweep(&engine, &key_id, &mut db, &mut progress)?);
    assert_eq!((progress.rewrapped, db.cursor), (1000, Some(999)));
    // The cursor is lost.
    db.cursor = None;
    // ANCHOR: run
    let mut progress = Progress::default();
    while sweep(&engine, &key_id, &mut db, &mut progress)? {
        println!("up to {:?}: {progress:?}", db.cursor);
    }
    // ANCHOR_END: run
    let failed = vec![(1234, ErrorKind::DamagedBlob)];
    let expected = Progress {
        rewrapped: 1499,
        already_current: 1000,
        failed,
    };
    assert_eq!(progress, expected);
    assert_eq!(count(&db), [(None, 1), (Some(1), 2499)].into());

    // ANCHOR: retire
    engine.keyring().update(|keys| keys.set_min_version(&key_id, 1))?;
    // ANCHOR_END: retire
    // ANCHOR: destroy
    use std::time::Duration;

    // No process works for an hour without a refresh.
    let grace = Duration::from_secs(60 * 60);
    let destroyed = engine.keyring().update(|keys| keys.destroy_versions(&key_id, 1, grace));
    // The rotation was less than an hour ago, so version 0 is kept for now.
    assert_eq!(destroyed.unwrap_err().kind(), ErrorKind::GracePeriod);
    // ANCHOR_END: destroy

    engine.keyring().update(|keys| keys.disable(&key_id))?;
    db.cursor = None;
    let error = sweep(&engine, &key_id, &mut db, &mut progress).unwrap_err();
    assert_eq!((error.kind(), db.cursor), (ErrorKind::KeyDisabled, None));
    Ok(())
}
