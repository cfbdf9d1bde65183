//! The code of docs/guide/columns-and-files.md.

// ANCHOR: row
use dekseal::{
    EncryptionContext, Engine, Error, ErrorKind, KeyId, Keyring, PayloadRule, payload::PayloadHeader,
    zeroize::Zeroizing,
};

/// Identifies one value in the database. The texts are constants, not names from the schema, so that a table can be
/// renamed. The context is not stored: it is made again from the row that is asked for.
fn context(tenant: &str, id: &str) -> Result<EncryptionContext, Error> {
    EncryptionContext::from_pairs([
        ("table", "patient"),
        ("column", "secret"),
        ("tenant", tenant),
        ("id", id),
    ])
}

struct Row {
    id: String,
    tenant: String,
    secret: Vec<u8>,
    key_version: u32,
}

fn write(engine: &Engine<impl Keyring>, key_id: &KeyId, tenant: &str, id: &str, secret: &[u8]) -> Result<Row, Error> {
    let secret = engine.encrypt(key_id, &context(tenant, id)?, secret)?;
    let key_version = key_version(&secret)?;
    Ok(Row {
        id: id.into(),
        tenant: tenant.into(),
        secret,
        key_version,
    })
}

fn read(engine: &Engine<impl Keyring>, key_id: &KeyId, row: &Row) -> Result<Zeroizing<Vec<u8>>, Error> {
    engine.decrypt(key_id, &context(&row.tenant, &row.id)?, &row.secret)
}

/// Needs no key.
fn key_version(payload: &[u8]) -> Result<u32, Error> {
    let header = payload
        .first_chunk()
        .ok_or(ErrorKind::NotAPayload(PayloadRule::Length))?;
    Ok(PayloadHeader::from_bytes(header)?.sealed_dek().key_version())
}
// ANCHOR_END: row

fn engine(key_id: KeyId) -> Result<Engine<dekseal::MemoryKeyring>, Error> {
    let versions = [dekseal::CmkVersion::new(key_id, 0, &[7; 64])?];
    Ok(Engine::new(dekseal::MemoryKeyring::from_versions(versions)?))
}

#[test]
fn a_row_opens_in_its_place_only() -> Result<(), Error> {
    let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    let engine = engine(key_id)?;
    // ANCHOR: moved
    let mut row = write(&engine, &key_id, "42", "c0ffee", br#"{"diagnosis":"J45"}"#)?;
    assert_eq!(*read(&engine, &key_id, &row)?, br#"{"diagnosis":"J45"}"#);

    // A payload that was copied to another row does not open there.
    row.id = "decade".into();
    let error = read(&engine, &key_id, &row).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
    // ANCHOR_END: moved
    assert_eq!(row.key_version, 0);
    Ok(())
}

#[test]
fn one_dek_serves_a_tenant() -> Result<(), Error> {
    let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    let engine = engine(key_id)?;
    // ANCHOR: tenant
    use dekseal::SealedDek;

    let context = EncryptionContext::from_pairs([("table", "patient"), ("tenant", "42")])?;
    let payload_cipher = engine.create_payload_cipher(&key_id, &context)?;
    // The column tenant_dek.sealed, 188 bytes.
    let mut stored = payload_cipher.sealed_dek().as_bytes().to_vec();
    let row = payload_cipher.encrypt(br#"{"id":"c0ffee","diagnosis":"J45"}"#)?;

    // After a rotation only this blob is rewrapped. The rows stay as they are.
    engine.keyring().update(|keys| keys.rotate(&key_id))?;
    let rewrapped = engine.rewrap_dek(&key_id, &context, &SealedDek::from_bytes(&stored)?)?;
    stored = rewrapped.sealed().as_bytes().to_vec();
    engine.keyring().update(|keys| keys.set_min_version(&key_id, 1))?;

    let payload_cipher = engine.open_payload_cipher(&key_id, &context, &SealedDek::from_bytes(&stored)?)?;
    assert_eq!(*payload_cipher.decrypt(&row)?, br#"{"id":"c0ffee","diagnosis":"J45"}"#);
    // ANCHOR_END: tenant
    Ok(())
}

// ANCHOR: files
use std::{fs::File, io, path::Path};

fn encrypt_file(engine: &Engine<impl Keyring>, key_id: &KeyId, from: &Path, to: &Path) -> io::Result<()> {
    let context = EncryptionContext::from_pairs([("purpose", "archive")])?;
    create(to, |output| {
        let mut writer = engine.encrypt_writer(key_id, &context, output)?;
        io::copy(&mut File::open(from)?, &mut writer)?;
        // Writes the last segment: a payload without it does not decrypt.
        writer.finish()?;
        Ok(())
    })
}

fn decrypt_file(engine: &Engine<impl Keyring>, key_id: &KeyId, from: &Path, to: &Path) -> io::Result<()> {
    let context = EncryptionContext::from_pairs([("purpose", "archive")])?;
    create(to, |output| {
        // Only the end shows that the payload is complete. After an error the file does not get its name.
        io::copy(&mut engine.decrypt_reader(key_id, &context, File::open(from)?)?, output)?;
        Ok(())
    })
}
// ANCHOR_END: files

// ANCHOR: create
/// Creates a file whose name appears when all of it is on disk. Until then it has no name, so nothing is left of it
/// after an error, a signal or a crash. Linux only.
#[cfg(target_os = "linux")]
fn create(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    use std::os::{fd::AsRawFd, unix::fs::OpenOptionsExt};

    use rustix::fs::{AtFlags, CWD, OFlags, linkat};

    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut options = File::options();
    options.write(true).mode(0o600);
    options.custom_flags(OFlags::TMPFILE.bits().cast_signed());
    let mut file = options.open(directory)?;
    write(&mut file)?;
    file.sync_all()?;
    // Fails if the name exists.
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    // Until the directory is synced, a power failure may undo the new name.
    File::open(directory)?.sync_all()
}
// ANCHOR_END: create

#[cfg(not(target_os = "linux"))]
fn create(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    write(&mut File::create_new(path)?)
}

#[test]
fn files_are_complete_or_not_there() -> Result<(), Box<dyn std::error::Error>> {
    let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    let engine = engine(key_id)?;
    let directory = tempfile::tempdir()?;
    let path = |name| directory.path().join(name);
    std::fs::write(path("report.pdf"), [7; 100_000])?;
    encrypt_file(&engine, &key_id, &path("report.pdf"), &path("report.pdf.sealed"))?;
    decrypt_file(&engine, &key_id, &path("report.pdf.sealed"), &path("report.copy.pdf"))?;
    assert_eq!(std::fs::read(path("report.copy.pdf"))?, [7; 100_000]);

    let sealed = std::fs::read(path("report.pdf.sealed"))?;
    std::fs::write(path("cut"), &sealed[..sealed.len() - 1])?;
    let error = decrypt_file(&engine, &key_id, &path("cut"), &path("never")).unwrap_err();
    let error: &Error = error.get_ref().unwrap().downcast_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
    #[cfg(target_os = "linux")]
    assert!(!path("never").exists());

    engine.keyring().update(|keys| keys.rotate(&key_id))?;
    let (path, context) = (
        path("report.pdf.sealed"),
        EncryptionContext::from_pairs([("purpose", "archive")])?,
    );
    // ANCHOR: rewrap
    let header = engine.rewrap_file(&key_id, &context, &key_id, &path)?;
    assert_eq!(header.sealed_dek().key_version(), 1);
    // ANCHOR_END: rewrap
    Ok(())
}
