//! An engine over a keyring with several keys and versions.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, ErrorKind, KeyId, Keyring, MemoryKeyring, Rewrapped, SealedDek,
};

use crate::support::{Fixed, KEY_ID, OTHER_KEY_ID, cmk, dek, key_id, with_checksum};

fn engine() -> Engine<MemoryKeyring> {
    let cmks = [
        cmk(KEY_ID, 1, &[1; 32]),
        cmk(KEY_ID, 7, &[2; 32]),
        cmk(KEY_ID, 0, &[3; 32]),
        cmk(OTHER_KEY_ID, 0, &[4; 32]),
    ];
    Engine::new(MemoryKeyring::from_versions(cmks).unwrap())
}

fn some_context() -> EncryptionContext {
    EncryptionContext::from_pairs([("tenant", "42")]).unwrap()
}

#[test]
fn the_highest_version_seals_and_every_version_opens() {
    let (engine, id, context) = (engine(), key_id(KEY_ID), some_context());
    let random: Vec<u8> = (0..64).collect();
    let (made, sealed) = engine.create_dek_with_rng(&id, &context, &mut Fixed(&random)).unwrap();
    assert_eq!(made.expose_secret().as_slice(), random);
    assert_eq!((sealed.key_id(), sealed.key_version()), (id, 7));
    // All three ways to seal give the same blob.
    let without_plaintext = engine.create_dek_without_plaintext_with_rng(&id, &context, &mut Fixed(&random));
    assert_eq!(without_plaintext.unwrap(), sealed);
    assert_eq!(engine.encrypt_dek(&id, &context, &made).unwrap(), sealed);
    assert_eq!(cmk(KEY_ID, 7, &[2; 32]).seal(&context, &made), sealed);

    for (version, material) in [(0, [3; 32]), (1, [1; 32]), (7, [2; 32])] {
        let old = cmk(KEY_ID, version, &material).seal(&context, &made);
        assert!(
            engine.decrypt_dek(&id, &context, &old).unwrap() == made,
            "version {version}"
        );
    }
}

#[test]
fn opening_expects_a_key() {
    let (engine, context) = (engine(), some_context());
    let (made, sealed) = engine
        .create_dek_with_rng(
            &key_id(OTHER_KEY_ID),
            &context,
            &mut Fixed(&[b'a'; 32].iter().chain(&[b'b'; 32]).copied().collect::<Vec<_>>()),
        )
        .unwrap();
    let kind = engine
        .decrypt_dek(&key_id(KEY_ID), &context, &sealed)
        .unwrap_err()
        .kind();
    assert_eq!(kind, ErrorKind::KeyMismatch);
    assert!(engine.decrypt_dek_under_any_key(&context, &sealed).unwrap() == made);
}

#[test]
fn unknown_keys_and_versions_are_told_apart() {
    let (engine, context, dek) = (engine(), some_context(), dek(&"5a".repeat(64)));
    let nobody = key_id("43e243b5-0095-1b21-67b2-58370386cc4a");
    let unknown =
        |result: Result<SealedDek, dekseal::Error>| assert_eq!(result.unwrap_err().kind(), ErrorKind::UnknownKey);
    unknown(engine.encrypt_dek(&nobody, &context, &dek));
    // A missing key is reported before a failing generator.
    unknown(engine.create_dek_without_plaintext_with_rng(&nobody, &context, &mut crate::support::Failing));

    let of_nobody = cmk(nobody.as_str(), 0, &[9; 32]).seal(&context, &dek);
    assert_eq!(
        engine.decrypt_dek(&nobody, &context, &of_nobody).unwrap_err().kind(),
        ErrorKind::UnknownKey
    );
    // A missing version that is older than the newest was destroyed. A missing newer version may only be unknown here
    // yet.
    let newest = engine.keyring().keys().info(&key_id(KEY_ID)).unwrap().current_version;
    for (version, kind) in [
        (2, ErrorKind::KeyVersionDestroyed),
        (newest + 1, ErrorKind::UnknownKeyVersion),
    ] {
        let sealed = cmk(KEY_ID, version, &[9; 32]).seal(&context, &dek);
        let error = engine.decrypt_dek(&key_id(KEY_ID), &context, &sealed).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.key_id(), Some(key_id(KEY_ID)));
        assert_eq!(
            (error.key_version(), error.newest_key_version()),
            (Some(version), Some(newest))
        );
    }
}

#[test]
fn a_keyring_holds_a_version_once() {
    let twice = MemoryKeyring::from_versions([cmk(KEY_ID, 1, &[1; 32]), cmk(KEY_ID, 1, &[2; 32])]);
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::DuplicateKeyVersion);
}

