//! Two processes over one store, which mishaps befall: what they seal opens, and what the store makes up is refused.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc, time::Duration};

use arbitrary::{Arbitrary, Unstructured};
use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, ErrorKind, KeyId, Keyset, SealedDek, StoreFault, StoreKeyring,
    StoreSettings,
    store::{Call, KeyStore, MemoryStore, Revision, StoredDocument},
};

/// What happens, one after the other. Numbers are taken modulo what there is.
#[derive(Arbitrary, Debug)]
enum Step {
    Create { process: u8, key: u8 },
    Rotate { process: u8, key: u8 },
    Disable { process: u8, key: u8 },
    Enable { process: u8, key: u8 },
    Retire { process: u8, key: u8 },
    Load { process: u8, key: u8 },
    Refresh { process: u8 },
    Seal { process: u8, key: u8 },
    Open { process: u8, blob: u8 },
    Restart { process: u8, from_snapshot: bool },
    Reseal { process: u8, root: u8 },
    // What the store does.
    Backup,
    Restore,
    Delete { key: u8 },
    Move { from: u8, to: u8 },
    Flip { key: u8, at: u16, bit: u8 },
    Write { key: u8, document: Vec<u8> },
    // What the host decides.
    Adopt { process: u8, key: u8 },
    WriteBack { process: u8, key: u8 },
}

type Process = Engine<StoreKeyring<Arc<MemoryStore>>>;

/// A key as it should be while nothing befell the store.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Key {
    current: u32,
    min: u32,
    enabled: bool,
}

struct World {
    store: Arc<MemoryStore>,
    backup: MemoryStore,
    processes: [Process; 2],
    /// What each process has sealed since it started or adopted a document.
    blobs: Vec<(SealedDek, Dek)>,
    keys: HashMap<KeyId, Key>,
    /// Whether the store lost, changed or made up something.
    unsound: bool,
}

fn root(version: u32) -> CmkVersion {
    let id = "00000000-0000-0000-0000-00000000root".parse().expect("a key ID");
    CmkVersion::new(id, version, &[if version == 0 { 7 } else { 8 }; 32]).expect("material")
}

fn key_id(number: u8) -> KeyId {
    let text = format!("00000000-0000-0000-0000-{:012}", number % 3);
    text.parse().expect("a key ID")
}

fn process(store: &Arc<MemoryStore>) -> Process {
    // A process that is stopped meanwhile must not fail.
    let mut settings = StoreSettings::default();
    settings.deadline = Duration::from_secs(3600);
    let keyring = StoreKeyring::with_settings(Arc::clone(store), root(0), [root(1)], settings).expect("settings");
    Engine::new(keyring)
}

pub fn key_document(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let store = Arc::new(MemoryStore::new());
    let mut world = World {
        processes: [process(&store), process(&store)],
        backup: store.copy(),
        store,
        blobs: Vec::new(),
        keys: HashMap::new(),
        unsound: false,
    };
    // A change of a key that conflicts with nothing takes no pause.
    for _ in 0..64 {
        match Step::arbitrary(&mut input) {
            Ok(step) if !input.is_empty() => world.step(step),
            _ => return,
        }
    }
}

impl World {
    fn process(&self, number: u8) -> &Process {
        &self.processes[usize::from(number % 2)]
    }

    fn document(&self, key: u8) -> Option<StoredDocument> {
        let call = Call::within(Duration::from_secs(60));
        self.store.get(&key_id(key), &call).expect("it is in memory")
    }

    /// A document of another revision, which a store that was tampered with could have.
    fn forge(&mut self, key: u8, document: Vec<u8>) {
        self.unsound = true;
        let revision = Revision::new(&[document.len() as u8; 32]).expect("32 bytes");
        self.store
            .overwrite(&key_id(key), Some(StoredDocument { revision, document }));
    }

    /// Changes a key through a process, and in the model.
    fn change<T: PartialEq + std::fmt::Debug>(
        &mut self,
        process: u8,
        key: u8,
        change: impl FnMut(&mut Keyset) -> Result<T, dekseal::Error>,
        model: impl FnOnce(Option<&mut Key>) -> Result<T, ErrorKind>,
    ) {
        let id = key_id(key);
        let result = self.process(process).keyring().update(&id, change);
        if self.unsound {
            return;
        }
        let expected = model(self.keys.get_mut(&id));
        assert_eq!(result.map_err(|error| error.kind()), expected, "key {key}");
    }

    /// Enables or disables a key, which fails with `refusal` if it is that already.
    fn switch(
        &mut self,
        process: u8,
        key: u8,
        change: impl FnMut(&mut Keyset) -> Result<(), dekseal::Error>,
        enabled: bool,
        refusal: ErrorKind,
    ) {
        self.change(process, key, change, |key| {
            let key = key.ok_or(ErrorKind::UnknownKey)?;
            let was = std::mem::replace(&mut key.enabled, enabled);
            (was != enabled).then_some(()).ok_or(refusal)
        });
    }

