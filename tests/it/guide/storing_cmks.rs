//! The code of docs/guide/storing-cmks.md.

mod secret {
    // ANCHOR: secret
    use std::{env, error::Error, fs, path::Path};

    use dekseal::{CmkVersion, KeyId, zeroize::Zeroizing};

    fn from_file(key_id: KeyId, version: u32, path: &Path) -> Result<CmkVersion, Box<dyn Error>> {
        let digits = Zeroizing::new(fs::read_to_string(path)?);
        from_hex(key_id, version, &digits)
    }

    fn from_env(key_id: KeyId, version: u32, name: &str) -> Result<CmkVersion, Box<dyn Error>> {
        // `VarError` can hold the value of the variable, so it is not passed on.
        let digits = env::var(name).map_err(|_| format!("{name} is not set, or is not UTF-8"))?;
        from_hex(key_id, version, &Zeroizing::new(digits))
    }

    fn from_hex(key_id: KeyId, version: u32, digits: &str) -> Result<CmkVersion, Box<dyn Error>> {
        let material = Zeroizing::new(base16ct::mixed::decode_vec(digits.trim())?);
        Ok(CmkVersion::new(key_id, version, &material)?)
    }
    // ANCHOR_END: secret

    #[test]
    fn material_is_read_from_a_file_or_refused() -> Result<(), Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("cmk");
        let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
        fs::write(&path, format!("{}\n", "0F".repeat(64)))?;
        assert_eq!(from_file(key_id, 0, &path)?.key_version(), 0);
        fs::write(&path, "0F".repeat(31))?;
        assert!(from_file(key_id, 0, &path).is_err());
        assert!(from_env(key_id, 0, "DEKSEAL_NO_SUCH_VARIABLE").is_err());
        Ok(())
    }
}

mod file {
    // ANCHOR: file
    use std::{path::Path, sync::Arc, thread, time::Duration};

    use dekseal::{CmkVersion, Engine, FileKeyring, KeyId};

    /// The operator runs this once.
    fn set_up(path: &Path, root: CmkVersion, key_id: KeyId) -> Result<(), dekseal::Error> {
        FileKeyring::create(path, root)?.update(|keys| keys.create_key(key_id))
    }

    /// The service runs this at each start. It sees new keys and versions at once, and other changes by other processes
    /// within ten seconds.
    fn start(path: &Path, root: CmkVersion) -> Result<Arc<Engine<FileKeyring>>, dekseal::Error> {
        let engine = Arc::new(Engine::new(FileKeyring::open(path, root)?));
        let weak = Arc::downgrade(&engine);
        thread::spawn(move || {
            while let Some(engine) = weak.upgrade() {
                if let Err(error) = engine.keyring().refresh() {
                    log(&format!("keyring: {error}")); // The keyring keeps the keys that it has.
                }
                drop(engine);
                thread::sleep(Duration::from_secs(10));
            }
        });
        Ok(engine)
    }

    /// `eprintln!` panics when standard error is closed, which would end the thread above.
    fn log(line: &str) {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    // ANCHOR_END: file

    #[test]
    fn what_the_operator_sets_up_the_service_opens() -> Result<(), dekseal::Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keyring.json");
        let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 64]);
        let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
        set_up(&path, root()?, key_id)?;
        let engine = start(&path, root()?)?;
        engine.create_dek(&key_id, &dekseal::EncryptionContext::none())?;
        log("done");
        Ok(())
    }
}

mod database {
    // ANCHOR: database
    use std::collections::BTreeMap;

    use dekseal::{CmkVersion, Dek, EncryptionContext, Error, ErrorKind, KeyId, Keyring, SealedDek};

    /// Stands for the two tables. A real keyring runs SQL, and reports its failures with `Error::keyring`.
    #[derive(Default)]
    struct Tables {
        keys: BTreeMap<KeyId, Row>,
        versions: BTreeMap<(KeyId, u32), Vec<u8>>,
    }

    #[derive(Clone, Copy)]
    enum State {
        Enabled,
        Disabled,
        PendingDeletion,
    }

    struct Row {
        state: State,
        min_version: u32,
    }

    struct DatabaseKeyring {
        root: CmkVersion,
        tables: Tables,
    }

    impl DatabaseKeyring {
        /// Makes the next version of a key, or its first one.
        fn rotate(&mut self, key_id: KeyId) -> Result<u32, Error> {
            if key_id == self.root.key_id() {
                return Err(ErrorKind::KeyExists.into()); // a CMK is never sealed under itself
            }
            let version = match self.newest(&key_id) {
                Some(newest) => newest.checked_add(1).ok_or(ErrorKind::TooManyVersions)?,
                None => 0,
            };
            let sealed = self.root.seal(&place(&key_id, version)?, &Dek::generate()?);
            // Run both inserts in one transaction. If two processes make the same version, the primary key refuses one.
            let first = Row {
                state: State::Enabled,
                min_version: 0,
            };
            self.tables.keys.entry(key_id).or_insert(first);
            let sealed = sealed.as_bytes().to_vec();
            self.tables.versions.insert((key_id, version), sealed);
            Ok(version)
        }

