//! Random sequences of key operations, compared with a simple model. Each step tries to seal and to open.

use std::{collections::BTreeMap, time::Duration};

use dekseal::{EncryptionContext, Engine, ErrorKind, KeyId, KeyState, Keyset, MemoryKeyring, SealedDek};
use proptest::prelude::*;

use crate::support::{KEY_ID, OTHER_KEY_ID, dek, key_id, time};

const DAY: u64 = 86_400;

#[derive(Clone, Debug)]
enum Step {
    Import,
    Rotate,
    Disable,
    Enable,
    Schedule(u32),
    Cancel,
    Purge,
    MinVersion(u32),
    /// Destroys the versions before the first number, with a grace period in days, or by force.
    Destroy(u32, Option<u32>),
    /// Moves the clock forward or back by this many seconds.
    Clock(i64),
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let step = prop_oneof![
        3 => Just(Step::Import),
        5 => Just(Step::Rotate),
        2 => Just(Step::Disable),
        4 => Just(Step::Enable),
        1 => (5_u32..12).prop_map(Step::Schedule),
        2 => Just(Step::Cancel),
        2 => Just(Step::Purge),
        2 => (0_u32..6).prop_map(Step::MinVersion),
        3 => (0_u32..6, prop::option::of(0_u32..4)).prop_map(|(first, days)| Step::Destroy(first, days)),
        2 => (-5_i64..10).prop_map(|days| Step::Clock(days * DAY.cast_signed())),
    ];
    prop::collection::vec((any::<bool>(), step), 1..60)
}

/// Applies a step to the keys.
fn take(step: &Step, keys: &mut Keyset, id: KeyId, bytes: &[u8], now: u64) -> Result<(), dekseal::Error> {
    match step {
        Step::Import => keys.import_key_at(id, bytes, time(now)),
        Step::Rotate => keys.import_version_at(&id, bytes, time(now)).map(drop),
        Step::Disable => keys.disable(&id),
        Step::Enable => keys.enable(&id),
        Step::Schedule(days) => keys.schedule_deletion_at(&id, *days, time(now)).map(drop),
        Step::Cancel => keys.cancel_deletion(&id),
        Step::Purge => keys.purge_at(&id, time(now)),
        Step::MinVersion(version) => keys.set_min_version(&id, *version),
        Step::Destroy(first, Some(days)) => {
            let grace = Duration::from_secs(u64::from(*days) * DAY);
            keys.destroy_versions_at(&id, *first, grace, time(now)).map(drop)
        }
        Step::Destroy(first, None) => keys.force_destroy_versions(&id, *first).map(drop),
        Step::Clock(_) => keys.info(&id).map(drop),
    }
}

/// The facts about a key, in a simple form.
#[derive(Clone, Debug)]
struct Model {
    state: KeyState,
    min: u32,
    /// The oldest version that was not destroyed.
    first: u32,
    /// For each version, a blob that was sealed under it, and its creation time.
    versions: Vec<(SealedDek, u64)>,
}

