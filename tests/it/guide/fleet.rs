//! The code of docs/guide/fleet.md.

use std::sync::Arc;

use dekseal::{CmkVersion, EncryptionContext, Engine, Error, ErrorKind, KeyId, StoreKeyring, store::MemoryStore};

mod start {
    // ANCHOR: start
    use std::time::Duration;

    use dekseal::{CmkVersion, Engine, Error, StoreKeyring, StoreSettings, store::KeyStore};

    fn start<S: KeyStore + 'static>(store: S, root: CmkVersion) -> Result<Engine<StoreKeyring<S>>, Error> {
        let mut settings = StoreSettings::default();
        settings.max_age = Duration::from_secs(30);
        settings.max_stale = Duration::from_secs(4 * 60 * 60);
        let keyring = StoreKeyring::with_settings(store, root, [], settings)?;
        keyring.start_refresher()?;
        Ok(Engine::new(keyring))
    }
    // ANCHOR_END: start

    pub(super) fn started<S: KeyStore + 'static>(store: S, root: CmkVersion) -> Engine<StoreKeyring<S>> {
        start(store, root).unwrap()
    }
}

mod administer {
    // ANCHOR: administer
    use dekseal::{Error, KeyId, StoreKeyring, store::KeyStore};

    fn create<S: KeyStore>(keyring: &StoreKeyring<S>) -> Result<KeyId, Error> {
        let key_id = KeyId::generate()?;
        keyring.update(&key_id, |keys| keys.create_key(key_id))?;
        Ok(key_id)
    }

    fn rotate<S: KeyStore>(keyring: &StoreKeyring<S>, key_id: &KeyId) -> Result<u32, Error> {
        keyring.update(key_id, |keys| keys.rotate(key_id))
    }

    /// After everything under older versions was rewrapped.
    fn retire<S: KeyStore>(keyring: &StoreKeyring<S>, key_id: &KeyId) -> Result<usize, Error> {
        keyring.update(key_id, |keys| {
            let current = keys.info(key_id)?.current_version;
            keys.set_min_version(key_id, current)?;
            keys.destroy_versions(key_id, current, keyring.settings().grace())
        })
    }
    // ANCHOR_END: administer

    use dekseal::UnixTime;

    #[test]
    fn a_key_is_created_rotated_and_retired() -> Result<(), Error> {
        let keyring = StoreKeyring::new(dekseal::store::MemoryStore::new(), super::root(0)?);
        let key_id = create(&keyring)?;
        assert_eq!(rotate(&keyring, &key_id)?, 1);
        // The successor is younger than the grace period, and nothing of the change is made.
        assert!(retire(&keyring, &key_id).is_err());
        assert_eq!(keyring.info(&key_id)?.min_version, 0);
        // A key that was rotated long ago.
        let key_id = KeyId::generate()?;
        let year_ago = UnixTime::from_secs(UnixTime::now()?.as_secs() - 365 * 24 * 60 * 60)?;
        keyring.update(&key_id, |keys| {
            keys.import_key_at(key_id, &[1; 32], year_ago)?;
            keys.import_version_at(&key_id, &[2; 32], year_ago)
        })?;
        assert_eq!(retire(&keyring, &key_id)?, 1);
        Ok(())
    }
}

mod health {
    // ANCHOR: health
    use std::time::Duration;

    use dekseal::{StoreKeyring, store::KeyStore};

    /// Whether the store has confirmed every key in use lately.
    fn is_healthy<S: KeyStore>(keyring: &StoreKeyring<S>, max_age: Duration) -> bool {
        let counters = keyring.counters();
        counters.rollbacks == 0 && counters.oldest.unwrap_or_default() < 3 * max_age
    }
    // ANCHOR_END: health

    #[test]
    fn a_keyring_is_healthy_until_a_rollback() -> Result<(), dekseal::Error> {
        let keyring = StoreKeyring::new(dekseal::store::MemoryStore::new(), super::root(0)?);
        let key_id = dekseal::KeyId::generate()?;
        keyring.update(&key_id, |keys| keys.create_key(key_id))?;
        assert!(is_healthy(&keyring, Duration::from_secs(60)));
        keyring.store().overwrite(&key_id, None);
        assert!(keyring.load(&key_id).is_err());
        assert!(!is_healthy(&keyring, Duration::from_secs(60)));
        Ok(())
    }
}

mod roots {
    // ANCHOR: roots
    use std::ops::ControlFlow;

    use dekseal::{Error, StoreKeyring, store::KeyStore};

