//! One event for each operation, with the fields and the level of docs/guide/logging.md, and without secrets.

use std::{
    collections::BTreeSet,
    fmt::{Debug, Write as _},
    fs,
    io::{self, Cursor, Read},
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use dekseal::{
    CmkVersion, EncryptionContext, Engine, Error, FileKeyring, KeyId, Keyring, Keyset, MemoryKeyring, SealedDek,
    payload::PayloadHeader,
};
use sha2::{Digest, Sha256};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{
    imports, secrets,
    support::{Failing, Fixed, KEY_ID, NOW, OTHER_KEY_ID, Repeating, cmk, dek, key_id, time},
};

/// Records a line for each event that it is interested in: the level, and the fields in order.
#[derive(Clone)]
struct Collector {
    interested: bool,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    fn new(interested: bool) -> Self {
        Self {
            interested,
            lines: Arc::default(),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        self.interested
    }

    fn event(&self, event: &Event<'_>) {
        assert_eq!(event.metadata().target(), "dekseal");
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        panic!("there are no spans");
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The result of `f`, and the events of this thread while it ran.
fn heard<T>(f: impl FnOnce() -> T) -> (T, Vec<String>) {
    // While there is only one subscriber, a thread without a subscriber that reaches an event first would disable the
    // event for all threads.
    static ANOTHER: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(Collector::new(true)));
    LazyLock::force(&ANOTHER);
    let collector = Collector::new(true);
    let value = tracing::subscriber::with_default(collector.clone(), f);
    (value, collector.lines())
}

/// The operations that emitted an event.
#[derive(Default)]
struct Operations(BTreeSet<String>);

impl Operations {
    /// Runs an operation, which must emit exactly this event.
    #[track_caller]
    fn one<T>(&mut self, expected: &str, f: impl FnOnce() -> T) -> T {
        let (value, lines) = heard(f);
        assert_eq!(lines, [expected]);
        let (_, operation) = expected.split_once(" operation=").unwrap();
        self.0.insert(operation.split(' ').next().unwrap().to_owned());
        value
    }
}

const ROOT: &str = "00000000-0000-0000-0000-00000000root";
const CANONICAL: &[u8] = b"\x00\x01\x00\x06tenant\x00\x0242";

fn context() -> EncryptionContext {
    EncryptionContext::from_pairs([("tenant", "42")]).unwrap()
}

fn fingerprint(canonical: &[u8]) -> String {
    hex::encode(&Sha256::digest(canonical)[..8])
}

/// Version 1 of `KEY_ID` seals, and version 0 opens.
fn engine() -> Engine<MemoryKeyring> {
    let cmks = [
        cmk(KEY_ID, 0, &[7; 32]),
        cmk(KEY_ID, 1, &[8; 32]),
        cmk(OTHER_KEY_ID, 0, &[9; 32]),
    ];
    Engine::new(MemoryKeyring::from_versions(cmks).unwrap())
}

fn sealed_under_version_0() -> SealedDek {
    cmk(KEY_ID, 0, &[7; 32]).seal(&context(), &dek(&"5a".repeat(64)))
}

#[test]
fn each_operation_has_one_event() {
    let mut seen = Operations::default();
    deks(&mut seen);
    payloads(&mut seen);
    keys(&mut seen);
    keyrings(&mut seen);
    assert_eq!(seen.0, operations(), "an operation has no event, or no test here");
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide/logging.md");
    let guide = fs::read_to_string(guide).unwrap();
    for operation in seen.0 {
        assert!(
            guide.contains(&format!("`{operation}`")),
            "{operation} is not in the guide"
        );
    }
}

/// The methods of `Engine` that take a context, the methods that change keys, and those that change a keyring, as found
/// in the source.
fn operations() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (path, text) in imports::sources() {
        let keys = path.starts_with("keyring/keyset");
        for block in text.split("\nimpl").skip(1) {
            let block = block.split("\n}").next().unwrap();
            if !(block.starts_with("<K: Keyring> Engine<K>") || keys && block.starts_with(" Keyset")) {
                continue;
            }
            for function in block.split("    pub fn ").skip(1) {
                let name = function.split(['(', '<']).next().unwrap();
                let signature = function.split('{').next().unwrap();
                if if keys {
                    signature.contains("&mut self")
                } else {
                    signature.contains("EncryptionContext")
                } {
                    names.insert(name.trim_end_matches("_with_rng").trim_end_matches("_at").to_owned());
                }
            }
        }
    }
    assert!(names.len() > 28, "the search is broken: {names:?}");
    let keyring = [
        "create_keyring",
        "open_keyring",
        "update_keyring",
        "refresh_keyring",
        "change_root",
        "adopt_keyring",
        "write_back_keyring",
    ];
    names.extend(keyring.map(str::to_owned));
    names
}

fn deks(seen: &mut Operations) {
    let (engine, id, other, context) = (engine(), key_id(KEY_ID), key_id(OTHER_KEY_ID), context());
    let (sealed, print) = (sealed_under_version_0(), fingerprint(CANONICAL));
    let ok = |operation, version| {
        format!("DEBUG operation={operation} key_id={KEY_ID} key_version={version} context={print} outcome=ok")
    };

    let (dek, _) = seen
        .one(&ok("create_dek", 1), || engine.create_dek(&id, &context))
        .unwrap();
    seen.one(&ok("create_dek_without_plaintext", 1), || {
        engine.create_dek_without_plaintext(&id, &context)
    })
    .unwrap();
    seen.one(&ok("encrypt_dek", 1), || engine.encrypt_dek(&id, &context, &dek))
        .unwrap();
    seen.one(&ok("decrypt_dek", 0), || engine.decrypt_dek(&id, &context, &sealed))
        .unwrap();
    seen.one(&ok("decrypt_dek_under_any_key", 0), || {
        engine.decrypt_dek_under_any_key(&context, &sealed)
    })
    .unwrap();

    let mut slots = [const { None }; 70];
    let line = format!("DEBUG operation=create_deks key_id={KEY_ID} key_version=1 context={print} count=70 outcome=ok");
    seen.one(&line, || engine.create_deks(&id, &context, &mut slots))
        .unwrap();

    let line = format!(
        "DEBUG operation=rewrap_dek key_id={KEY_ID} key_version=0 context={print} new_key_id={KEY_ID} \
         new_key_version=1 outcome=ok"
    );
    seen.one(&line, || engine.rewrap_dek(&id, &context, &sealed)).unwrap();
    let line = format!(
        "DEBUG operation=rewrap_dek_to key_id={KEY_ID} key_version=0 context={print} new_key_id={OTHER_KEY_ID} \
         new_key_version=0 new_context={} outcome=ok",
        fingerprint(b"")
    );
    let none = EncryptionContext::none();
    seen.one(&line, || {
        engine.rewrap_dek_to((&id, &context), &sealed, (&other, &none))
    })
    .unwrap();

    let batch = |blobs: &[&[u8]]| {
        let pairs = blobs.iter().map(|blob| (&context, *blob));
        engine.rewrap_deks(&id, pairs).filter(Result::is_ok).count()
    };
    let line = format!("DEBUG operation=rewrap_deks key_id={KEY_ID} count=3 failed=0 outcome=ok");
    let good = sealed.as_bytes().as_slice();
    assert_eq!(seen.one(&line, || batch(&[good, good, good])), 3);
    // The first error of the highest level.
    let mut damaged = *sealed.as_bytes();
    damaged[100] ^= 1;
    let line = format!("WARN operation=rewrap_deks key_id={KEY_ID} count=4 failed=3 outcome=DamagedBlob");
    let foreign = cmk(OTHER_KEY_ID, 0, &[9; 32]).seal(&context, &dek);
    assert_eq!(
        seen.one(&line, || batch(&[&[1; 3], good, &damaged, foreign.as_bytes()])),
        1
    );
    let line = format!("INFO operation=rewrap_deks key_id={KEY_ID} count=1 failed=1 outcome=NotABlob(Length)");
    assert_eq!(seen.one(&line, || batch(&[&[1; 3]])), 0);
}

fn payloads(seen: &mut Operations) {
    let (engine, id, other, context) = (engine(), key_id(KEY_ID), key_id(OTHER_KEY_ID), context());
    let print = fingerprint(CANONICAL);
    let ok =
        |operation| format!("DEBUG operation={operation} key_id={KEY_ID} key_version=1 context={print} outcome=ok");

    let payload = seen
        .one(&ok("encrypt"), || engine.encrypt(&id, &context, &[5; 100]))
        .unwrap();
    seen.one(&ok("decrypt"), || engine.decrypt(&id, &context, &payload))
        .unwrap();
    let writer = seen.one(&ok("encrypt_writer"), || {
        engine.encrypt_writer(&id, &context, Vec::new())
    });
    drop(writer.unwrap());
    seen.one(&ok("decrypt_reader"), || {
        let reader = engine.decrypt_reader(&id, &context, payload.as_slice());
        reader.unwrap().read_to_end(&mut Vec::new()).unwrap()
    });
    seen.one(&ok("decrypt_seek_reader"), || {
        engine
            .decrypt_seek_reader(&id, &context, Cursor::new(&payload))
            .unwrap()
            .plaintext_len()
            .unwrap()
    });
    let payload_cipher = seen
        .one(&ok("create_payload_cipher"), || {
            engine.create_payload_cipher(&id, &context)
        })
        .unwrap();
    seen.one(&ok("open_payload_cipher"), || {
        engine.open_payload_cipher(&id, &context, payload_cipher.sealed_dek())
    })
    .unwrap();
    // This operation asks no keyring.
    let (_, lines) = heard(|| {
        payload_cipher
            .decrypt(&payload_cipher.encrypt(&[5; 100]).unwrap())
            .unwrap()
    });
    assert_eq!(lines, [] as [String; 0]);

    let moved = |operation| {
        format!(
            "DEBUG operation={operation} key_id={KEY_ID} key_version=1 context={print} new_key_id={OTHER_KEY_ID} \
             new_key_version=0 outcome=ok"
        )
    };
    let header = PayloadHeader::from_bytes(payload.first_chunk().unwrap()).unwrap();
    seen.one(&moved("rewrap_header"), || {
        engine.rewrap_header(&id, &context, &other, &header)
    })
    .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, &payload).unwrap();
    seen.one(&moved("rewrap_file"), || {
        engine.rewrap_file(&id, &context, &other, &file)
    })
    .unwrap();
    seen.one(&moved("rewrap"), || {
        engine.rewrap(&id, &context, &other, &mut payload.clone())
    })
    .unwrap();
}

fn keys(seen: &mut Operations) {
    let (id, other, mut keys) = (key_id(KEY_ID), key_id(OTHER_KEY_ID), Keyset::new());
    let at =
        |operation, version| format!("DEBUG operation={operation} key_id={KEY_ID} key_version={version} outcome=ok");
    let plain = |operation| format!("DEBUG operation={operation} key_id={KEY_ID} outcome=ok");
    seen.one(&at("create_key", 0), || keys.create_key(id)).unwrap();
    seen.one(&at("rotate", 1), || keys.rotate(&id)).unwrap();
    seen.one(&at("import_version", 2), || keys.import_version(&id, &[7; 32]))
        .unwrap();
    seen.one(&at("set_min_version", 1), || keys.set_min_version(&id, 1))
        .unwrap();
    seen.one(&plain("disable"), || keys.disable(&id)).unwrap();
    seen.one(&plain("enable"), || keys.enable(&id)).unwrap();
    let date = seen
        .one(&plain("schedule_deletion"), || {
            keys.schedule_deletion_at(&id, 7, time(NOW))
        })
        .unwrap();
    seen.one(&plain("cancel_deletion"), || keys.cancel_deletion(&id))
        .unwrap();
    keys.schedule_deletion_at(&id, 7, time(NOW)).unwrap();
    let line = format!("INFO operation=purge key_id={KEY_ID} outcome=DeletionNotDue");
    seen.one(&line, || keys.purge_at(&id, time(NOW))).unwrap_err();
    let line = format!("WARN operation=rotate key_id={KEY_ID} outcome=KeyPendingDeletion");
    seen.one(&line, || keys.rotate(&id)).unwrap_err();
    seen.one(&plain("purge"), || keys.purge_at(&id, date)).unwrap();
    seen.one(&at("import_key", 0), || keys.import_key(id, &[7; 32]))
        .unwrap();

    seen.one(&at("destroy_versions", 0), || {
        keys.destroy_versions(&id, 0, Duration::ZERO)
    })
    .unwrap();
    seen.one(&at("force_destroy_versions", 0), || keys.force_destroy_versions(&id, 0))
        .unwrap();
    let line = format!("INFO operation=destroy_versions key_id={KEY_ID} key_version=1 outcome=VersionInUse");
    seen.one(&line, || keys.destroy_versions(&id, 1, Duration::ZERO))
        .unwrap_err();
    let line = format!("INFO operation=set_min_version key_id={KEY_ID} key_version=1 outcome=MinVersion");
    seen.one(&line, || keys.set_min_version(&id, 1)).unwrap_err();
    let line = format!("INFO operation=import_key key_id={OTHER_KEY_ID} outcome=InvalidMaterial");
    seen.one(&line, || keys.import_key(other, &[7; 31])).unwrap_err();
    let line = format!("WARN operation=create_key key_id={OTHER_KEY_ID} outcome=Randomness(Failed)");
    seen.one(&line, || keys.create_key_with_rng(other, time(NOW), &mut Failing))
        .unwrap_err();
}

fn keyrings(seen: &mut Operations) {
    let ok = |operation| format!("DEBUG operation={operation} outcome=ok");
    let (_directory, path) = crate::keyring_file::directory();
    let (id, root) = (key_id(KEY_ID), |version| cmk(ROOT, version, &[7; 32]));

    let keyring = seen
        .one(&ok("create_keyring"), || FileKeyring::create(&path, root(0)))
        .unwrap();
    seen.one("WARN operation=create_keyring outcome=File(Exists)", || {
        FileKeyring::create(&path, root(0))
    })
    .unwrap_err();
    let older = fs::read(&path).unwrap();
    // The change of the keys, and then whether it is in effect.
    let memory = MemoryKeyring::new(Keyset::new());
    let create = format!("DEBUG operation=create_key key_id={KEY_ID} key_version=0 outcome=ok");
    let both = [create.clone(), ok("update_keyring")];
    assert_eq!(heard(|| memory.update(|keys| keys.create_key(id)).unwrap()).1, both);
    assert_eq!(heard(|| keyring.update(|keys| keys.create_key(id)).unwrap()).1, both);
    let update = |keys: &mut Keyset| {
        keys.rotate(&id)?;
        keys.enable(&id)
    };
    let lines = [
        format!("DEBUG operation=rotate key_id={KEY_ID} key_version=1 outcome=ok"),
        format!("INFO operation=enable key_id={KEY_ID} outcome=KeyNotDisabled"),
        "INFO operation=update_keyring outcome=KeyNotDisabled".to_owned(),
    ];
    assert_eq!(heard(|| memory.update(update).unwrap_err()).1, lines);
    assert_eq!(heard(|| keyring.update(update).unwrap_err()).1, lines);
    seen.one(&ok("update_keyring"), || keyring.update(|_| Ok(()))).unwrap();

    seen.one(&ok("open_keyring"), || FileKeyring::open(&path, root(0)))
        .unwrap();
    seen.one("WARN operation=open_keyring outcome=File(WrongRoot)", || {
        FileKeyring::open(&path, root(1))
    })
    .unwrap_err();
    seen.one(&ok("refresh_keyring"), || keyring.refresh()).unwrap();
    seen.one(&ok("adopt_keyring"), || keyring.adopt()).unwrap();
    seen.one(&ok("write_back_keyring"), || keyring.write_back()).unwrap();
    let line = format!("DEBUG operation=change_root key_id={ROOT} key_version=1 outcome=ok");
    seen.one(&line, || keyring.change_root(root(1))).unwrap();
    let line = format!("INFO operation=change_root key_id={KEY_ID} key_version=0 outcome=KeyExists");
    seen.one(&line, || keyring.change_root(cmk(KEY_ID, 0, &[7; 32])))
        .unwrap_err();

    let newer = FileKeyring::open(&path, root(1)).unwrap();
    fs::write(&path, older).unwrap();
    for keyring in [&keyring, &newer] {
        let line = "WARN operation=refresh_keyring outcome=File(WrongRoot)";
        seen.one(line, || keyring.refresh()).unwrap_err();
    }
}

/// Each call that waits for the store, each query, each lost race, and each refused document has an event, and a stale
/// key is one of the errors of the engine.
#[cfg(feature = "store-keyring")]
#[test]
fn a_keyring_of_a_fleet_reports_what_the_store_does() {
    use dekseal::{
        StoreKeyring, StoreSettings,
        store::{Action, MemoryStore, Request},
    };

    let store = Arc::new(MemoryStore::new());
    let root = || cmk(ROOT, 0, &[1; 32]);
    let process = |max_age, max_stale| {
        let mut settings = StoreSettings::default();
        (settings.max_age, settings.max_stale) = (max_age, max_stale);
        StoreKeyring::with_settings(store.clone(), root(), [], settings).unwrap()
    };
    let hour = Duration::from_secs(3600);
    let (here, elsewhere) = (process(hour, 2 * hour), Arc::new(process(hour, 2 * hour)));
    let id = key_id(KEY_ID);
    let rotate = move |keyring: &StoreKeyring<Arc<MemoryStore>>| keyring.update(&id, |keys| keys.rotate(&id)).unwrap();
    let create = || here.update(&id, |keys| keys.create_key(id)).unwrap();
    let event = |level, operation, outcome| format!("{level} operation={operation} key_id={KEY_ID} outcome={outcome}");
    let version =
        |operation, version| format!("DEBUG operation={operation} key_id={KEY_ID} key_version={version} outcome=ok");
    assert_eq!(
        heard(create).1,
        [version("create_key", 0), event("DEBUG", "update_key", "ok")]
    );
    assert_eq!(heard(|| elsewhere.load(&id)).1, [event("DEBUG", "fetch_key", "ok")]);
    assert_eq!(
        heard(|| elsewhere.refresh()).1,
        ["DEBUG operation=refresh_keys count=1 outcome=ok"]
    );

    // Another process rotates between the read and the write of this one.
    let other = Mutex::new(Some(elsewhere.clone()));
    store.set_script(move |request, _call| {
        if let Request::Put { .. } = request {
            // The lock is released before the other process calls the store.
            let other = other.lock().unwrap().take();
            other.iter().for_each(|other| assert_eq!(rotate(other), 1));
        }
        Action::Serve
    });
    let raced = [
        version("rotate", 1),
        // The other process.
        version("rotate", 1),
        event("DEBUG", "update_key", "ok"),
        event("DEBUG", "retry_change", "ok"),
        version("rotate", 2),
        event("DEBUG", "update_key", "ok"),
    ];
    assert_eq!(heard(|| rotate(&here)).1, raced);

    let backup = store.copy();
    rotate(&here);
    store.restore(&backup);
    let rolled_back = event("WARN", "fetch_key", "Store(RolledBack)");
    assert_eq!(heard(|| here.load(&id).unwrap_err()).1, [rolled_back]);
    let refused = event("WARN", "refresh_key", "Store(RolledBack)");
    let lines = heard(|| here.refresh().unwrap()).1;
    assert_eq!(
        lines,
        ["DEBUG operation=refresh_keys count=1 outcome=ok".to_owned(), refused]
    );

    let brief = Engine::new(process(Duration::ZERO, Duration::from_millis(1)));
    brief.keyring().load(&id).unwrap();
    store.set_script(|_request, _call| Action::Fail);
    std::thread::sleep(Duration::from_millis(5));
    let stale = format!(
        "WARN operation=create_dek key_id={KEY_ID} context={} outcome=Store(Stale)",
        fingerprint(CANONICAL)
    );
    let fetch = event("WARN", "fetch_key", "Store(Unavailable)");
    assert_eq!(
        heard(|| brief.create_dek(&id, &context()).unwrap_err()).1,
        [fetch, stale]
    );
}

#[test]
fn a_failure_has_its_kind_and_what_is_known() {
    let mut seen = Operations::default();
    let (engine, id, other, context, none) = (
        engine(),
        key_id(KEY_ID),
        key_id(OTHER_KEY_ID),
        context(),
        EncryptionContext::none(),
    );
    let (sealed, print, no_print) = (sealed_under_version_0(), fingerprint(CANONICAL), fingerprint(b""));
    let nobody = key_id("43e243b5-0095-1b21-67b2-58370386cc4a");
    let later = cmk(KEY_ID, 9, &[7; 32]).seal(&context, &dek(&"5a".repeat(64)));

    let line = format!(
        "WARN operation=decrypt_dek key_id={KEY_ID} key_version=0 context={no_print} outcome=AuthenticationFailed"
    );
    seen.one(&line, || engine.decrypt_dek(&id, &none, &sealed)).unwrap_err();
    // The version belongs to the other key.
    let line = format!("WARN operation=decrypt_dek key_id={OTHER_KEY_ID} context={print} outcome=KeyMismatch");
    seen.one(&line, || engine.decrypt_dek(&other, &context, &sealed))
        .unwrap_err();
    let line =
        format!("INFO operation=decrypt_dek key_id={KEY_ID} key_version=9 context={print} outcome=UnknownKeyVersion");
    seen.one(&line, || engine.decrypt_dek(&id, &context, &later))
        .unwrap_err();
    let line = format!("INFO operation=create_dek key_id={nobody} context={print} outcome=UnknownKey");
    seen.one(&line, || engine.create_dek(&nobody, &context)).unwrap_err();
    let line = format!("WARN operation=create_dek key_id={KEY_ID} context={print} outcome=Randomness(Failed)");
    seen.one(&line, || engine.create_dek_with_rng(&id, &context, &mut Failing))
        .unwrap_err();
    let line = format!("WARN operation=create_deks key_id={KEY_ID} context={print} count=3 outcome=Randomness(Stuck)");
    let mut slots = [const { None }; 3];
    seen.one(&line, || {
        engine.create_deks_with_rng(&id, &context, &mut slots, &mut Repeating(b"abcd"))
    })
    .unwrap_err();
    // The event does not tell which side failed, but tells where the DEK should have gone.
    let line = format!(
        "INFO operation=rewrap_dek_to key_id={KEY_ID} key_version=0 context={print} new_key_id={nobody} \
         new_context={no_print} outcome=UnknownKey"
    );
    seen.one(&line, || {
        engine.rewrap_dek_to((&id, &context), &sealed, (&nobody, &none))
    })
    .unwrap_err();

    let line = format!("INFO operation=decrypt key_id={KEY_ID} context={print} outcome=NotAPayload(Length)");
    seen.one(&line, || engine.decrypt(&id, &context, b"")).unwrap_err();
    let payload = engine.encrypt(&id, &context, &[5; 100]).unwrap();
    let changed = |at: usize| {
        let mut changed = payload.clone();
        changed[at] ^= 1;
        changed
    };
    let line = format!("WARN operation=rewrap key_id={KEY_ID} context={print} outcome=DamagedBlob");
    seen.one(&line, || engine.rewrap(&id, &context, &other, &mut changed(150)))
        .unwrap_err();
    let line =
        format!("WARN operation=decrypt key_id={KEY_ID} key_version=1 context={print} outcome=AuthenticationFailed");
    seen.one(&line, || engine.decrypt(&id, &context, &changed(300)))
        .unwrap_err();

    // An `Error` inside an `io::Error`, and an `io::Error` of another source.
    let line = format!(
        "WARN operation=decrypt_reader key_id={KEY_ID} key_version=1 context={no_print} outcome=AuthenticationFailed"
    );
    seen.one(&line, || engine.decrypt_reader(&id, &none, payload.as_slice()))
        .unwrap_err();
    let line = format!("WARN operation=decrypt_reader key_id={KEY_ID} context={print} outcome=Io");
    seen.one(&line, || engine.decrypt_reader(&id, &context, Broken))
        .unwrap_err();

    let unusable = Engine::new(MemoryKeyring::new(Keyset::clone(&engine.keyring().keys())));
    unusable.keyring().update(|keys| keys.set_min_version(&id, 1)).unwrap();
    let line = format!(
        "WARN operation=rewrap_dek key_id={KEY_ID} key_version=0 context={print} new_key_id={KEY_ID} \
         outcome=KeyVersionRetired"
    );
    seen.one(&line, || unusable.rewrap_dek(&id, &context, &sealed))
        .unwrap_err();
    unusable.keyring().update(|keys| keys.disable(&id)).unwrap();
    let line = format!("WARN operation=encrypt_dek key_id={KEY_ID} context={print} outcome=KeyDisabled");
    seen.one(&line, || unusable.encrypt_dek(&id, &context, &dek(&"5a".repeat(64))))
        .unwrap_err();
}

#[test]
fn the_wire_api_has_the_events_of_the_engine() {
    let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512","encryption_context":{{"tenant":"42"}}}}"#);
    let line = format!(
        "DEBUG operation=create_dek key_id={KEY_ID} key_version=1 context={} outcome=ok",
        fingerprint(CANONICAL)
    );
    let (response, lines) =
        heard(|| dekseal::api::handle(&engine(), "POST", "/v1.0/p/kms/create-datakey", body.as_bytes()));
    assert_eq!((response.status(), lines), (200, vec![line]));
}

/// A reader and a keyring that fail, and whose errors name their cause.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(marked()))
    }
}

