//! Versions and states of keys: all allowed and refused transitions, and the behaviour in each state.

use core::time::Duration;

use dekseal::{EncryptionContext, Engine, ErrorKind, KeyState, Keyset, MemoryKeyring, Rewrapped, SealedDek, UnixTime};

use crate::support::{Failing, Fixed, KEY_ID, NOW, OTHER_KEY_ID, Repeating, cmk, dek, key_id, time};

const DAY: u64 = 86_400;

/// A keyset with one enabled key of version 0.
fn keys() -> Keyset {
    let mut keys = Keyset::new();
    keys.import_key_at(key_id(KEY_ID), &[7; 32], time(NOW)).unwrap();
    keys
}

fn kind<T>(result: Result<T, dekseal::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn every_transition_from_every_state() {
    type Change = fn(&mut Keyset) -> Result<(), dekseal::Error>;
    let id = || key_id(KEY_ID);
    let changes: [(&str, Change); 8] = [
        ("enable", |keys| keys.enable(&key_id(KEY_ID))),
        ("disable", |keys| keys.disable(&key_id(KEY_ID))),
        ("schedule", |keys| {
            keys.schedule_deletion_at(&key_id(KEY_ID), 7, time(NOW)).map(drop)
        }),
        ("cancel", |keys| keys.cancel_deletion(&key_id(KEY_ID))),
        ("purge, in time", |keys| {
            keys.purge_at(&key_id(KEY_ID), time(NOW + 7 * DAY))
        }),
        ("purge, too early", |keys| {
            keys.purge_at(&key_id(KEY_ID), time(NOW + 7 * DAY - 1))
        }),
        ("rotate", |keys| {
            keys.import_version_at(&key_id(KEY_ID), &[8; 32], time(NOW)).map(drop)
        }),
        ("create again", |keys| {
            keys.import_key_at(key_id(KEY_ID), &[8; 32], time(NOW))
        }),
    ];
    let (enabled, disabled, pending) = (
        KeyState::Enabled,
        KeyState::Disabled,
        KeyState::PendingDeletion {
            at: time(NOW + 7 * DAY),
        },
    );
    use ErrorKind::*;
    /// The state after the transition, or `None` if the key is gone.
    type After = Result<Option<KeyState>, ErrorKind>;
    let table: [(KeyState, [After; 8]); 3] = [
        (
            enabled,
            [
                Err(KeyNotDisabled),
                Ok(Some(disabled)),
                Ok(Some(pending)),
                Err(DeletionNotScheduled),
                Err(DeletionNotScheduled),
                Err(DeletionNotScheduled),
                Ok(Some(enabled)),
                Err(KeyExists),
            ],
        ),
        (
            disabled,
            [
                Ok(Some(enabled)),
                Err(KeyNotEnabled),
                Ok(Some(pending)),
                Err(DeletionNotScheduled),
                Err(DeletionNotScheduled),
                Err(DeletionNotScheduled),
                Err(KeyDisabled),
                Err(KeyExists),
            ],
        ),
        (
            pending,
            [
                Err(KeyNotDisabled),
                Err(KeyNotEnabled),
                Err(DeletionScheduled),
                Ok(Some(disabled)),
                Ok(None),
                Err(DeletionNotDue),
                Err(KeyPendingDeletion),
                Err(KeyExists),
            ],
        ),
    ];
    for (state, results) in table {
        for ((name, change), expected) in changes.iter().zip(results) {
            let mut keys = keys();
            match state {
                KeyState::Disabled => keys.disable(&id()).unwrap(),
                KeyState::PendingDeletion { .. } => drop(keys.schedule_deletion_at(&id(), 7, time(NOW)).unwrap()),
                _ => {}
            }
            assert_eq!(keys.info(&id()).unwrap().state, state);
            let found = change(&mut keys).map(|()| keys.info(&id()).ok().map(|info| info.state));
            assert_eq!(found.map_err(|error| error.kind()), expected, "{name} from {state:?}");
            if expected.is_err() {
                assert_eq!(
                    keys.info(&id()).unwrap().state,
                    state,
                    "{name}: refused, and changed all the same"
                );
            }
        }
    }
    // For a key that does not exist.
    for (name, change) in &changes[..7] {
        assert_eq!(kind(change(&mut Keyset::new())), Some(UnknownKey), "{name}");
    }
}

#[test]
fn deletion_is_7_to_1096_days_ahead() {
    for (days, allowed) in [
        (0, false),
        (6, false),
        (7, true),
        (1096, true),
        (1097, false),
        (u32::MAX, false),
    ] {
        let scheduled = keys().schedule_deletion_at(&key_id(KEY_ID), days, time(NOW));
        match allowed {
            true => assert_eq!(scheduled.unwrap(), time(NOW + u64::from(days) * DAY)),
            false => assert_eq!(kind(scheduled), Some(ErrorKind::DeletionDays), "{days}"),
        }
    }
    let last = 253_402_300_799; // 9999-12-31T23:59:59Z
    let schedule = |now| keys().schedule_deletion_at(&key_id(KEY_ID), 7, time(now));
    assert_eq!(schedule(last - 7 * DAY).unwrap(), time(last));
    assert_eq!(kind(schedule(last - 7 * DAY + 1)), Some(ErrorKind::DeletionDays));
}

/// A time in milliseconds would make each deletion due at once. A clock that is not set would date a version to 1970.
#[test]
fn implausible_times_are_refused() {
    let first = 1_577_836_800; // 2020-01-01T00:00:00Z
    let last = 253_402_300_799; // 9999-12-31T23:59:59Z
    for secs in [0, 1, first - 1, last + 1, NOW * 1000, u64::MAX] {
        assert_eq!(
            kind(UnixTime::from_secs(secs)),
            Some(ErrorKind::ImplausibleTime),
            "{secs}"
        );
    }
}

#[cfg(feature = "std")]
#[test]
fn a_time_is_a_system_time() {
    use std::time::SystemTime;
    let (first, last) = (1_577_836_800, 253_402_300_799);
    for secs in [first, NOW, last] {
        let system = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        assert_eq!(time(secs).as_secs(), secs);
        assert_eq!(SystemTime::from(time(secs)), system);
        assert_eq!(
            UnixTime::try_from(system + Duration::from_millis(999)).unwrap(),
            time(secs)
        );
    }
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(kind(UnixTime::try_from(before_1970)), Some(ErrorKind::ImplausibleTime));
}

#[test]
fn only_an_enabled_key_seals_and_opens() {
    let (id, none) = (key_id(KEY_ID), EncryptionContext::none());
    let engine = Engine::new(MemoryKeyring::new(keys()));
    let dek = dek(&"5a".repeat(64));
    let sealed = engine.encrypt_dek(&id, &none, &dek).unwrap();
    type Change = fn(&mut Keyset) -> Result<(), dekseal::Error>;
    let steps: [(Change, Option<ErrorKind>); 5] = [
        (|keys| keys.disable(&key_id(KEY_ID)), Some(ErrorKind::KeyDisabled)),
        (|keys| keys.enable(&key_id(KEY_ID)), None),
        (
            |keys| keys.schedule_deletion_at(&key_id(KEY_ID), 7, time(NOW)).map(drop),
            Some(ErrorKind::KeyPendingDeletion),
        ),
        (
            |keys| keys.cancel_deletion(&key_id(KEY_ID)),
            Some(ErrorKind::KeyDisabled),
        ),
        (|keys| keys.enable(&key_id(KEY_ID)), None),
    ];
    let mut keys = Keyset::clone(&engine.keyring().keys());
    for (change, expected) in steps {
        change(&mut keys).unwrap();
        let engine = Engine::new(MemoryKeyring::new(keys.clone()));
        assert_eq!(kind(engine.encrypt_dek(&id, &none, &dek)), expected);
        assert_eq!(
            kind(engine.create_dek_with_rng(&id, &none, &mut Fixed(&[[1; 32], [2; 32]].concat()))),
            expected
        );
        assert_eq!(kind(engine.decrypt_dek(&id, &none, &sealed)), expected);
        assert_eq!(kind(engine.decrypt_dek_under_any_key(&none, &sealed)), expected);
        assert_eq!(kind(engine.rewrap_dek(&id, &none, &sealed)), expected);
    }
}

#[test]
fn rotation_counts_up_from_0_and_old_versions_open_until_they_are_retired() {
    let (id, none, dek) = (key_id(KEY_ID), EncryptionContext::none(), dek(&"5a".repeat(64)));
    let mut keys = keys();
    assert_eq!(keys.info(&id).unwrap().current_version, 0);
    let seal = |keys: &Keyset| {
        Engine::new(MemoryKeyring::new(keys.clone()))
            .encrypt_dek(&id, &none, &dek)
            .unwrap()
    };
    let mut sealed = vec![seal(&keys)];
    for version in 1..5 {
        assert_eq!(
            keys.import_version_at(&id, &[version; 40], time(NOW)).unwrap(),
            u32::from(version)
        );
        sealed.push(seal(&keys));
        assert_eq!(
            sealed[usize::from(version)],
            cmk(KEY_ID, version.into(), &[version; 40]).seal(&none, &dek)
        );
    }
    let versions: Vec<u32> = sealed.iter().map(SealedDek::key_version).collect();
    assert_eq!(versions, [0, 1, 2, 3, 4]);

    for min in 0..5 {
        keys.set_min_version(&id, min).unwrap();
        let engine = Engine::new(MemoryKeyring::new(keys.clone()));
        for (version, sealed) in (0..).zip(&sealed) {
            let expected = (version < min).then_some(ErrorKind::KeyVersionRetired);
            assert_eq!(
                kind(engine.decrypt_dek(&id, &none, sealed)),
                expected,
                "version {version}, from {min} on"
            );
        }
        // The minimum cannot be above the current version.
        assert_eq!(kind(keys.set_min_version(&id, 5)), Some(ErrorKind::MinVersion));
        assert_eq!(keys.info(&id).unwrap().min_version, min);
    }
    // Lowering the minimum restores all of them, because their material is still there.
    keys.set_min_version(&id, 0).unwrap();
    let engine = Engine::new(MemoryKeyring::new(keys));
    for sealed in &sealed {
        assert!(engine.decrypt_dek(&id, &none, sealed).unwrap() == dek);
    }
    let of_no_version = cmk(KEY_ID, 9, &[1; 32]).seal(&none, &dek);
    assert_eq!(
        kind(engine.decrypt_dek(&id, &none, &of_no_version)),
        Some(ErrorKind::UnknownKeyVersion)
    );
}

/// The order of the wire API's table: an unknown version comes before disabled and pending deletion.
#[test]
fn whether_a_version_exists_comes_before_whether_its_key_may_be_used() {
    let (id, none, dek) = (key_id(KEY_ID), EncryptionContext::none(), dek(&"5a".repeat(64)));
    let mut keys = keys();
    keys.import_version_at(&id, &[8; 32], time(NOW)).unwrap();
    keys.set_min_version(&id, 1).unwrap();
    let sealed = |version| cmk(KEY_ID, version, &[1; 32]).seal(&none, &dek);
    for state in [ErrorKind::KeyDisabled, ErrorKind::KeyPendingDeletion] {
        match state {
            ErrorKind::KeyDisabled => keys.disable(&id).unwrap(),
            _ => drop(keys.schedule_deletion_at(&id, 7, time(NOW)).unwrap()),
        }
        let engine = Engine::new(MemoryKeyring::new(keys.clone()));
        let kind = |version| kind(engine.decrypt_dek(&id, &none, &sealed(version)));
        assert_eq!(kind(9), Some(ErrorKind::UnknownKeyVersion));
        assert_eq!(kind(0), Some(ErrorKind::KeyVersionRetired));
        assert_eq!(kind(1), Some(state));
    }
}

#[test]
fn a_version_is_destroyed_once_it_is_retired_and_its_successor_old_enough() {
    let (id, none, dek) = (key_id(KEY_ID), EncryptionContext::none(), dek(&"5a".repeat(64)));
    let (mut keys, hour) = (Keyset::new(), Duration::from_secs(3600));
    keys.import_key_at(id, &[1; 32], time(NOW)).unwrap();
    for (version, made) in [(2, NOW + 100), (3, NOW + 50), (4, NOW + 200)] {
        keys.import_version_at(&id, &[version; 32], time(made)).unwrap();
    }
    let destroy = |keys: &mut Keyset, first, now| {
        let before = keys.versions(&id).unwrap();
        let destroyed = keys.destroy_versions_at(&id, first, hour, time(now));
        assert!(destroyed.is_ok() || keys.versions(&id).unwrap() == before);
        destroyed
    };
    let late = NOW + 10_000;
    // None of these versions is retired. The current version never is.
    for first in [1, 3, 4, u32::MAX] {
        assert_eq!(kind(destroy(&mut keys, first, late)), Some(ErrorKind::VersionInUse));
        assert_eq!(
            kind(keys.force_destroy_versions(&id, first)),
            Some(ErrorKind::VersionInUse)
        );
    }
    keys.set_min_version(&id, 3).unwrap();
    assert_eq!(kind(destroy(&mut keys, 4, late)), Some(ErrorKind::VersionInUse));
    // The youngest successor decides, even if it is the middle one because a clock went back. The grace period is exact
    // to the second.
    for (first, youngest) in [(1, NOW + 100), (2, NOW + 100), (3, NOW + 200)] {
        let error = destroy(&mut keys, first, youngest + 3599).unwrap_err();
        assert_eq!((error.kind(), error.key_id()), (ErrorKind::GracePeriod, Some(id)));
        assert_eq!(error.newest_key_version(), Some(3));
        let mut copy = keys.clone();
        assert_eq!(destroy(&mut copy, first, youngest + 3600).unwrap(), first as usize);
    }
    // By a clock that is behind, all successors are young.
    assert_eq!(kind(destroy(&mut keys, 3, NOW - 1)), Some(ErrorKind::GracePeriod));
    assert_eq!(destroy(&mut keys, 2, late).unwrap(), 2);
    // Once more there is nothing to destroy, whatever the clock is.
    assert_eq!(destroy(&mut keys, 2, NOW - 1).unwrap(), 0);
    assert_eq!(keys.versions(&id).unwrap()[0].key_version, 2);
    // Destroyed versions cannot be restored. Retired versions can.
    assert_eq!(kind(keys.set_min_version(&id, 1)), Some(ErrorKind::MinVersion));
    keys.set_min_version(&id, 2).unwrap();
    let sealed = |version: u32, material| cmk(KEY_ID, version, &[material; 32]).seal(&none, &dek);
    let opens = |keys: &Keyset, sealed| {
        let engine = Engine::new(MemoryKeyring::new(keys.clone()));
        kind(engine.decrypt_dek(&id, &none, &sealed).map(drop))
    };
    assert_eq!(opens(&keys, sealed(1, 2)), Some(ErrorKind::KeyVersionDestroyed));
    assert_eq!(opens(&keys, sealed(2, 3)), None);
    keys.set_min_version(&id, 3).unwrap();
    assert_eq!(keys.force_destroy_versions(&id, 3).unwrap(), 1);
    assert_eq!(opens(&keys, sealed(2, 3)), Some(ErrorKind::KeyVersionDestroyed));
    assert_eq!(opens(&keys, sealed(3, 4)), None);
    assert_eq!(opens(&keys, sealed(4, 5)), Some(ErrorKind::UnknownKeyVersion));
    assert_eq!(keys.import_version_at(&id, &[9; 32], time(late)).unwrap(), 4);
}

/// CMKs that the host made have no known age.
#[test]
fn a_version_whose_successor_has_no_date_is_destroyed_only_by_force() {
    let id = key_id(KEY_ID);
    let keyring = MemoryKeyring::from_versions([cmk(KEY_ID, 0, &[1; 32]), cmk(KEY_ID, 1, &[2; 32])]).unwrap();
    let mut keys = Keyset::clone(&keyring.keys());
    keys.set_min_version(&id, 1).unwrap();
    let refused = keys.destroy_versions_at(&id, 1, Duration::ZERO, time(NOW));
    assert_eq!(kind(refused), Some(ErrorKind::GracePeriod));
    assert_eq!(keys.force_destroy_versions(&id, 1).unwrap(), 1);
}

/// A minimum need not be a version that is there.
#[test]
fn the_minimum_of_a_key_without_its_first_versions_stays_or_rises() {
    let id = key_id(KEY_ID);
    let keyring = MemoryKeyring::from_versions([cmk(KEY_ID, 3, &[1; 32]), cmk(KEY_ID, 5, &[2; 32])]).unwrap();
    let mut keys = Keyset::clone(&keyring.keys());
    assert_eq!(keys.info(&id).unwrap().min_version, 0);
    for min_version in [0, 2, 4, 3] {
        keys.set_min_version(&id, min_version).unwrap();
    }
    // Below the oldest version there is nothing to open with.
    assert_eq!(kind(keys.set_min_version(&id, 2)), Some(ErrorKind::MinVersion));
}

#[test]
fn versions_end_where_their_number_does() {
    let keyring = MemoryKeyring::from_versions([cmk(KEY_ID, u32::MAX, &[1; 32])]).unwrap();
    let mut keys = Keyset::clone(&keyring.keys());
    assert_eq!(
        kind(keys.import_version_at(&key_id(KEY_ID), &[1; 32], time(NOW))),
        Some(ErrorKind::TooManyVersions)
    );
}

#[test]
fn material_that_is_bad_or_cannot_be_made_changes_nothing() {
    let mut keys = keys();
    for length in [0, 31, 65] {
        assert_eq!(
            kind(keys.import_key_at(key_id(OTHER_KEY_ID), &vec![1; length], time(NOW))),
            Some(ErrorKind::InvalidMaterial)
        );
        assert_eq!(
            kind(keys.import_version_at(&key_id(KEY_ID), &vec![1; length], time(NOW))),
            Some(ErrorKind::InvalidMaterial)
        );
    }
    for error in [
        keys.create_key_with_rng(key_id(OTHER_KEY_ID), time(NOW), &mut Failing)
            .unwrap_err(),
        keys.create_key_with_rng(key_id(OTHER_KEY_ID), time(NOW), &mut Repeating(&[0]))
            .unwrap_err(),
        keys.rotate_with_rng(&key_id(KEY_ID), time(NOW), &mut Failing)
            .unwrap_err(),
        keys.rotate_with_rng(&key_id(KEY_ID), time(NOW), &mut Repeating(&[0]))
            .unwrap_err(),
    ] {
        assert!(matches!(error.kind(), ErrorKind::Randomness(_)));
    }
    // An operation that is refused draws no randomness.
    assert_eq!(
        kind(keys.create_key_with_rng(key_id(KEY_ID), time(NOW), &mut Failing)),
        Some(ErrorKind::KeyExists)
    );
    let list = keys.list();
    assert_eq!((list.len(), list[0].current_version), (1, 0));
}

#[test]
fn the_list_is_sorted_and_complete() {
    let mut keys = keys();
    keys.create_key_with_rng(
        key_id(OTHER_KEY_ID),
        time(NOW),
        &mut Fixed(&[[1; 32], [2; 32]].concat()),
    )
    .unwrap();
    keys.disable(&key_id(OTHER_KEY_ID)).unwrap();
    keys.import_version_at(&key_id(KEY_ID), &[1; 32], time(NOW)).unwrap();
    keys.set_min_version(&key_id(KEY_ID), 1).unwrap();
    let list = keys.list();
    assert_eq!(
        list.iter().map(|info| info.key_id.to_string()).collect::<Vec<_>>(),
        [KEY_ID, OTHER_KEY_ID]
    );
    assert_eq!(
        (list[0].state, list[0].current_version, list[0].min_version),
        (KeyState::Enabled, 1, 1)
    );
    assert_eq!(
        (list[1].state, list[1].current_version, list[1].min_version),
        (KeyState::Disabled, 0, 0)
    );
}

#[test]
fn a_rewrap_keeps_the_dek_and_moves_the_version() {
    let (id, dek) = (key_id(KEY_ID), dek(&"5a".repeat(64)));
    let (context, other) = (
        EncryptionContext::from_pairs([("tenant", "42")]).unwrap(),
        EncryptionContext::from_pairs([("tenant", "43")]).unwrap(),
    );
    let mut keys = keys();
    keys.import_key_at(key_id(OTHER_KEY_ID), &[9; 32], time(NOW)).unwrap();
    let before = Engine::new(MemoryKeyring::new(keys.clone()));
    let old = before.encrypt_dek(&id, &context, &dek).unwrap();
    assert_eq!(
        before.rewrap_dek(&id, &context, &old).unwrap(),
        Rewrapped::AlreadyCurrent(old)
    );

    keys.import_version_at(&id, &[8; 32], time(NOW)).unwrap();
    let engine = Engine::new(MemoryKeyring::new(keys));
    let Rewrapped::Renewed(new) = engine.rewrap_dek(&id, &context, &old).unwrap() else {
        panic!("it was current");
    };
    assert_eq!((new.key_id(), new.key_version()), (id, 1));
    assert_eq!(new, cmk(KEY_ID, 1, &[8; 32]).seal(&context, &dek));
    assert_eq!(
        engine.rewrap_dek(&id, &context, &new).unwrap(),
        Rewrapped::AlreadyCurrent(new)
    );

    // A blob that does not open is never reported as current.
    assert_eq!(
        kind(engine.rewrap_dek(&id, &other, &new)),
        Some(ErrorKind::AuthenticationFailed)
    );
    assert_eq!(
        kind(engine.rewrap_dek(&key_id(OTHER_KEY_ID), &context, &new)),
        Some(ErrorKind::KeyMismatch)
    );

    let moved = engine
        .rewrap_dek_to((&id, &context), &old, (&key_id(OTHER_KEY_ID), &other))
        .unwrap();
    assert_eq!(moved, cmk(OTHER_KEY_ID, 0, &[9; 32]).seal(&other, &dek));
    let nobody = key_id("43e243b5-0095-1b21-67b2-58370386cc4a");
    assert_eq!(
        kind(engine.rewrap_dek_to((&id, &context), &old, (&nobody, &other))),
        Some(ErrorKind::UnknownKey)
    );
}

#[test]
fn a_batch_of_rewraps_continues_after_bad_blobs() {
    let (id, none, dek) = (key_id(KEY_ID), EncryptionContext::none(), dek(&"5a".repeat(64)));
    let mut keys = keys();
    let old = Engine::new(MemoryKeyring::new(keys.clone()))
        .encrypt_dek(&id, &none, &dek)
        .unwrap();
    keys.import_version_at(&id, &[8; 32], time(NOW)).unwrap();
    let engine = Engine::new(MemoryKeyring::new(keys));
    let new = engine.encrypt_dek(&id, &none, &dek).unwrap();
    let mut damaged = *old.as_bytes();
    damaged[40] ^= 1;
    let wrong = EncryptionContext::from_pairs([("a", "b")]).unwrap();

    let blobs: [(&EncryptionContext, &[u8]); 6] = [
        (&none, old.as_bytes()),
        (&none, &damaged),
        (&wrong, old.as_bytes()),
        (&none, b""),
        (&none, new.as_bytes()),
        (&none, old.as_bytes()),
    ];
    let results: Vec<_> = engine
        .rewrap_deks(&id, blobs)
        .map(|result| result.map_err(|error| error.kind()))
        .collect();
    assert_eq!(
        results,
        [
            Ok(Rewrapped::Renewed(new)),
            Err(ErrorKind::DamagedBlob),
            Err(ErrorKind::AuthenticationFailed),
            Err(ErrorKind::NotABlob(dekseal::BlobRule::Length)),
            Ok(Rewrapped::AlreadyCurrent(new)),
            Ok(Rewrapped::Renewed(new)),
        ]
    );
}

#[cfg(feature = "std")]
mod shared {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn an_update_shows_as_a_whole_or_not_at_all() {
        let keyring = MemoryKeyring::new(keys());
        let refused = keyring.update(|keys| {
            keys.disable(&key_id(KEY_ID))?;
            keys.import_key(key_id(OTHER_KEY_ID), &[1; 32])?;
            keys.import_key(key_id(OTHER_KEY_ID), &[1; 32])
        });
        assert_eq!(kind(refused), Some(ErrorKind::KeyExists));
        assert_eq!(keyring.keys().list().len(), 1);
        assert_eq!(keyring.keys().info(&key_id(KEY_ID)).unwrap().state, KeyState::Enabled);
    }

    /// One thread rotates as fast as it can, and the others seal and open. They stop after a number of both, because a
    /// time says little about a slow processor.
    #[test]
    fn rotation_under_load_fails_no_call() {
        let (id, none) = (key_id(KEY_ID), EncryptionContext::none());
        let engine = Engine::new(MemoryKeyring::new(keys()));
        let (rotations, opened) = (AtomicU32::new(0), AtomicU32::new(0));
        let stop = AtomicBool::new(false);
        let sealed: Vec<_> = thread::scope(|scope| {
            let rotator = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    engine.keyring().update(|keys| keys.rotate(&id)).unwrap();
                    rotations.fetch_add(1, Ordering::Relaxed);
                }
            });
            let users: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut kept = Vec::new();
                        while !stop.load(Ordering::Relaxed) {
                            let (dek, sealed) = engine.create_dek(&id, &none).unwrap();
                            assert!(engine.decrypt_dek(&id, &none, &sealed).unwrap() == dek);
                            opened.fetch_add(1, Ordering::Relaxed);
                            if kept.len() < 10_000 {
                                kept.push((dek, sealed));
                            }
                        }
                        kept
                    })
                })
                .collect();
            let enough = || rotations.load(Ordering::Relaxed) > 500 && opened.load(Ordering::Relaxed) > 5_000;
            while !enough() && !rotator.is_finished() && !users.iter().any(|user| user.is_finished()) {
                thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
            rotator.join().unwrap();
            users.into_iter().flat_map(|user| user.join().unwrap()).collect()
        });
        let current = engine.keyring().keys().info(&id).unwrap().current_version;
        assert_eq!(current, rotations.into_inner());
        for (dek, sealed) in sealed {
            assert!(engine.decrypt_dek(&id, &none, &sealed).unwrap() == dek);
        }
    }
}
