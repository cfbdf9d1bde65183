//! No text that the crate makes contains a secret. All secrets here contain a mark, and every text is searched for it.

use std::{
    error::Error as StdError,
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
};

use base64ct::{Base64, Encoding};
use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, KeyId, Keyset, MemoryKeyring, SealedDek,
    payload::{PayloadCipher, PayloadHeader, SEALED_SEGMENT_LEN},
};

use crate::support::{Failing, Fixed, KEY_ID, NOW, OTHER_KEY_ID, Repeating, cmk, encrypt, key_id, time, with_checksum};

const MARK: [u8; 6] = *b"S3cr3t";

/// 64 bytes: eight times the mark with bytes that distinguish this secret from others, and its halves from each other.
pub(crate) fn secret(number: u8) -> [u8; 64] {
    core::array::from_fn(|at| match at % 8 {
        6 => number,
        7 => u8::try_from(at).unwrap(),
        at => MARK[at],
    })
}

/// Whether a text contains the mark: raw, as hex in either case, as a list of numbers on one line or on several, or as
/// base64. Three or four of its bytes suffice.
pub(crate) fn is_marked(text: &str) -> bool {
    let lower = text.to_lowercase();
    let unspaced: String = lower.split_whitespace().collect();
    let unspaced = unspaced.replace("0x", "");
    let list = |list: String| list.trim_matches(['[', ']']).replace(' ', "");
    MARK.windows(4).any(|part| {
        text.contains(core::str::from_utf8(part).unwrap())
            || lower.contains(&hex::encode(part))
            || unspaced.contains(&list(format!("{part:?}")))
            || unspaced.contains(&list(format!("{part:x?}")))
            // Within 64 bytes the mark has all three alignments of base64.
            || text.contains(&Base64::encode_string(&part[..3]))
    })
}

#[test]
fn the_search_finds_a_secret_in_every_form() {
    let secret = secret(1);
    for shown in [
        String::from_utf8_lossy(&secret).into_owned(),
        hex::encode(secret),
        hex::encode_upper(secret),
        Base64::encode_string(&secret),
        Base64::encode_string(&secret[1..]),
        Base64::encode_string(&secret[2..]),
        format!("{secret:?}"),
        format!("{secret:#?}"),
        format!("{secret:02x?}"),
        format!("{secret:#X?}"),
        format!("{:?}", &secret[8..12]),
    ] {
        assert!(is_marked(&shown), "{shown}");
        assert!(is_marked(&format!("Dek({shown})")));
    }
    assert!(!is_marked("Dek(..)"));
}

/// All texts so far.
#[derive(Default)]
struct Heard {
    texts: Vec<String>,
    /// The types whose `Debug` output was recorded.
    types: Vec<String>,
}

impl Heard {
    fn debug<T: Debug + ?Sized>(&mut self, value: &T) {
        let name = std::any::type_name::<T>().split('<').next().unwrap();
        self.types.push(name.rsplit("::").next().unwrap().to_owned());
        let shown = format!("{value:?} {value:#?}");
        assert_ne!(shown.trim(), "", "{name}");
        self.texts.push(shown);
    }

    /// The texts of an error and of its sources. `unwrap` shows no more.
    #[track_caller]
    fn refused<T, E: StdError + 'static>(&mut self, result: Result<T, E>) {
        let Err(error) = result else {
            panic!("it was not refused");
        };
        let mut source: Option<&dyn StdError> = Some(&error);
        while let Some(error) = source {
            self.texts.push(format!("{error} {error:?} {error:#?}"));
            source = error.source();
        }
    }

    /// The message of a panic in the caller's code.
    #[track_caller]
    fn panic<T>(&mut self, f: impl FnOnce() -> T) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(f)) else {
            panic!("there was no panic");
        };
        self.texts.push(*panic.downcast().unwrap());
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        for text in &self.texts {
            assert!(!is_marked(text) || std::thread::panicking(), "{text}");
        }
    }
}

/// A context with marks in its key and value. It is not secret, but no text may contain it.
fn context() -> EncryptionContext {
    EncryptionContext::from_pairs([("S3cr3t name", "S3cr3t value")]).unwrap()
}

fn engine() -> Engine<MemoryKeyring> {
    let cmks = [cmk(KEY_ID, 0, &secret(1)), cmk(OTHER_KEY_ID, 0, &secret(2))];
    Engine::new(MemoryKeyring::from_versions(cmks).unwrap())
}