#[cfg(feature = "std")]
#[test]
fn a_version_that_is_added_seals_from_then_on() {
    let (engine, id, context) = (
        Engine::new(Arc::new(crate::support::one_key())),
        key_id(KEY_ID),
        some_context(),
    );
    let (made, old) = engine.create_dek(&id, &context).unwrap();
    assert_eq!(old.key_version(), 0);

    engine
        .keyring()
        .update(|keys| {
            keys.import_version(&id, &[8; 32])?;
            keys.import_key(key_id(OTHER_KEY_ID), &[9; 32])
        })
        .unwrap();
    let new = engine.encrypt_dek(&id, &context, &made).unwrap();
    assert_eq!(new.key_version(), 1);
    for sealed in [old, new] {
        assert!(engine.decrypt_dek(&id, &context, &sealed).unwrap() == made);
    }
    assert_eq!(
        engine
            .encrypt_dek(&key_id(OTHER_KEY_ID), &context, &made)
            .unwrap()
            .key_version(),
        0
    );
}

#[cfg(feature = "std")]
#[test]
fn deks_differ() {
    let (engine, id, none) = (engine(), key_id(KEY_ID), EncryptionContext::none());
    let (first, sealed_first) = engine.create_dek(&id, &none).unwrap();
    let (second, sealed_second) = engine.create_dek(&id, &none).unwrap();
    assert!(first != second && sealed_first != sealed_second);
    assert!(engine.create_dek_without_plaintext(&id, &none).unwrap() != sealed_first);
}

#[test]
fn a_batch_equals_single_calls_with_the_same_random_bytes() {
    let (engine, id, context) = (engine(), key_id(KEY_ID), some_context());
    // More than two pools of 64, and not a multiple of 64.
    let random: Vec<u8> = (0..130 * 64_u32).map(|at| (at * at / 7) as u8).collect();
    let mut slots: Vec<_> = (0..130).map(|_| None).collect();
    engine
        .create_deks_with_rng(&id, &context, &mut slots, &mut Fixed(&random))
        .unwrap();
    for (slot, bytes) in slots.into_iter().zip(random.chunks(64)) {
        let (dek, sealed) = slot.unwrap();
        assert_eq!(dek.expose_secret().as_slice(), bytes);
        assert_eq!(engine.encrypt_dek(&id, &context, &dek).unwrap(), sealed);
    }
}

#[test]
fn a_batch_fills_every_slot_or_none() {
    let (engine, id, context) = (engine(), key_id(KEY_ID), some_context());
    let filled = || -> Vec<_> {
        let mut slots: Vec<_> = (0..70).map(|_| None).collect();
        let random: Vec<u8> = (0..70 * 64_u32).map(|at| (at * at / 7) as u8).collect();
        engine
            .create_deks_with_rng(&id, &context, &mut slots, &mut Fixed(&random))
            .unwrap();
        slots
    };
    let stuck: Vec<u8> = (0..69 * 64_u32).map(|at| (at * at / 7) as u8).chain([9; 64]).collect();
    let one_draw: Vec<u8> = (0..64 * 64_u32).map(|at| (at * at / 7) as u8).collect();
    let failed = ErrorKind::Randomness(dekseal::RandomnessFault::Failed);
    for (random, kind) in [
        (stuck, ErrorKind::Randomness(dekseal::RandomnessFault::Stuck)),
        (one_draw, failed),
        (vec![], failed),
    ] {
        let mut slots = filled();
        let result = engine.create_deks_with_rng(&id, &context, &mut slots, &mut Fixed(&random));
        assert_eq!(result.unwrap_err().kind(), kind);
        assert!(slots.iter().all(Option::is_none));
    }
    let mut slots = filled();
    let nobody = key_id("43e243b5-0095-1b21-67b2-58370386cc4a");
    let result = engine.create_deks_with_rng(&nobody, &context, &mut slots, &mut Fixed(&[]));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::UnknownKey);
    assert!(slots.iter().all(Option::is_none));
    engine
        .create_deks_with_rng(&id, &context, &mut [], &mut Fixed(&[]))
        .unwrap();
}

#[test]
fn one_engine_serves_many_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Engine<MemoryKeyring>>();
    shared::<CmkVersion>();
    shared::<Dek>();
    shared::<EncryptionContext>();
    shared::<SealedDek>();
    shared::<dekseal::Error>();
    fn keyring<K: Keyring>() {}
    keyring::<Arc<MemoryKeyring>>();
}

