//! The code of docs/guide/logging.md.

// ANCHOR: open
use dekseal::{Dek, EncryptionContext, Engine, Error, KeyId, Keyring, SealedDek};

fn open(
    engine: &Engine<impl Keyring>,
    caller: &str,
    key_id: &KeyId,
    context: &EncryptionContext,
    sealed: &SealedDek,
    log: &mut impl FnMut(String),
) -> Result<Dek, Error> {
    let opened = engine.decrypt_dek(key_id, context, sealed);
    let outcome = match &opened {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    let (version, context) = (sealed.key_version(), fingerprint(context.sha256()));
    let blob = fingerprint(&sealed.as_bytes()[SealedDek::LEN - 32..]);
    log(format!(
        "open key={key_id} version={version} context={context} blob={blob} caller={caller:?} outcome={outcome}"
    ));
    opened
}

/// 64 bits: enough to find the same value again, too few to stand for what was hashed.
fn fingerprint(hash: &[u8]) -> String {
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
// ANCHOR_END: open

#[test]
fn a_line_says_who_opened_what() -> Result<(), Error> {
    let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    let cmk = dekseal::CmkVersion::new(key_id, 0, &[7; 64])?;
    let engine = Engine::new(dekseal::MemoryKeyring::from_versions([cmk])?);
    let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    let sealed = engine.create_dek_without_plaintext(&key_id, &context)?;
    let mut lines = Vec::new();
    let mut log = |line: String| lines.push(line);
    open(&engine, "backup", &key_id, &context, &sealed, &mut log)?;
    open(
        &engine,
        "backup",
        &key_id,
        &EncryptionContext::none(),
        &sealed,
        &mut log,
    )
    .unwrap_err();
    let line = "open key=0d0466b0-e727-4d9c-b35d-f84bb474a37f version=0 context=1042d67d4cee9b0d blob=";
    assert!(
        lines[0].starts_with(line) && lines[0].ends_with(" caller=\"backup\" outcome=ok"),
        "{}",
        lines[0]
    );
    assert!(lines[1].ends_with(" outcome=AuthenticationFailed"), "{}", lines[1]);
    Ok(())
}
