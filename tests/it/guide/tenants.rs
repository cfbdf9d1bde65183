//! The code of docs/guide/tenants.md.

// ANCHOR: tenant
use dekseal::{Dek, EncryptionContext, Engine, Error, KeyId, Keyring, SealedDek};

/// A row of the tenant table, chosen by the authenticated caller. Nothing here comes from the request or from the blob.
struct Tenant {
    id: String,
    key_id: KeyId,
}

impl Tenant {
    fn context(&self, purpose: &str) -> Result<EncryptionContext, Error> {
        EncryptionContext::from_pairs([("tenant", self.id.as_str()), ("purpose", purpose)])
    }

    fn create(&self, engine: &Engine<impl Keyring>) -> Result<(Dek, SealedDek), Error> {
        engine.create_dek(&self.key_id, &self.context("document")?)
    }

    /// Names the expected key. `decrypt_dek_under_any_key` would accept any key that the blob names.
    fn open(&self, engine: &Engine<impl Keyring>, sealed: &SealedDek) -> Result<Dek, Error> {
        engine.decrypt_dek(&self.key_id, &self.context("document")?, sealed)
    }
}
// ANCHOR_END: tenant

#[test]
fn tenants_are_separate_and_one_can_be_shredded() -> Result<(), Error> {
    // ANCHOR: separate
    use dekseal::{ErrorKind, Keyset, MemoryKeyring};

    let a = Tenant {
        id: "a".into(),
        key_id: "aaaaaaaa-0000-0000-0000-000000000000".parse()?,
    };
    let b = Tenant {
        id: "b".into(),
        key_id: "bbbbbbbb-0000-0000-0000-000000000000".parse()?,
    };
    let mut keys = Keyset::new();
    for tenant in [&a, &b] {
        keys.create_key(tenant.key_id)?;
    }
    let engine = Engine::new(MemoryKeyring::new(keys));

    let (dek, sealed) = a.create(&engine)?;
    assert_eq!(a.open(&engine, &sealed)?, dek);
    assert_eq!(b.open(&engine, &sealed).unwrap_err().kind(), ErrorKind::KeyMismatch);
    // ANCHOR_END: separate
    let c = Tenant {
        id: "c".into(),
        key_id: a.key_id,
    };
    let error = c.open(&engine, &sealed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);

    // ANCHOR: shred
    let date = engine.keyring().update(|keys| keys.schedule_deletion(&a.key_id, 30))?;
    let error = a.open(&engine, &sealed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyPendingDeletion);

    // 30 days later, by `purge(&a.key_id)`. Until then the deletion can be cancelled.
    engine.keyring().update(|keys| keys.purge_at(&a.key_id, date))?;
    let error = a.open(&engine, &sealed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownKey);
    // ANCHOR_END: shred
    b.create(&engine)?;
    Ok(())
}