/// The result of a step by the model: the new state of the key, or the error. The blob of a version that the step adds
/// is left out.
fn expect(model: Option<&Model>, step: &Step, now: u64) -> Result<Option<Model>, ErrorKind> {
    let Some(model) = model else {
        return match step {
            Step::Import => Ok(Some(Model {
                state: KeyState::Enabled,
                min: 0,
                first: 0,
                versions: Vec::new(),
            })),
            _ => Err(ErrorKind::UnknownKey),
        };
    };
    let mut next = model.clone();
    let pending = matches!(model.state, KeyState::PendingDeletion { .. });
    match step {
        Step::Import => return Err(ErrorKind::KeyExists),
        Step::Rotate => match model.state {
            KeyState::Enabled => {}
            KeyState::Disabled => return Err(ErrorKind::KeyDisabled),
            _ => return Err(ErrorKind::KeyPendingDeletion),
        },
        Step::Disable if model.state == KeyState::Enabled => next.state = KeyState::Disabled,
        Step::Disable => return Err(ErrorKind::KeyNotEnabled),
        Step::Enable if model.state == KeyState::Disabled => next.state = KeyState::Enabled,
        Step::Enable => return Err(ErrorKind::KeyNotDisabled),
        Step::Schedule(_) if pending => return Err(ErrorKind::DeletionScheduled),
        Step::Schedule(days) if *days < 7 => return Err(ErrorKind::DeletionDays),
        Step::Schedule(days) => {
            let at = time(now + u64::from(*days) * DAY);
            next.state = KeyState::PendingDeletion { at };
        }
        Step::Cancel if pending => next.state = KeyState::Disabled,
        Step::Cancel => return Err(ErrorKind::DeletionNotScheduled),
        Step::Purge => {
            return match model.state {
                KeyState::PendingDeletion { at } if time(now) >= at => Ok(None),
                KeyState::PendingDeletion { .. } => Err(ErrorKind::DeletionNotDue),
                _ => Err(ErrorKind::DeletionNotScheduled),
            };
        }
        Step::MinVersion(version) => {
            if *version < model.first || *version as usize >= model.versions.len() {
                return Err(ErrorKind::MinVersion);
            }
            next.min = *version;
        }
        Step::Destroy(first, _) if *first > model.min => return Err(ErrorKind::VersionInUse),
        Step::Destroy(first, days) => {
            // The successor of each destroyed version was created long enough ago.
            let too_young = days.is_some_and(|days| {
                let successors = (model.first..*first).map(|version| model.versions[version as usize + 1].1);
                successors.into_iter().any(|made| now < made + u64::from(days) * DAY)
            });
            if too_young {
                return Err(ErrorKind::GracePeriod);
            }
            next.first = next.first.max(*first);
        }
        Step::Clock(_) => {}
    }
    Ok(Some(next))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keys_do_as_the_model_does(steps in steps()) {
        let (none, dek) = (EncryptionContext::none(), dek(&"5a".repeat(64)));
        let mut keys = Keyset::new();
        let mut models: BTreeMap<&str, Model> = BTreeMap::new();
        let (mut now, mut material) = (1_800_000_000_u64, 0_u32);
        for (other, step) in steps {
            let name = if other { OTHER_KEY_ID } else { KEY_ID };
            let id = key_id(name);
            material += 1;
            let bytes: Vec<u8> = material.to_le_bytes().repeat(8);
            if let Step::Clock(seconds) = step {
                now = now.saturating_add_signed(seconds);
            }
            let done = take(&step, &mut keys, id, &bytes, now);
            let expected = expect(models.get(name), &step, now);
            let done = done.map_err(|error| error.kind());
            prop_assert_eq!(done, expected.as_ref().map(|_| ()).map_err(|kind| *kind), "{:?}", step);
            match expected {
                Ok(Some(mut model)) => {
                    if matches!(step, Step::Import | Step::Rotate) {
                        let version = u32::try_from(model.versions.len()).unwrap();
                        let cmk = dekseal::CmkVersion::new(id, version, &bytes).unwrap();
                        model.versions.push((cmk.seal(&none, &dek), now));
                    }
                    let held: Vec<_> = keys.versions(&id).unwrap().iter().map(|v| (v.key_version, v.created)).collect();
                    let versions = (0..).zip(&model.versions);
                    let expected: Vec<_> = versions.map(|(version, (_, made))| (version, Some(time(*made)))).collect();
                    prop_assert_eq!(held, &expected[model.first as usize..]);
                    models.insert(name, model);
                }
                Ok(None) => drop(models.remove(name)),
                Err(_) => {}
            }

            let engine = Engine::new(MemoryKeyring::new(keys.clone()));
            for name in [KEY_ID, OTHER_KEY_ID] {
                let id = key_id(name);
                let sealed = engine.encrypt_dek(&id, &none, &dek).map_err(|error| error.kind());
                let Some(model) = models.get(name) else {
                    prop_assert_eq!(sealed, Err(ErrorKind::UnknownKey));
                    continue;
                };
                let refused = match model.state {
                    KeyState::Enabled => None,
                    KeyState::Disabled => Some(ErrorKind::KeyDisabled),
                    _ => Some(ErrorKind::KeyPendingDeletion),
                };
                prop_assert_eq!(sealed, refused.map_or(Ok(model.versions.last().unwrap().0), Err));
                for (version, (blob, _)) in (0..).zip(&model.versions) {
                    let opened = engine.decrypt_dek(&id, &none, blob);
                    let opened = opened.map(|opened| opened == dek).map_err(|error| error.kind());
                    let gone = (version < model.first).then_some(ErrorKind::KeyVersionDestroyed);
                    let retired = (version < model.min).then_some(ErrorKind::KeyVersionRetired);
                    prop_assert_eq!(opened, gone.or(retired).or(refused).map_or(Ok(true), Err), "version {}", version);
                }
            }
        }
    }

    /// A file that is opened again has all changes that were made.
    #[cfg(feature = "file-keyring")]
    #[test]
    fn a_file_does_as_memory_does(steps in steps()) {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = directory.path().join("keyring.json");
        let root = || crate::support::cmk("00000000-0000-0000-0000-00000000root", 0, &[1; 32]);
        let file = dekseal::FileKeyring::create(&path, root()).unwrap();
        let mut keys = Keyset::new();
        let mut now = 1_800_000_000_u64;
        for (number, (other, step)) in (0_u32..).zip(steps.into_iter().take(12)) {
            let id = key_id(if other { OTHER_KEY_ID } else { KEY_ID });
            let bytes: Vec<u8> = number.to_le_bytes().repeat(8 + usize::from(other) * 4);
            if let Step::Clock(seconds) = step {
                now = now.saturating_add_signed(seconds);
            }
            let in_memory = take(&step, &mut keys, id, &bytes, now).map_err(|error| error.kind());
            let in_file = file.update(|keys| take(&step, keys, id, &bytes, now)).map_err(|error| error.kind());
            prop_assert_eq!(in_memory, in_file, "{:?}", step);
        }
        let (none, dek) = (EncryptionContext::none(), dek(&"5a".repeat(64)));
        let (memory, opened) = (
            Engine::new(MemoryKeyring::new(keys)),
            Engine::new(dekseal::FileKeyring::open(&path, root()).unwrap()),
        );
        prop_assert_eq!(memory.keyring().keys().list(), opened.keyring().keys().list());
        for id in [KEY_ID, OTHER_KEY_ID].map(key_id) {
            let sealed = memory.encrypt_dek(&id, &none, &dek).map_err(|error| error.kind());
            prop_assert_eq!(sealed, opened.encrypt_dek(&id, &none, &dek).map_err(|error| error.kind()));
        }
    }
}