#[test]
fn a_sealed_dek_is_188_bytes_in_memory_too() {
    assert_eq!(size_of::<SealedDek>(), 188);
    assert_eq!(size_of::<Dek>(), 64);
}

/// Functions that draw from the operating system behave as with the caller's generator.
#[cfg(feature = "std")]
#[test]
fn the_system_is_a_source_of_randomness() {
    let (engine, context) = (engine(), some_context());
    let id = key_id(KEY_ID);
    let mut slots = [const { None }; 3];
    engine.create_deks(&id, &context, &mut slots).unwrap();
    for slot in &slots {
        let (dek, sealed) = slot.as_ref().unwrap();
        assert_eq!(engine.decrypt_dek(&id, &context, sealed).unwrap(), *dek);
    }
    let sealed = engine.create_dek_without_plaintext(&id, &context).unwrap();
    let dek = engine.decrypt_dek(&id, &context, &sealed).unwrap();
    assert_ne!(dek, slots[0].as_ref().unwrap().0);
}

/// A keyring that counts its calls, and whose errors name nothing.
struct Counting {
    keys: MemoryKeyring,
    current: AtomicUsize,
    version: AtomicUsize,
}

impl Keyring for Counting {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.current.fetch_add(1, Ordering::Relaxed);
        self.keys.with_current(key_id, f).map_err(|error| error.kind().into())
    }

    fn with_version<T>(&self, key_id: &KeyId, version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.version.fetch_add(1, Ordering::Relaxed);
        self.keys
            .with_version(key_id, version, f)
            .map_err(|error| error.kind().into())
    }
}

fn counting() -> Engine<Counting> {
    let cmks = [
        cmk(KEY_ID, 1, &[1; 32]),
        cmk(KEY_ID, 7, &[2; 32]),
        cmk(KEY_ID, 0, &[3; 32]),
    ];
    Engine::new(Counting {
        keys: MemoryKeyring::from_versions(cmks).unwrap(),
        current: AtomicUsize::new(0),
        version: AtomicUsize::new(0),
    })
}

/// Blobs under a version that `counting` may have or not.
fn sealed_under(version: u32, number: u8) -> Vec<u8> {
    let material = match version {
        0 => [3; 32],
        1 => [1; 32],
        7 => [2; 32],
        _ => [9; 32],
    };
    let dek = Dek::from_bytes(&core::array::from_fn(|at| number.wrapping_add(at as u8)));
    cmk(KEY_ID, version, &material)
        .seal(&some_context(), &dek)
        .as_bytes()
        .to_vec()
}