#[test]
pub(crate) fn debug_shows_no_secret() {
    let mut heard = Heard::default();
    let (engine, id, context) = (engine(), key_id(KEY_ID), context());
    let (dek, sealed) = engine
        .create_dek_with_rng(&id, &context, &mut Fixed(&secret(3)))
        .unwrap();
    heard.debug(&sealed);
    heard.debug(&engine.rewrap_dek(&id, &context, &sealed).unwrap());
    let payload_cipher = PayloadCipher::new(&dek, sealed);
    let payload = payload_cipher
        .encrypt_with_rng(&secret(9), &mut Fixed(&secret(4)))
        .unwrap();
    heard.debug(&payload_cipher.decrypt(&payload).unwrap());
    let (header, sealer) = payload_cipher.sealer_with_rng(&mut Fixed(&secret(4))).unwrap();
    heard.debug(&payload_cipher.opener(&header).unwrap());
    heard.debug(&header);
    heard.debug(&sealer);
    heard.debug(&payload_cipher);
    heard.debug(&dek);
    heard.debug(&cmk(KEY_ID, 5, &secret(5)));
    heard.debug(&context);
    heard.debug(&id);
    let keys = engine.keyring().keys();
    heard.debug(&*keys);
    heard.debug(&keys.info(&id).unwrap());
    heard.debug(&keys.info(&id).unwrap().state);
    heard.debug(engine.keyring());
    heard.debug(&engine);
    let mut slots = [const { None }; 2];
    let random = [secret(6), secret(7)].concat();
    engine
        .create_deks_with_rng(&id, &context, &mut slots, &mut Fixed(&random))
        .unwrap();
    heard.debug(&slots[..]);

    let error = cmk(KEY_ID, 0, &secret(8)).open(&context, &sealed).unwrap_err();
    heard.debug(&error.kind());
    heard.debug(&error);
    heard.debug(&dekseal::BlobRule::Length);
    heard.debug(&dekseal::ContextRule::EmptyKey);
    heard.debug(&dekseal::PayloadRule::Length);
    heard.debug(&dekseal::RandomnessFault::Stuck);
    assert_eq!(format!("{dek:?}"), "Dek(..)");
    assert_eq!(format!("{context:?}"), "EncryptionContext(29 bytes)");
    assert_eq!(
        format!("{:?} {engine:?}", engine.keyring()),
        "MemoryKeyring(..) Engine(..)"
    );
    assert_eq!(format!("{sealed:?}"), format!("SealedDek({KEY_ID} version 0)"));
    assert_eq!(format!("{id:?}"), format!("KeyId({KEY_ID})"));

    #[cfg(feature = "api")]
    {
        let (plain_text, context) = (plain_text(3), r#"{"S3cr3t":"S3cr3t"}"#);
        let body = format!(
            r#"{{"key_id":"{KEY_ID}","plain_text":"{plain_text}","datakey_plain_length":64,
                "encryption_context":{context}}}"#
        );
        let request = dekseal::api::Request::parse("POST", "/v1.0/p/kms/encrypt-datakey", body.as_bytes()).unwrap();
        heard.debug(&request);
        heard.debug(&request.operation());
        let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":512}}"#);
        let path = "/v1.0/p/kms/create-datakey";
        let response = dekseal::api::handle_with_rng(&engine, "POST", path, body.as_bytes(), &mut Fixed(&secret(3)));
        assert!(is_marked(response.body()));
        heard.debug(&response);
    }
    #[cfg(feature = "std")]
    {
        use std::io::{BufRead, Cursor, Write};
        let plaintext = secret(9).repeat(2000);
        let payload = payload_cipher.encrypt(&plaintext).unwrap();
        let mut writer = payload_cipher.encrypt_writer(Vec::new()).unwrap();
        writer.write_all(&plaintext).unwrap();
        heard.debug(&writer);
        let mut reader = payload_cipher.decrypt_reader(payload.as_slice()).unwrap();
        assert!(is_marked(&String::from_utf8_lossy(reader.fill_buf().unwrap())));
        heard.debug(&reader);
        let mut reader = payload_cipher.decrypt_seek_reader(Cursor::new(payload)).unwrap();
        assert!(is_marked(&String::from_utf8_lossy(reader.fill_buf().unwrap())));
        heard.debug(&reader);
    }
    #[cfg(feature = "file-keyring")]
    {
        let (_directory, path) = crate::keyring_file::directory();
        let keyring = dekseal::FileKeyring::create(path, cmk(KEY_ID, 0, &secret(1))).unwrap();
        keyring
            .update(|keys| keys.import_key(key_id(OTHER_KEY_ID), &secret(2)))
            .unwrap();
        heard.debug(&*keyring.keys());
        heard.debug(&keyring.keys().versions(&key_id(OTHER_KEY_ID)).unwrap()[0]);
        heard.debug(&time(NOW));
        heard.debug(&keyring);
        heard.debug(&dekseal::FileFault::Io);
        #[cfg(feature = "store-keyring")]
        {
            use dekseal::store::{
                Action, Call, Change, MemoryStore, Request, Revision, StoreErrorKind, StoredDocument,
            };
            let (revision, document) = (Revision::new(&[7; 32]).unwrap(), secret(1).to_vec());
            let stored = StoredDocument { revision, document };
            let store = MemoryStore::new();
            store.overwrite(&id, Some(stored.clone()));
            heard.debug(&revision);
            heard.debug(&Request::Put {
                key_id: &id,
                expected: None,
                new: &stored,
            });
            heard.debug(&stored);
            heard.debug(&store);
            heard.debug(&Action::Serve);
            heard.debug(&Call::within(std::time::Duration::ZERO));
            heard.debug(&Change::Key(id));
            heard.debug(&StoreErrorKind::Conflict);
            heard.debug(&dekseal::store::StoreError::from(StoreErrorKind::Conflict));
            heard.debug(&dekseal::StoreFault::Stale);
            heard.debug(&dekseal::StoreSettings::default());
            let keyring = dekseal::StoreKeyring::new(MemoryStore::new(), cmk(KEY_ID, 0, &secret(1)));
            let other = key_id(OTHER_KEY_ID);
            keyring
                .update(&other, |keys| keys.import_key(other, &secret(2)))
                .unwrap();
            heard.debug(&keyring);
            heard.debug(&keyring.counters());
            heard.debug(&keyring.store());
            let pass = keyring.reseal(None, |_, _| std::ops::ControlFlow::Continue(()));
            heard.debug(&pass.unwrap());
            assert!(!is_marked(&String::from_utf8_lossy(&keyring.snapshot().unwrap())));
        }
        every_type_was_shown(&heard.types);
    }
}

