//! Records of 64 bytes, such as a cell of a database: dekseal and asherah.

use std::cell::Cell;

use crate::peer::Made;

/// A record and the peer's encryption of it.
pub struct Record<E> {
    record: [u8; 64],
    pub encrypted: E,
}

impl<E: AsRef<[u8]>> Made for Record<E> {
    fn key(&self) -> &[u8] {
        &self.record
    }

    fn wrapped(&self) -> &[u8] {
        self.encrypted.as_ref()
    }
}

/// Records that all differ.
#[derive(Default)]
struct Records(Cell<u64>);

impl Records {
    fn encrypt<E>(&self, encrypt: impl FnOnce(&[u8]) -> E) -> Record<E> {
        let number = self.0.get();
        self.0.set(number + 1);
        let mut record = [7; 64];
        record[..8].copy_from_slice(&number.to_le_bytes());
        Record {
            record,
            encrypted: encrypt(&record),
        }
    }
}

pub mod asherah {
    use std::sync::Arc;

    use asherah::{
        Config,
        aead::AES256GCM,
        api::new_session_factory,
        kms::StaticKMS,
        metastore::InMemoryMetastore,
        session::{PublicFactory, PublicSession},
        types::DataRowRecord,
    };

    use super::{Record, Records};
    use crate::peer::{Binding, Facts, MASTER_KEY, Pairs, Peer, joined_text, map};

    type Kms = StaticKMS<AES256GCM>;

    /// A session for each context, which stands in the place of the partition. Its intermediate key is in the cache.
    pub struct Asherah {
        records: Records,
    }

    thread_local! {
        /// It is never dropped: its cache would panic in the destructors of the thread, and end the program.
        static FACTORY: &'static PublicFactory<AES256GCM, Kms, InMemoryMetastore> = {
            let crypto = Arc::new(AES256GCM::new());
            let kms = StaticKMS::new(Arc::clone(&crypto), MASTER_KEY.to_vec()).expect("the key has 32 bytes");
            let config = Config::new("service", "product");
            let metastore = Arc::new(InMemoryMetastore::new());
            Box::leak(Box::new(new_session_factory(config, metastore, Arc::new(kms), crypto)))
        };
    }

    impl Asherah {
        pub fn new() -> Self {
            Self {
                records: Records::default(),
            }
        }
    }

    /// What asherah returns. The length that is printed is that of `data`: the key of the record is beside it.
    pub struct Row(DataRowRecord);

    impl AsRef<[u8]> for Row {
        fn as_ref(&self) -> &[u8] {
            &self.0.data
        }
    }

    impl Peer for Asherah {
        const FACTS: Facts = Facts {
            name: "asherah, in-memory metastore, static KMS, session at hand",
            package: ("asherah", "1."),
            randomness: "user-space ChaCha20 of the thread, seeded once: key, each nonce",
            nonce: "random 96-bit, twice",
            commitment: "none",
            binding: Binding::None,
        };
        type Context = PublicSession<AES256GCM, Kms, InMemoryMetastore>;
        type Made = Record<Row>;
        type Unwrapped = Vec<u8>;

        fn context(pairs: Pairs) -> Self::Context {
            let partition = joined_text(&map(pairs));
            FACTORY.with(|factory| factory.get_session(&partition))
        }

        fn wrap(&self, session: &Self::Context) -> Self::Made {
            self.records
                .encrypt(|record| Row(session.encrypt(record).expect("the session is open")))
        }

        /// asherah takes the record whole, so it is cloned.
        fn unwrap(&self, session: &Self::Context, made: &Self::Made) -> Option<Vec<u8>> {
            session.decrypt(made.encrypted.0.clone()).ok()
        }
    }
}

#[cfg(feature = "dekseal")]
pub mod dekseal {
    use std::cell::RefCell;

    use chacha20::ChaCha20Rng;
    use dekseal::{EncryptionContext, payload::PayloadCipher, rand_core::SeedableRng, zeroize::Zeroizing};
    use getrandom::SysRng;

    use super::{Record, Records};
    use crate::{
        dekseal_rows::{Service, context},
        peer::{Binding, Facts, Pairs, Peer},
    };