impl Keyring for Broken {
    fn with_current<T>(&self, _: &KeyId, _: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        Err(Error::keyring(marked()))
    }

    fn with_version<T>(&self, _: &KeyId, _: u32, _: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        Err(Error::keyring(marked()))
    }
}

fn marked() -> String {
    String::from_utf8_lossy(&secrets::secret(1)).into_owned()
}

#[test]
fn no_event_shows_a_secret_or_the_source_of_an_error() {
    let (id, context, sealed) = (key_id(KEY_ID), context(), sealed_under_version_0());
    let print = fingerprint(CANONICAL);
    let line = format!("WARN operation=decrypt_dek key_id={KEY_ID} key_version=0 context={print} outcome=Keyring");
    Operations::default()
        .one(&line, || Engine::new(Broken).decrypt_dek(&id, &context, &sealed))
        .unwrap_err();
    let (_, lines) = heard(|| engine().decrypt_reader(&id, &context, Broken).unwrap_err());
    assert!(!lines.iter().any(|line| secrets::is_marked(line)), "{lines:?}");

    // All operations, with all ways to fail. DEKs, material, contexts and plaintext contain a mark.
    let tests: [fn(); 5] = [
        secrets::debug_shows_no_secret,
        secrets::no_error_contains_a_dek_or_a_key,
        secrets::no_error_of_a_stream_shows_plaintext,
        secrets::no_error_of_a_keyring_file_shows_material,
        secrets::no_response_contains_a_secret_that_was_not_requested,
    ];
    let mut seen = 0;
    for test in tests {
        let ((), lines) = heard(test);
        seen += lines.len();
        for line in lines {
            assert!(!secrets::is_marked(&line), "{line}");
        }
    }
    assert!(seen > 500, "only {seen} events");
}

/// A field that no subscriber asks for is not formatted.
#[test]
fn a_subscriber_that_is_not_interested_costs_no_allocation() {
    let deaf = Collector::new(false);
    let (engine, id, context, sealed) = (engine(), key_id(KEY_ID), context(), sealed_under_version_0());
    let random: Vec<u8> = (0..64).collect();
    let work = || {
        drop(engine.create_dek_with_rng(&id, &context, &mut Fixed(&random)).unwrap());
        drop(engine.decrypt_dek(&id, &context, &sealed).unwrap());
        let _: Error = engine
            .decrypt_dek(&id, &EncryptionContext::none(), &sealed)
            .unwrap_err();
    };
    tracing::subscriber::with_default(deaf.clone(), || {
        work();
        // The details of the error.
        assert_eq!(allocation_counter::measure(work).count_total, 1);
    });
    assert!(deaf.lines().is_empty());
}