/// Every public type was shown.
#[cfg(feature = "file-keyring")]
fn every_type_was_shown(shown: &[String]) {
    let mut types = 0;
    for (path, text) in crate::imports::sources() {
        let of_stores = path.starts_with("keyring/store") || path.starts_with("keyring/fleet");
        if (of_stores && cfg!(not(feature = "store-keyring")))
            || (path.starts_with("api") && cfg!(not(feature = "api")))
        {
            continue;
        }
        let declared = ["\npub struct ", "\npub enum "];
        for after in declared.iter().flat_map(|declared| text.split(declared).skip(1)) {
            let name = after.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap();
            if name == "StoreFault" && cfg!(not(feature = "store-keyring")) {
                continue;
            }
            assert!(shown.iter().any(|shown| shown == name), "{name} of {}", path.display());
            types += 1;
        }
    }
    assert!(types > 25, "only {types} types found: the search is broken");
}

/// The hex digits of a DEK and its digest.
#[cfg(feature = "api")]
fn plain_text(number: u8) -> String {
    use sha2::{Digest, Sha256};
    hex::encode_upper(secret(number)) + &hex::encode_upper(Sha256::digest(secret(number)))
}

#[test]
pub(crate) fn no_error_contains_a_dek_or_a_key() {
    let mut heard = Heard::default();
    let (engine, id, other, context, none) = (
        engine(),
        key_id(KEY_ID),
        key_id(OTHER_KEY_ID),
        context(),
        EncryptionContext::none(),
    );

    // Invalid text for each type.
    heard.refused("S3cr3tS3-cr3t-S3cr-3tS3-cr3tS3cr3tS3".parse::<KeyId>());
    heard.refused(SealedDek::from_bytes(&secret(1)));
    heard.refused(EncryptionContext::from_pairs([("", "S3cr3t")]));
    heard.refused(EncryptionContext::from_pairs([
        ("S3cr3t", "S3cr3t"),
        ("S3cr3t", "S3cr3t"),
    ]));
    heard.refused(EncryptionContext::from_pairs([("S3cr3t", "S3cr3t".repeat(2000))]));
    heard.refused(CmkVersion::new(id, 0, &secret(1)[..31]));
    heard.refused(CmkVersion::new(id, 0, &secret(1).repeat(2)));
    heard.refused(MemoryKeyring::from_versions([
        cmk(KEY_ID, 0, &secret(1)),
        cmk(KEY_ID, 0, &secret(2)),
    ]));

    // Bytes that a generator returned before it failed, or that it repeated.
    for half in [&secret(1)[..32], &secret(1)[..8]] {
        heard.refused(Dek::generate_with_rng(&mut Repeating(half)));
        heard.refused(engine.create_dek_with_rng(&id, &context, &mut Repeating(half)));
        heard.refused(encrypt(&engine, &id, &context, &secret(1), &mut Repeating(half)));
        heard.refused(Keyset::new().create_key_with_rng(id, time(NOW), &mut Repeating(half)));
    }
    let mut slots = [const { None }; 70];
    heard.refused(engine.create_deks_with_rng(&id, &context, &mut slots, &mut Fixed(&secret(1).repeat(64))));
    heard.refused(encrypt(&engine, &id, &context, &secret(1), &mut Fixed(&secret(1))));
    heard.refused(encrypt(&engine, &id, &context, &secret(1), &mut Failing));

    // A key in each of its states, and material of every length.
    let mut keys = Keyset::clone(&engine.keyring().keys());
    heard.refused(keys.import_key_at(id, &secret(3), time(NOW)));
    heard.refused(keys.import_key_at(
        key_id("43e243b5-0095-1b21-67b2-58370386cc4a"),
        &secret(3)[..31],
        time(NOW),
    ));
    heard.refused(keys.import_version_at(&id, &secret(3).repeat(2), time(NOW)));
    heard.refused(keys.rotate_with_rng(&id, time(NOW), &mut Repeating(&secret(3)[..32])));
    heard.refused(keys.set_min_version(&id, 1));
    heard.refused(keys.enable(&id));
    heard.refused(keys.cancel_deletion(&id));
    heard.refused(keys.schedule_deletion_at(&id, 1, time(NOW)));
    keys.disable(&id).unwrap();
    keys.schedule_deletion_at(&other, 7, time(NOW)).unwrap();
    heard.refused(keys.disable(&id));
    heard.refused(keys.purge_at(&other, time(NOW)));
    for id in [&id, &other] {
        heard.refused(keys.import_version_at(id, &secret(3), time(NOW)));
    }
    let unusable = Engine::new(MemoryKeyring::new(keys));
    let nobody = Engine::new(MemoryKeyring::new(Keyset::new()));

    // Blobs and payloads that do not open, for every reason, and DEKs that cannot be sealed.
    let (dek, sealed) = engine
        .create_dek_with_rng(&id, &context, &mut Fixed(&secret(4)))
        .unwrap();
    let payload = PayloadCipher::new(&dek, sealed)
        .encrypt_with_rng(&secret(5).repeat(2000), &mut Fixed(&secret(6)))
        .unwrap();
    let header = PayloadHeader::from_bytes(payload.first_chunk().unwrap()).unwrap();
    let moved = engine
        .rewrap_dek_to((&id, &context), &sealed, (&other, &context))
        .unwrap();
    for (engine, id, context) in [
        (&unusable, &id, &context),
        (&nobody, &id, &context),
        (&engine, &other, &context),
        (&engine, &id, &none),
    ] {
        heard.refused(engine.decrypt_dek(id, context, &sealed));
        heard.refused(engine.rewrap_dek(id, context, &sealed));
        heard.refused(engine.rewrap_dek_to((id, context), &sealed, (&other, context)));
        heard.refused(engine.open_payload_cipher(id, context, &sealed));
        heard.refused(engine.decrypt(id, context, &payload));
        heard.refused(engine.rewrap_header(id, context, &other, &header));
    }
    for engine in [&unusable, &nobody] {
        heard.refused(engine.encrypt_dek(&id, &context, &dek));
        heard.refused(encrypt(engine, &other, &context, &secret(5), &mut Fixed(&secret(4))));
    }
    heard.refused(engine.decrypt_dek_under_any_key(&none, &moved));
    for other in [
        cmk(KEY_ID, 0, &secret(7)),
        cmk(KEY_ID, 1, &secret(1)),
        cmk(OTHER_KEY_ID, 0, &secret(1)),
    ] {
        heard.refused(other.open(&context, &sealed));
    }
    // A change before the checksum, which is repaired.
    for at in 0..156 {
        let mut changed = *sealed.as_bytes();
        changed[at] ^= 1;
        heard.refused(SealedDek::from_bytes(&changed));
        match SealedDek::from_bytes(&with_checksum(changed)) {
            Ok(changed) => heard.refused(engine.decrypt_dek(&id, &context, &changed)),
            refused => heard.refused(refused),
        }
    }
    for at in [0, 7, 8, 12, 44, 232, 264, 264 + SEALED_SEGMENT_LEN, payload.len() - 1] {
        let mut changed = payload.clone();
        changed[at] ^= 1;
        heard.refused(engine.decrypt(&id, &context, &changed));
        heard.refused(engine.decrypt(&id, &context, &payload[..at]));
    }
    let mut room = [0; 10];
    let payload_cipher = engine.open_payload_cipher(&id, &context, header.sealed_dek()).unwrap();
    heard.refused(payload_cipher.decrypt_into(&payload, &mut room));
    heard.refused(payload_cipher.encrypt_into_with_rng(&secret(5), &mut room, &mut Fixed(&secret(4))));

    // Results that a caller expected to fail, or to be equal.
    heard.panic(|| engine.decrypt_dek(&id, &context, &sealed).unwrap_err());
    heard.panic(|| {
        engine
            .create_dek_with_rng(&id, &context, &mut Fixed(&secret(4)))
            .unwrap_err()
    });
    heard.panic(|| Dek::generate_with_rng(&mut Fixed(&secret(4))).unwrap_err());
    heard.panic(|| engine.open_payload_cipher(&id, &context, &sealed).unwrap_err());
    heard.panic(|| engine.decrypt(&id, &context, &payload).unwrap_err());
    heard.panic(|| CmkVersion::new(id, 0, &secret(1)).unwrap_err());
    heard.panic(|| EncryptionContext::from_pairs([("S3cr3t", "S3cr3t")]).unwrap_err());
    heard.panic(|| assert_eq!(dek, Dek::from_bytes(&secret(5))));
    heard.panic(|| assert_eq!(context, none));
}