    fn step(&mut self, step: Step) {
        let none = EncryptionContext::none();
        match step {
            Step::Create { process, key } => {
                let id = key_id(key);
                let result = self.process(process).keyring().update(&id, |keys| keys.create_key(id));
                if !self.unsound {
                    let there = self.keys.contains_key(&id);
                    assert_eq!(
                        result.map_err(|error| error.kind()),
                        if there { Err(ErrorKind::KeyExists) } else { Ok(()) }
                    );
                    self.keys.entry(id).or_insert(Key {
                        current: 0,
                        min: 0,
                        enabled: true,
                    });
                }
            }
            Step::Rotate { process, key } => {
                let id = key_id(key);
                self.change(
                    process,
                    key,
                    |keys| keys.rotate(&id),
                    |key| {
                        let key = key.ok_or(ErrorKind::UnknownKey)?;
                        if !key.enabled {
                            return Err(ErrorKind::KeyDisabled);
                        }
                        key.current += 1;
                        Ok(key.current)
                    },
                );
            }
            Step::Disable { process, key } => {
                let disable = |keys: &mut Keyset| keys.disable(&key_id(key));
                self.switch(process, key, disable, false, ErrorKind::KeyNotEnabled);
            }
            Step::Enable { process, key } => {
                let enable = |keys: &mut Keyset| keys.enable(&key_id(key));
                self.switch(process, key, enable, true, ErrorKind::KeyNotDisabled);
            }
            Step::Retire { process, key } => {
                let id = key_id(key);
                let retire = |keys: &mut Keyset| {
                    let current = keys.info(&id)?.current_version;
                    keys.set_min_version(&id, current)
                };
                self.change(process, key, retire, |key| {
                    let key = key.ok_or(ErrorKind::UnknownKey)?;
                    key.min = key.current;
                    Ok(())
                });
            }
            Step::Load { process, key } => {
                let id = key_id(key);
                let result = self.process(process).keyring().load(&id);
                if !self.unsound {
                    assert_eq!(result.is_ok(), self.keys.contains_key(&id));
                }
            }
            Step::Refresh { process } => {
                self.process(process).keyring().refresh().expect("the store answers");
            }
            Step::Seal { process, key } => {
                let id = key_id(key);
                match self.process(process).create_dek(&id, &none) {
                    Ok((dek, sealed)) => {
                        // The process that sealed opens, whatever the store does.
                        let opened = self.process(process).decrypt_dek(&id, &none, &sealed);
                        assert_eq!(opened.expect("it was just sealed"), dek);
                        self.blobs.push((sealed, dek));
                    }
                    Err(error) if !self.unsound => {
                        let expected = match self.keys.get(&id) {
                            None => ErrorKind::UnknownKey,
                            Some(_) => ErrorKind::KeyDisabled,
                        };
                        assert_eq!(error.kind(), expected);
                    }
                    Err(_) => {}
                }
            }
            Step::Open { process, blob } => {
                let Some((sealed, dek)) = self.blobs.get(usize::from(blob) % self.blobs.len().max(1)) else {
                    return;
                };
                let id = sealed.key_id();
                match self.process(process).decrypt_dek(&id, &none, sealed) {
                    Ok(opened) => assert_eq!(opened, *dek),
                    // A change that this process has not seen yet may have been undone since.
                    Err(error) if !self.unsound => assert!(
                        matches!(error.kind(), ErrorKind::KeyDisabled | ErrorKind::KeyVersionRetired),
                        "{error}"
                    ),
                    Err(_) => {}
                }
            }
            Step::Restart { process, from_snapshot } => {
                let snapshot = self.process(process).keyring().snapshot().expect("it is small");
                let fresh = self::process(&self.store);
                if from_snapshot {
                    fresh.keyring().restore(&snapshot).expect("it was just made");
                }
                self.processes[usize::from(process % 2)] = fresh;
            }
            Step::Reseal { process, root: version } => {
                let keyring = self.process(process).keyring();
                let (writing, reading) = if version % 2 == 0 { (0, 1) } else { (1, 0) };
                keyring.set_roots(root(writing), [root(reading)]);
                let pass = keyring
                    .reseal(None, |_, _| ControlFlow::Continue(()))
                    .expect("the store answers");
                assert!(pass.is_complete && (self.unsound || pass.failed == 0));
                keyring.set_roots(root(0), [root(1)]);
            }
            Step::Backup => self.backup = self.store.copy(),
            Step::Restore => {
                self.unsound = true;
                self.store.restore(&self.backup);
            }
            Step::Delete { key } => {
                self.unsound = true;
                self.store.overwrite(&key_id(key), None);
            }
            Step::Move { from, to } => {
                if let Some(stored) = self.document(from)
                    && key_id(from) != key_id(to)
                {
                    let sound = !self.unsound;
                    self.forge(to, stored.document);
                    let loaded = process(&self.store).keyring().load(&key_id(to));
                    let kind = loaded.map_err(|error| error.kind());
                    // Once the store is unsound, the document may come from this place.
                    assert!(
                        !sound || kind == Err(ErrorKind::Store(StoreFault::OtherKey)),
                        "{kind:?}"
                    );
                }
            }
            Step::Flip { key, at, bit } => {
                if let Some(StoredDocument { mut document, .. }) = self.document(key)
                    && !document.is_empty()
                {
                    let at = usize::from(at) % document.len();
                    document[at] ^= 1 << (bit % 8);
                    self.forge(key, document);
                }
            }
            Step::Write { key, document } => {
                self.forge(key, document);
                let loaded = process(&self.store).keyring().load(&key_id(key));
                let kind = loaded.expect_err("nobody can make a document").kind();
                assert!(matches!(kind, ErrorKind::Store(_)), "{kind:?}");
                assert_ne!(kind, ErrorKind::Store(StoreFault::RolledBack), "nothing was seen");
            }
            Step::Adopt { process, key } => {
                let adopted = self.process(process).keyring().adopt(&key_id(key));
                assert!(self.unsound || adopted.is_ok());
            }
            Step::WriteBack { process, key } => {
                let written = self.process(process).keyring().write_back(&key_id(key));
                if self.unsound {
                    return;
                }
                // There is nothing to write back.
                let kind = written.map_err(|error| error.kind());
                assert!(matches!(kind, Ok(()) | Err(ErrorKind::UnknownKey)), "{kind:?}");
            }
        }
    }
}