    fn rng() -> RefCell<ChaCha20Rng> {
        RefCell::new(ChaCha20Rng::try_from_rng(&mut SysRng).expect("there is randomness"))
    }

    const FACTS: Facts = Facts {
        name: "dekseal, a DEK for each record",
        package: ("dekseal", "0."),
        randomness: "OS call: key and salt",
        nonce: "derived with the key; a counter under a key of its own",
        commitment: "key and context",
        binding: Binding::Map,
    };

    pub struct Os {
        service: Service,
        records: Records,
    }

    impl Os {
        pub fn new() -> Self {
            Self {
                service: Service::new(),
                records: Records::default(),
            }
        }
    }

    impl Peer for Os {
        const FACTS: Facts = FACTS;
        type Context = EncryptionContext;
        type Made = Record<Vec<u8>>;
        type Unwrapped = Zeroizing<Vec<u8>>;

        fn context(pairs: Pairs) -> EncryptionContext {
            context(pairs)
        }

        fn wrap(&self, context: &EncryptionContext) -> Self::Made {
            let Service { engine, key_id } = &self.service;
            self.records.encrypt(|record| {
                engine
                    .encrypt(key_id, context, record)
                    .expect("the key is in the keyring")
            })
        }

        fn unwrap(&self, context: &EncryptionContext, made: &Self::Made) -> Option<Self::Unwrapped> {
            let Service { engine, key_id } = &self.service;
            engine.decrypt(key_id, context, &made.encrypted).ok()
        }
    }

    pub struct UserSpace {
        os: Os,
        rng: RefCell<ChaCha20Rng>,
    }

    impl UserSpace {
        pub fn new() -> Self {
            Self {
                os: Os::new(),
                rng: rng(),
            }
        }
    }

    impl Peer for UserSpace {
        const FACTS: Facts = Facts {
            name: "dekseal, a DEK for each record, generator of the caller",
            randomness: "user-space ChaCha20, seeded once: key, salt",
            ..FACTS
        };
        type Context = EncryptionContext;
        type Made = Record<Vec<u8>>;
        type Unwrapped = Zeroizing<Vec<u8>>;

        fn context(pairs: Pairs) -> EncryptionContext {
            context(pairs)
        }

        fn wrap(&self, context: &EncryptionContext) -> Self::Made {
            let Service { engine, key_id } = &self.os.service;
            let rng = &mut *self.rng.borrow_mut();
            self.os.records.encrypt(|record| {
                let cipher = engine.create_payload_cipher_with_rng(key_id, context, rng);
                let cipher = cipher.expect("the key is in the keyring");
                cipher.encrypt_with_rng(record, rng).expect("the record is short")
            })
        }

        fn unwrap(&self, context: &EncryptionContext, made: &Self::Made) -> Option<Self::Unwrapped> {
            self.os.unwrap(context, made)
        }
    }

    pub struct Reused {
        records: Records,
        rng: RefCell<ChaCha20Rng>,
    }

    impl Reused {
        pub fn new() -> Self {
            Self {
                records: Records::default(),
                rng: rng(),
            }
        }
    }

    impl Peer for Reused {
        const FACTS: Facts = Facts {
            name: "dekseal, a DEK for many records, generator of the caller",
            randomness: "user-space ChaCha20, seeded once: salt",
            ..FACTS
        };
        /// A cipher stands for its context.
        type Context = PayloadCipher;
        type Made = Record<Vec<u8>>;
        type Unwrapped = Zeroizing<Vec<u8>>;

        fn context(pairs: Pairs) -> PayloadCipher {
            let Service { engine, key_id } = Service::new();
            let cipher = engine.create_payload_cipher(&key_id, &context(pairs));
            cipher.expect("the key is in the keyring")
        }

        fn wrap(&self, cipher: &PayloadCipher) -> Self::Made {
            let rng = &mut *self.rng.borrow_mut();
            self.records
                .encrypt(|record| cipher.encrypt_with_rng(record, rng).expect("the record is short"))
        }

        fn unwrap(&self, cipher: &PayloadCipher, made: &Self::Made) -> Option<Self::Unwrapped> {
            cipher.decrypt(&made.encrypted).ok()
        }
    }
}