#[cfg(feature = "std")]
#[test]
pub(crate) fn no_error_of_a_stream_shows_plaintext() {
    use std::io::{Cursor, Read, Seek, SeekFrom, Write};

    let mut heard = Heard::default();
    let (engine, id, context) = (engine(), key_id(KEY_ID), context());
    let payload_cipher = engine
        .create_payload_cipher_with_rng(&id, &context, &mut Fixed(&secret(1)))
        .unwrap();
    let plaintext = secret(2).repeat(3000);
    let payload = payload_cipher.encrypt(&plaintext).unwrap();

    // A writer that accepts a part, and then nothing.
    for room in [0, 100, 300, 70_000, payload.len() - 1] {
        let mut room = vec![0; room];
        let mut writer = payload_cipher.encrypt_writer(&mut room[..]).unwrap();
        match writer.write_all(&plaintext) {
            Ok(()) => heard.refused(writer.finish()),
            refused => heard.refused(refused),
        }
    }
    for at in [0, 44, 232, 264, 264 + SEALED_SEGMENT_LEN] {
        let mut changed = payload.clone();
        changed[at] ^= 1;
        for payload in [&changed[..], &payload[..at], &payload[..at + 20]] {
            let mut all = Vec::new();
            match engine.decrypt_reader(&id, &context, payload) {
                Ok(mut reader) => heard.refused(reader.read_to_end(&mut all)),
                Err(error) => heard.refused(Err::<(), _>(error)),
            }
            match engine.decrypt_seek_reader(&id, &context, Cursor::new(payload)) {
                Ok(mut reader) => heard.refused(reader.read_to_end(&mut all)),
                Err(error) => heard.refused(Err::<(), _>(error)),
            }
        }
    }
    let mut reader = payload_cipher.decrypt_seek_reader(Cursor::new(&payload)).unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    heard.refused(reader.seek(SeekFrom::Current(-11)));
    heard.panic(|| payload_cipher.encrypt_writer(Vec::new()).unwrap_err());
    heard.panic(|| payload_cipher.decrypt_reader(payload.as_slice()).unwrap_err());
    heard.panic(|| payload_cipher.decrypt_seek_reader(Cursor::new(&payload)).unwrap_err());
}