#[test]
fn rewrap_deks_looks_a_version_up_once_for_a_run_of_blobs() {
    let (engine, id, context) = (counting(), key_id(KEY_ID), some_context());
    let looked_up = || {
        let Counting { current, version, .. } = engine.keyring();
        (version.swap(0, Ordering::Relaxed), current.swap(0, Ordering::Relaxed))
    };
    let rewrap = |blobs: &[Vec<u8>]| -> Vec<Result<Rewrapped, Error>> {
        let results: Vec<_> = engine
            .rewrap_deks(&id, blobs.iter().map(|blob| (&context, blob)))
            .collect();
        // Rewrapping one by one gives the same results.
        for (blob, result) in blobs.iter().zip(&results) {
            let one = SealedDek::from_bytes(blob).and_then(|sealed| engine.rewrap_dek(&id, &context, &sealed));
            assert_eq!(
                result.as_ref().map_err(ToString::to_string),
                one.as_ref().map_err(ToString::to_string)
            );
        }
        results
    };
    let count = |blobs: &[Vec<u8>]| {
        looked_up();
        let done = engine
            .rewrap_deks(&id, blobs.iter().map(|blob| (&context, blob)))
            .filter(Result::is_ok)
            .count();
        let (version, current) = looked_up();
        (done, version, current)
    };

    // Each chunk of 64 blobs takes two look-ups: one for its run, and one for the current version.
    let one_version: Vec<_> = (0..200_u8).map(|number| sealed_under(1, number)).collect();
    assert_eq!(count(&one_version), (200, 4, 4));
    assert!(
        rewrap(&one_version)
            .iter()
            .all(|result| matches!(result, Ok(Rewrapped::Renewed(_))))
    );
    // Three runs. A blob of the current version does not change.
    let runs: Vec<_> = [0, 0, 7, 7, 1, 1]
        .into_iter()
        .zip(0..)
        .map(|(version, number)| sealed_under(version, number))
        .collect();
    assert_eq!(count(&runs), (6, 3, 1));
    let results = rewrap(&runs);
    assert!(matches!(&results[2], Ok(Rewrapped::AlreadyCurrent(sealed)) if sealed.as_bytes()[..] == runs[2]));
    // An error of one blob does not affect the blobs beside it.
    let mut damaged = sealed_under(1, 3);
    damaged[50] ^= 1;
    let mut changed: [u8; 188] = sealed_under(1, 4).try_into().unwrap();
    changed[50] ^= 1;
    let foreign = cmk(OTHER_KEY_ID, 1, &[1; 32]).seal(&context, &Dek::from_bytes(&[5; 64]));
    let mixed = [
        sealed_under(1, 1),
        vec![1, 2, 3],
        sealed_under(1, 2),
        damaged,
        with_checksum(changed).to_vec(),
        foreign.as_bytes().to_vec(),
        sealed_under(9, 5),
        sealed_under(9, 6),
        sealed_under(1, 7),
    ];
    let kinds: Vec<_> = rewrap(&mixed)
        .into_iter()
        .map(|result| result.err().map(|error| error.kind()))
        .collect();
    let expected = [
        None,
        Some(ErrorKind::NotABlob(dekseal::BlobRule::Length)),
        None,
        Some(ErrorKind::DamagedBlob),
        Some(ErrorKind::AuthenticationFailed),
        Some(ErrorKind::KeyMismatch),
        Some(ErrorKind::UnknownKeyVersion),
        Some(ErrorKind::UnknownKeyVersion),
        None,
    ];
    assert_eq!(kinds, expected);
    // If all blobs fail, nothing is sealed.
    assert_eq!(count(&[vec![1, 2, 3]]), (0, 0, 0));
    assert_eq!(count(&[]), (0, 0, 0));
    // The iterator reads at most one chunk ahead.
    let mut taken = 0;
    let blobs = one_version.iter().map(|blob| (&context, blob)).inspect(|_| taken += 1);
    assert!(engine.rewrap_deks(&id, blobs).next().unwrap().is_ok());
    assert_eq!(taken, 64);
    let blobs = engine.rewrap_deks(&id, one_version.iter().map(|blob| (&context, blob)));
    assert_eq!(blobs.size_hint(), (200, Some(200)));
}

#[test]
fn errors_name_key_and_version_even_where_the_keyring_does_not() {
    let (engine, id, context) = (counting(), key_id(KEY_ID), some_context());
    let open = |version| {
        let sealed = SealedDek::from_bytes(&sealed_under(version, 0)).unwrap();
        let error = engine.decrypt_dek(&id, &context, &sealed).unwrap_err();
        let any = engine.decrypt_dek_under_any_key(&context, &sealed).unwrap_err();
        assert_eq!(any.to_string(), error.to_string());
        error.to_string()
    };
    assert_eq!(
        open(9),
        format!("unknown key version (key {KEY_ID}, version 9, newest known version 7)")
    );
    let nobody = key_id(OTHER_KEY_ID);
    let error = engine
        .encrypt_dek(&nobody, &context, &Dek::from_bytes(&[5; 64]))
        .unwrap_err();
    assert_eq!(error.to_string(), format!("unknown key (key {OTHER_KEY_ID})"));
    let random: Vec<u8> = (0..64).collect();
    let error = engine
        .create_dek_with_rng(&nobody, &context, &mut Fixed(&random))
        .unwrap_err();
    assert_eq!(error.to_string(), format!("unknown key (key {OTHER_KEY_ID})"));
    let error = engine
        .create_deks_with_rng(&nobody, &context, &mut [None], &mut Fixed(&random))
        .unwrap_err();
    assert_eq!(error.to_string(), format!("unknown key (key {OTHER_KEY_ID})"));

    // A wrong context, wrong material and a changed blob give the same text.
    let sealed = sealed_under(1, 0);
    let other = EncryptionContext::none();
    let mut changed: [u8; 188] = sealed.clone().try_into().unwrap();
    changed[50] ^= 1;
    let wrong_material = cmk(KEY_ID, 1, &[8; 32]).seal(&context, &Dek::from_bytes(&[5; 64]));
    for (context, blob) in [
        (&other, sealed.as_slice()),
        (&context, with_checksum(changed).as_slice()),
        (&context, wrong_material.as_bytes()),
    ] {
        let sealed = SealedDek::from_bytes(blob).unwrap();
        let error = engine.decrypt_dek(&id, context, &sealed).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("authentication failed (key {KEY_ID}, version 1)")
        );
    }
}