        fn newest(&self, key_id: &KeyId) -> Option<u32> {
            let versions = self.tables.versions.range((*key_id, 0)..=(*key_id, u32::MAX));
            versions.map(|((_, version), _)| *version).next_back()
        }

        fn cmk(&self, key_id: &KeyId, version: u32) -> Result<CmkVersion, Error> {
            let row = self.tables.keys.get(key_id).ok_or(ErrorKind::UnknownKey)?;
            let sealed = self.tables.versions.get(&(*key_id, version));
            let sealed = sealed.ok_or(ErrorKind::UnknownKeyVersion)?;
            if version < row.min_version {
                return Err(ErrorKind::KeyVersionRetired.into());
            }
            match row.state {
                State::Enabled => {}
                State::Disabled => return Err(ErrorKind::KeyDisabled.into()),
                State::PendingDeletion => return Err(ErrorKind::KeyPendingDeletion.into()),
            }
            // A row that does not open is a fault of the store, not of the caller's blob.
            let sealed = SealedDek::from_bytes(sealed).map_err(Error::keyring)?;
            let material = self.root.open(&place(key_id, version)?, &sealed);
            let material = material.map_err(Error::keyring)?;
            CmkVersion::new(*key_id, version, material.expose_secret())
        }
    }

    impl Keyring for DatabaseKeyring {
        fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
            let version = self.newest(key_id).ok_or(ErrorKind::UnknownKey)?;
            Ok(f(&self.cmk(key_id, version)?))
        }

        fn with_version<T>(
            &self,
            key_id: &KeyId,
            key_version: u32,
            f: impl FnOnce(&CmkVersion) -> T,
        ) -> Result<T, Error> {
            Ok(f(&self.cmk(key_id, key_version)?))
        }
    }

    /// The encryption context of one row. It prevents a writer from copying the material of one key to another.
    fn place(key_id: &KeyId, version: u32) -> Result<EncryptionContext, Error> {
        let version = version.to_string();
        EncryptionContext::from_pairs([("purpose", "cmk"), ("key_id", key_id.as_str()), ("version", &version)])
    }
    // ANCHOR_END: database

    fn keyring() -> Result<DatabaseKeyring, Error> {
        let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 64])?;
        let tables = Tables::default();
        Ok(DatabaseKeyring { root, tables })
    }

    #[test]
    fn an_engine_works_over_the_tables() -> Result<(), Error> {
        let mut keyring = keyring()?;
        let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
        keyring.rotate(key_id)?;
        let engine = dekseal::Engine::new(keyring);
        let (dek, sealed) = engine.create_dek(&key_id, &EncryptionContext::none())?;
        assert_eq!(engine.decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)?, dek);
        Ok(())
    }

    #[test]
    fn states_and_copied_rows_are_noticed() -> Result<(), Error> {
        let mut keyring = keyring()?;
        let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
        assert_eq!((keyring.rotate(key_id)?, keyring.rotate(key_id)?), (0, 1));
        let copied = keyring.tables.versions[&(key_id, 1)].clone();
        keyring.tables.versions.insert((key_id, 0), copied);
        let error = keyring.with_version(&key_id, 0, |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Keyring);
        for (state, kind) in [
            (State::Disabled, ErrorKind::KeyDisabled),
            (State::PendingDeletion, ErrorKind::KeyPendingDeletion),
        ] {
            keyring.tables.keys.get_mut(&key_id).unwrap().state = state;
            let error = keyring.with_current(&key_id, |_| ()).unwrap_err();
            assert_eq!(error.kind(), kind);
        }
        keyring.tables.keys.get_mut(&key_id).unwrap().min_version = 1;
        let error = keyring.with_version(&key_id, 0, |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyVersionRetired);
        Ok(())
    }
}

mod hsm {
    // ANCHOR: hsm
    use std::{error::Error, path::Path};

    use dekseal::{CmkVersion, Engine, FileKeyring, zeroize::Zeroizing};

    /// A PKCS#11 session or a client of a cloud KMS: it decrypts with a key that it never gives out.
    trait RootOfTrust {
        fn decrypt(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Box<dyn Error>>;
    }

    fn start(hsm: &impl RootOfTrust, wrapped_root: &[u8], path: &Path) -> Result<Engine<FileKeyring>, Box<dyn Error>> {
        let material = hsm.decrypt(wrapped_root)?; // wiped at the end of this function
        let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &material)?;
        Ok(Engine::new(FileKeyring::open(path, root)?))
    }
    // ANCHOR_END: hsm

    struct Hsm;

    impl RootOfTrust for Hsm {
        fn decrypt(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Box<dyn Error>> {
            Ok(Zeroizing::new(ciphertext.iter().map(|byte| byte ^ 0x55).collect()))
        }
    }

    #[test]
    fn the_root_comes_from_the_hsm() -> Result<(), Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("keyring.json");
        let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7 ^ 0x55; 64])?;
        FileKeyring::create(&path, root)?;
        start(&Hsm, &[7; 64], &path)?;
        Ok(())
    }
}