#[cfg(feature = "file-keyring")]
#[test]
pub(crate) fn no_error_of_a_keyring_file_shows_material() {
    use dekseal::FileKeyring;
    use std::fs;

    let mut heard = Heard::default();
    let (directory, path) = crate::keyring_file::directory();
    let (id, other) = (key_id(KEY_ID), key_id(OTHER_KEY_ID));
    let root = || cmk("00000000-0000-0000-0000-00000000root", 0, &secret(1));
    let keyring = FileKeyring::create(&path, root()).unwrap();
    keyring.update(|keys| keys.import_key(id, &secret(2))).unwrap();
    keyring
        .update(|keys| keys.create_key_with_rng(other, time(NOW), &mut Fixed(&secret(3))))
        .unwrap();
    let good = fs::read(&path).unwrap();
    assert!(!is_marked(&String::from_utf8_lossy(&good)));

    heard.refused(FileKeyring::create(&path, root()));
    heard.refused(FileKeyring::create(directory.path().join("no/such"), root()));
    heard.refused(FileKeyring::open(directory.path().join("none"), root()));
    heard.refused(FileKeyring::open(&path, cmk(root().key_id().as_str(), 0, &secret(4))));
    heard.refused(keyring.update(|keys| keys.import_key(id, &secret(5))));
    heard.refused(keyring.update(|keys| keys.import_key(root().key_id(), &secret(5))));
    heard.refused(keyring.update(|keys| keys.import_version(&id, &secret(5)[..31])));
    heard.refused(keyring.update(|keys| keys.rotate_with_rng(&id, time(NOW), &mut Repeating(&secret(5)[..32]))));
    heard.refused(keyring.update(|keys| {
        *keys = Keyset::clone(&engine().keyring().keys());
        Ok(())
    }));
    heard.refused(keyring.change_root(cmk(KEY_ID, 0, &secret(5))));
    heard.panic(|| FileKeyring::open(&path, root()).unwrap_err());
    heard.panic(|| keyring.update(|keys| Ok(keys.clone())).unwrap_err());

    // The parser's message for an invalid text may quote it. Here the text contains material.
    let texts = [
        good[..good.len() / 2].to_vec(),
        secret(6).to_vec(),
        hex::encode(secret(6)).into_bytes(),
        format!("\"{}\"", hex::encode(secret(6))).into_bytes(),
        String::from_utf8_lossy(&good)
            .replace("dekseal keyring", "S3cr3t")
            .into_bytes(),
        String::from_utf8_lossy(&good)
            .replace("\"generation\"", "\"S3cr3t\"")
            .into_bytes(),
        String::from_utf8_lossy(&good)
            .replace("\"enabled\"", &format!("\"{}\"", hex::encode(secret(6))))
            .into_bytes(),
        String::from_utf8_lossy(&good)
            .replace(
                "\"material_length\": 64",
                &format!("\"material_length\": \"{}\"", hex::encode(secret(6))),
            )
            .into_bytes(),
    ];
    for text in texts {
        assert_ne!(text, good);
        fs::write(&path, text).unwrap();
        heard.refused(FileKeyring::open(&path, root()));
        heard.refused(keyring.refresh());
        heard.refused(keyring.update(|keys| keys.import_version(&id, &secret(6))));
    }
}

