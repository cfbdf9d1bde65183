//! The code of docs/guide/migrating.md.

mod opener {
    // ANCHOR: opener
    use std::error::Error;

    use dekseal::{Dek, EncryptionContext, Engine, KeyId, Keyring, SealedDek};

    /// A client of the cloud KMS.
    trait Cloud {
        fn decrypt(&self, blob: &[u8]) -> Result<Dek, Box<dyn Error>>;
    }

    struct Opener<K, C> {
        engine: Engine<K>,
        our_key: KeyId,
        cloud: C,
    }

    impl<K: Keyring, C: Cloud> Opener<K, C> {
        /// Step 1: opens blobs of both systems, until the last blob has moved.
        fn open(&self, context: &EncryptionContext, blob: &[u8]) -> Result<Dek, Box<dyn Error>> {
            match SealedDek::from_bytes(blob) {
                Ok(sealed) if sealed.key_id() == self.our_key => {
                    Ok(self.engine.decrypt_dek(&self.our_key, context, &sealed)?)
                }
                _ => self.cloud.decrypt(blob),
            }
        }

        /// Step 3: returns the blob that replaces a cloud blob, or `None` if the blob has moved already.
        fn migrate(&self, context: &EncryptionContext, blob: &[u8]) -> Result<Option<SealedDek>, Box<dyn Error>> {
            if SealedDek::from_bytes(blob).is_ok_and(|sealed| sealed.key_id() == self.our_key) {
                return Ok(None);
            }
            let dek = self.cloud.decrypt(blob)?;
            let sealed = self.engine.encrypt_dek(&self.our_key, context, &dek)?;
            // Check that the new blob opens before the cloud's blob is given up.
            if self.engine.decrypt_dek(&self.our_key, context, &sealed)? != dek {
                return Err("the new blob holds another DEK".into());
            }
            Ok(Some(sealed))
        }
    }
    // ANCHOR_END: opener

    use dekseal::{CmkVersion, MemoryKeyring};

    struct FakeCloud;

    impl Cloud for FakeCloud {
        fn decrypt(&self, blob: &[u8]) -> Result<Dek, Box<dyn Error>> {
            let dek = blob
                .get(..64)
                .and_then(<[u8]>::first_chunk)
                .ok_or("not a blob of the cloud")?;
            Ok(Dek::from_bytes(dek))
        }
    }

    #[test]
    fn blobs_of_both_systems_open_and_move_once() -> Result<(), Box<dyn Error>> {
        let our_key = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
        let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(our_key, 0, &[7; 64])?])?);
        let cloud = FakeCloud;
        let opener = Opener { engine, our_key, cloud };
        let context = EncryptionContext::from_pairs([("tenant", "42")])?;
        let theirs = [[9; 64], [1; 64]].concat();
        // A cloud blob in the same frame, under a key of the cloud.
        let their_key = "11111111-1111-1111-1111-111111111111".parse()?;
        let same_frame = CmkVersion::new(their_key, 0, &[8; 64])?.seal(&context, &Dek::from_bytes(&[9; 64]));
        for blob in [&theirs[..], same_frame.as_bytes()] {
            let dek = opener.open(&context, blob)?;
            let moved = opener.migrate(&context, blob)?.unwrap();
            assert_eq!(opener.open(&context, moved.as_bytes())?, dek);
            assert_eq!(opener.migrate(&context, moved.as_bytes())?, None);
        }
        Ok(())
    }
}

mod other_lengths {
    // ANCHOR: seal_32
    use dekseal::{Dek, EncryptionContext, Engine, Error, KeyId, Keyring, SealedDek, zeroize::Zeroizing};

    fn seal_32(
        engine: &Engine<impl Keyring>,
        key_id: &KeyId,
        tenant: &str,
        key: &[u8; 32],
    ) -> Result<SealedDek, Error> {
        let mut padded = Zeroizing::new([0; Dek::LEN]);
        padded[..32].copy_from_slice(key);
        let context = EncryptionContext::from_pairs([("tenant", tenant), ("length", "32")])?;
        engine.encrypt_dek(key_id, &context, &Dek::from_bytes(&padded))
    }
    // ANCHOR_END: seal_32

    #[test]
    fn a_key_of_32_bytes_is_padded_and_its_length_is_in_the_context() -> Result<(), Error> {
        use dekseal::{CmkVersion, MemoryKeyring};

        let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
        let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 64])?])?);
        let sealed = seal_32(&engine, &key_id, "42", &[9; 32])?;
        let context = EncryptionContext::from_pairs([("length", "32"), ("tenant", "42")])?;
        let dek = engine.decrypt_dek(&key_id, &context, &sealed)?;
        assert_eq!(dek.expose_secret()[..32], [9; 32]);
        Ok(())
    }
}