    /// Step 3. Returns whether the old root can be taken away.
    fn move_documents<S: KeyStore>(keyring: &StoreKeyring<S>) -> Result<bool, Error> {
        loop {
            let pass = keyring.reseal(None, |_key_id, result| match result {
                Ok(_) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()), // look at the document, then start again
            })?;
            if !pass.is_complete {
                return Ok(false);
            }
            if pass.resealed == 0 {
                return Ok(true);
            }
        }
    }
    // ANCHOR_END: roots

    #[test]
    fn documents_are_moved_to_a_new_root() -> Result<(), Error> {
        let keyring = StoreKeyring::new(dekseal::store::MemoryStore::new(), super::root(0)?);
        let key_id = dekseal::KeyId::generate()?;
        keyring.update(&key_id, |keys| keys.create_key(key_id))?;
        keyring.set_roots(super::root(1)?, [super::root(0)?]);
        assert!(move_documents(&keyring)?);
        keyring.set_roots(super::root(1)?, []);
        keyring.load(&key_id)
    }
}

mod r#async {
    // ANCHOR: async
    use std::{future::Future, sync::Arc};

    use dekseal::{Dek, EncryptionContext, Engine, Error, SealedDek, StoreKeyring, store::KeyStore};

    /// `on_blocking_thread` is `tokio::task::spawn_blocking`, or what another runtime has.
    async fn decrypt<S, F>(
        engine: Arc<Engine<StoreKeyring<S>>>,
        sealed: SealedDek,
        on_blocking_thread: impl FnOnce(Box<dyn FnOnce() -> Result<(), Error> + Send>) -> F,
    ) -> Result<Dek, Error>
    where
        S: KeyStore + 'static,
        F: Future<Output = Result<(), Error>>,
    {
        let key_id = sealed.key_id();
        if !engine.keyring().is_ready_for(&key_id, sealed.key_version()) {
            let loading = Arc::clone(&engine);
            on_blocking_thread(Box::new(move || loading.keyring().load(&key_id))).await?;
        }
        engine.decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)
    }
    // ANCHOR_END: async

    #[test]
    fn a_key_is_loaded_before_it_is_used() {
        let store = Arc::new(dekseal::store::MemoryStore::new());
        let [here, there] = [0, 0].map(|version| StoreKeyring::new(store.clone(), super::root(version).unwrap()));
        let key_id = dekseal::KeyId::generate().unwrap();
        here.update(&key_id, |keys| keys.create_key(key_id)).unwrap();
        let (dek, sealed) = Engine::new(here)
            .create_dek(&key_id, &EncryptionContext::none())
            .unwrap();
        let there = Arc::new(Engine::new(there));
        let decrypted = Box::pin(decrypt(there.clone(), sealed, |load| std::future::ready(load())));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(decrypted) = Future::poll({ decrypted }.as_mut(), &mut context) else {
            panic!("nothing waits here");
        };
        assert_eq!(decrypted.unwrap(), dek);
        assert_eq!(there.keyring().counters().misses, 0);
    }
}

fn root(version: u32) -> Result<CmkVersion, Error> {
    let byte = u8::try_from(version).unwrap();
    CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, version, &[byte; 64])
}

#[test]
fn a_process_of_a_fleet_seals_and_another_opens() -> Result<(), Error> {
    let store = Arc::new(MemoryStore::new().with_notifications());
    let [here, there] = [0, 0].map(|version| start::started(store.clone(), root(version).unwrap()));
    let key_id = KeyId::generate()?;
    here.keyring().update(&key_id, |keys| keys.create_key(key_id))?;
    let (dek, sealed) = here.create_dek(&key_id, &EncryptionContext::none())?;
    assert_eq!(there.decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)?, dek);
    Ok(())
}

#[test]
fn a_restored_database_is_noticed_and_resolved() -> Result<(), Error> {
    let store = Arc::new(MemoryStore::new());
    let engine: Engine<StoreKeyring<_>> = start::started(store.clone(), root(0)?);
    let key_id = KeyId::generate()?;
    engine.keyring().update(&key_id, |keys| keys.create_key(key_id))?;
    let backup = store.copy();
    engine.keyring().update(&key_id, |keys| keys.rotate(&key_id))?;
    store.restore(&backup);
    assert!(engine.keyring().load(&key_id).is_err());
    let sealing = engine.create_dek(&key_id, &EncryptionContext::none());
    assert_eq!(sealing.unwrap_err().kind(), ErrorKind::RollbackUnresolved);
    engine.keyring().write_back(&key_id)?;
    engine.create_dek(&key_id, &EncryptionContext::none())?;
    Ok(())
}