#[cfg(feature = "api")]
#[test]
pub(crate) fn no_response_contains_a_secret_that_was_not_requested() {
    use dekseal::api;
    use serde_json::json;

    let mut heard = Heard::default();
    let plain = plain_text(3);
    let sealed = engine()
        .encrypt_dek(&key_id(KEY_ID), &context(), &Dek::from_bytes(&secret(3)))
        .unwrap();
    let cipher = hex::encode(sealed);
    let requests = [
        ("create-datakey", r#""datakey_length":512"#.to_owned()),
        ("create-datakey-without-plaintext", r#""datakey_length":512"#.to_owned()),
        (
            "encrypt-datakey",
            format!(r#""plain_text":"{plain}","datakey_plain_length":64"#),
        ),
        (
            "decrypt-datakey",
            format!(r#""cipher_text":"{cipher}","datakey_cipher_length":64"#),
        ),
    ];
    let keys = |change: fn(&mut Keyset)| {
        let mut keys = Keyset::clone(&engine().keyring().keys());
        change(&mut keys);
        Engine::new(MemoryKeyring::new(keys))
    };
    // A valid request, and then every refusal that the key can cause.
    let engines = [
        engine(),
        keys(|keys| keys.disable(&key_id(KEY_ID)).unwrap()),
        keys(|keys| assert!(keys.schedule_deletion_at(&key_id(KEY_ID), 7, time(NOW)).is_ok())),
        keys(|keys| *keys = Keyset::new()),
        Engine::new(MemoryKeyring::from_versions([cmk(KEY_ID, 0, &secret(9))]).unwrap()),
        Engine::new(MemoryKeyring::from_versions([cmk(KEY_ID, 1, &secret(9))]).unwrap()),
    ];
    for (operation, fields) in requests {
        let path = format!("/v1.0/p/kms/{operation}");
        let body = format!(r#"{{"key_id":"{KEY_ID}",{fields},"encryption_context":{{"S3cr3t name":"S3cr3t value"}}}}"#);
        let mut reply = |engine: &Engine<MemoryKeyring>, body: &[u8], random: &[u8]| {
            let response = api::handle_with_rng(engine, "POST", &path, body, &mut Fixed(random));
            let mut text = response.body().to_owned();
            if response.status() == 200 {
                // The one field that returns the DEK.
                let mut reply: serde_json::Map<_, _> = serde_json::from_str(&text).unwrap();
                let given = [reply.remove("plain_text"), reply.remove("data_key")];
                let expected = ["create-datakey", "decrypt-datakey"].contains(&operation);
                assert_eq!(given.iter().flatten().any(|dek| is_marked(&dek.to_string())), expected);
                text = serde_json::to_string(&reply).unwrap();
            }
            heard.texts.push(format!("{text} {response:?} {response:#?}"));
            response.error_code()
        };
        assert_eq!(reply(&engines[0], body.as_bytes(), &secret(3)), None);
        for engine in &engines {
            reply(engine, body.as_bytes(), &secret(3));
            reply(engine, body.as_bytes(), &secret(3)[..63]);
            reply(engine, body.as_bytes(), &secret(3)[..32].repeat(2));
        }
        // Truncated and changed at any place.
        for at in 0..body.len() {
            assert_eq!(reply(&engines[0], &body.as_bytes()[..at], &secret(3)), Some("KMS.0202"));
            for change in [0x01, 0x20, 0x80] {
                let mut changed = body.clone().into_bytes();
                changed[at] ^= change;
                reply(&engines[0], &changed, &secret(3));
            }
        }
        // The DEK in the place of another field. An unknown field name is repeated in the message, so a DEK must not be
        // sent as a name.
        for name in [
            "key_id",
            "sequence",
            "encryption_context",
            "datakey_length",
            "plain_text",
            "datakey_plain_length",
            "cipher_text",
            "datakey_cipher_length",
        ] {
            for value in [
                json!(plain),
                json!([plain]),
                json!({"": plain}),
                json!({&plain: plain, "S3cr3t": 0}),
            ] {
                let mut fields: serde_json::Map<_, _> = serde_json::from_str(&body).unwrap();
                fields.insert(name.to_owned(), value);
                let body = serde_json::to_string(&fields).unwrap();
                reply(&engines[0], body.as_bytes(), &secret(3));
            }
        }
        for (method, path) in [(plain.as_str(), path.as_str()), ("POST", plain.as_str())] {
            let response = api::handle_with_rng(&engines[0], method, path, body.as_bytes(), &mut Failing);
            heard.texts.push(response.body().to_owned());
        }
    }
    heard.texts.push(api::Response::forbidden().body().to_owned());
}

#[test]
fn secrets_are_wiped_on_drop() {
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<Dek>();
    wiped::<CmkVersion>();
}
