//! Seals the DEKs of rows again. Knows nothing of databases.

use std::{thread, time::Duration};

use dekseal::{
    EncryptionContext, Engine, Error, ErrorKind, KeyId, Keyring, Rewrapped, SealedDek, StoreFault,
    payload::PayloadHeader,
};

use super::{
    encoding::{Content, Encoding, decode, replace},
    row::{Problem, Row, Value},
    template::Template,
};

/// How the rows of a table are rewrapped.
pub(crate) struct Rewrap<'a, K> {
    pub(crate) engine: &'a Engine<K>,
    pub(crate) template: &'a Template,
    pub(crate) content: Content,
    pub(crate) encoding: Option<Encoding>,
    /// Only the rows of these keys, or of all keys if it is empty.
    pub(crate) only: &'a [KeyId],
}

/// What became of a row.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Null,
    /// The value is under a key that is not to be swept.
    OtherKey,
    /// The value is under the current version of its key, and opens.
    Current(Sealed),
    /// The value to store instead.
    Renewed {
        from: Sealed,
        to: Sealed,
        value: Value,
    },
    Failed(Problem),
}

/// The key and the version that a value is sealed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) key_id: KeyId,
    pub(crate) version: u32,
}

impl Sealed {
    fn of(sealed: &SealedDek) -> Self {
        Self {
            key_id: sealed.key_id(),
            version: sealed.key_version(),
        }
    }
}

/// A row whose bytes could be read.
struct Opened {
    at: usize,
    key_id: KeyId,
    context: EncryptionContext,
    bytes: Vec<u8>,
}

/// The key and the version before and after, and the new bytes.
type Sealings = (Sealed, Sealed, Vec<u8>);

/// How often, and with which first pause, the keyring is asked again when its store does not answer.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(100);

impl<K: Keyring> Rewrap<'_, K> {
    /// Rewraps rows. `refresh` looks for newer keys; it is called before a key or a version counts as missing.
    ///
    /// The error is one that is not of a row: the keyring failed.
    pub(crate) fn rows(&self, rows: &[Row], refresh: &dyn Fn()) -> Result<Vec<Outcome>, Error> {
        let mut pause = PAUSE;
        let mut attempt: u32 = 1;
        loop {
            match self.attempt(rows) {
                Ok((_, true)) if attempt == 1 => refresh(),
                Ok((outcomes, _)) => return Ok(outcomes),
                Err(error) if is_transient(error.kind()) && attempt < ATTEMPTS => {
                    thread::sleep(pause);
                    pause = pause.saturating_mul(2);
                }
                Err(error) => return Err(error),
            }
            attempt = attempt.saturating_add(1);
        }
    }

    /// Also returns whether a key or a version is missing.
    fn attempt(&self, rows: &[Row]) -> Result<(Vec<Outcome>, bool), Error> {
        let mut outcomes: Vec<_> = rows.iter().map(|_| Outcome::Null).collect();
        let mut opened = Vec::with_capacity(rows.len());
        for (at, (row, outcome)) in rows.iter().zip(&mut outcomes).enumerate() {
            match self.open(at, row) {
                Ok(row) => opened.push(row),
                Err(other) => *outcome = other,
            }
        }
        // The engine asks the keyring once for a run of rows of one key.
        opened.sort_by(|a, b| a.key_id.as_bytes().cmp(b.key_id.as_bytes()));
        let mut missing = false;
        for run in opened.chunk_by(|a, b| a.key_id == b.key_id) {
            for (row, result) in run.iter().zip(self.run(run)) {
                let outcome = match result {
                    Ok((from, to, _)) if from == to => Outcome::Current(to),
                    Ok((from, to, bytes)) => {
                        let old = rows.get(row.at).map_or(&Value::Null, |row| &row.value);
                        let value = replace(old, self.encoding, &bytes);
                        Outcome::Renewed { from, to, value }
                    }
                    Err(error) if is_of_one_row(error.kind()) => {
                        missing |= matches!(error.kind(), ErrorKind::UnknownKey | ErrorKind::UnknownKeyVersion);
                        Outcome::Failed(Problem::of(&error))
                    }
                    Err(error) => return Err(error),
                };
                if let Some(place) = outcomes.get_mut(row.at) {
                    *place = outcome;
                }
            }
        }
        Ok((outcomes, missing))
    }

    /// Reads the value and the context of a row. The error is the outcome of a row that is not rewrapped.
    fn open(&self, at: usize, row: &Row) -> Result<Opened, Outcome> {
        if row.value == Value::Null {
            return Err(Outcome::Null);
        }
        let bytes = decode(&row.value, self.content, self.encoding).map_err(Outcome::Failed)?;
        let sealed = match self.content {
            Content::SealedDek => SealedDek::from_bytes(&bytes),
            Content::Payload => header(&bytes).map(|header| *header.sealed_dek()),
        };
        let sealed = sealed.map_err(|error| Outcome::Failed(Problem::of(&error)))?;
        let key_id = sealed.key_id();
        // Rows of other keys may have no context.
        if !self.only.is_empty() && !self.only.contains(&key_id) {
            return Err(Outcome::OtherKey);
        }
        Ok(Opened {
            at,
            key_id,
            context: self.template.context(&row.cells).map_err(Outcome::Failed)?,
            bytes,
        })
    }

    /// Rewraps rows of one key. Returns for each the versions before and after, and the bytes.
    fn run(&self, run: &[Opened]) -> Vec<Result<Sealings, Error>> {
        let Some(first) = run.first() else {
            return Vec::new();
        };
        let key_id = first.key_id;
        match self.content {
            Content::SealedDek => {
                let blobs = run.iter().map(|row| (&row.context, &row.bytes));
                let results = self.engine.rewrap_deks(&key_id, blobs).zip(run);
                let results = results.map(|(result, row)| {
                    let result: Rewrapped = result?;
                    let old = SealedDek::from_bytes(&row.bytes)?;
                    let new = result.sealed();
                    Ok((Sealed::of(&old), Sealed::of(new), new.as_bytes().to_vec()))
                });
                results.collect()
            }
            Content::Payload => {
                let results = run.iter().map(|row| {
                    let old = header(&row.bytes)?;
                    let new = self.engine.rewrap_header(&key_id, &row.context, &key_id, &old)?;
                    Ok((
                        Sealed::of(old.sealed_dek()),
                        Sealed::of(new.sealed_dek()),
                        new.to_bytes().to_vec(),
                    ))
                });
                results.collect()
            }
        }
    }
}

fn header(bytes: &[u8]) -> Result<PayloadHeader, Error> {
    let header = bytes
        .first_chunk()
        .ok_or(ErrorKind::NotAPayload(dekseal::PayloadRule::Length))?;
    PayloadHeader::from_bytes(header)
}

/// Whether an error concerns one row, or the rows of one key. The others concern the keyring.
fn is_of_one_row(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotABlob(_)
            | ErrorKind::NotAPayload(_)
            | ErrorKind::MalformedKeyId
            | ErrorKind::DamagedBlob
            | ErrorKind::KeyMismatch
            | ErrorKind::UnknownKey
            | ErrorKind::UnknownKeyVersion
            | ErrorKind::KeyVersionRetired
            | ErrorKind::KeyVersionDestroyed
            | ErrorKind::KeyDisabled
            | ErrorKind::KeyPendingDeletion
            | ErrorKind::AuthenticationFailed
    )
}

/// Whether the same call may soon succeed.
fn is_transient(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::KeyringUnavailable | ErrorKind::Store(StoreFault::Deadline | StoreFault::Unavailable)
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell as Counter;

    use dekseal::{CmkVersion, MemoryKeyring};

    use super::*;
    use crate::sweep::row::Cell;

    const KEY: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
    const OTHER: &str = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7";

    fn engine() -> Engine<MemoryKeyring> {
        let versions = [KEY, OTHER].map(|id| CmkVersion::new(id.parse().unwrap(), 0, &[7; 32]).unwrap());
        Engine::new(MemoryKeyring::from_versions(versions).unwrap())
    }

    fn row(value: Value, tenant: Cell) -> Row {
        Row {
            key: Vec::new(),
            value,
            cells: vec![tenant],
        }
    }

    fn tenant(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    fn template() -> Template {
        Template::parse(vec![("tenant".into(), "{tenant}".into())]).unwrap()
    }

    fn problem(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Failed(problem) => problem.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn each_row_has_its_own_outcome() {
        let (engine, template) = (engine(), template());
        let [key, other] = [KEY, OTHER].map(|id| id.parse::<KeyId>().unwrap());
        let context = EncryptionContext::from_pairs([("tenant", "42")]).unwrap();
        let seal = |key: &KeyId| Value::Bytes(engine.create_dek(key, &context).unwrap().1.as_bytes().to_vec());
        let (old, foreign) = (seal(&key), seal(&other));
        engine.keyring().update(|keys| keys.rotate(&key)).unwrap();
        let current = seal(&key);
        let rows = [
            row(old.clone(), tenant("42")),
            row(Value::Null, Cell::Null),
            row(foreign.clone(), tenant("42")),
            row(current, tenant("42")),
            row(old.clone(), tenant("43")),
            row(old.clone(), Cell::Null),
            row(Value::Bytes(vec![1; 188]), tenant("42")),
        ];
        let mut rewrap = Rewrap {
            engine: &engine,
            template: &template,
            content: Content::SealedDek,
            encoding: None,
            only: &[],
        };
        let outcomes = rewrap.rows(&rows, &|| ()).unwrap();
        let sealed = |key_id, version| Sealed { key_id, version };
        let Outcome::Renewed {
            from,
            to,
            value: Value::Bytes(bytes),
        } = &outcomes[0]
        else {
            panic!("{:?}", outcomes[0]);
        };
        assert_eq!((*from, *to), (sealed(key, 0), sealed(key, 1)));
        let opened = |bytes: &[u8]| {
            engine
                .decrypt_dek(&key, &context, &SealedDek::from_bytes(bytes).unwrap())
                .unwrap()
        };
        let Value::Bytes(old) = old else { unreachable!() };
        assert_eq!(opened(bytes), opened(&old));
        assert_eq!(outcomes[1], Outcome::Null);
        assert_eq!(outcomes[2], Outcome::Current(sealed(other, 0)));
        assert_eq!(outcomes[3], Outcome::Current(sealed(key, 1)));
        assert!(problem(&outcomes[4]).starts_with("authentication failed"));
        assert_eq!(problem(&outcomes[5]), "the column tenant of the context is NULL");
        assert!(problem(&outcomes[6]).starts_with("not a sealed DEK: the version"));

        let only = [key];
        rewrap.only = &only;
        let rows = [row(foreign.clone(), tenant("42")), row(foreign, Cell::Null)];
        let outcomes = rewrap.rows(&rows, &|| ()).unwrap();
        assert_eq!(outcomes, [Outcome::OtherKey, Outcome::OtherKey]);
    }

    #[test]
    fn a_missing_version_is_looked_for_once_more() {
        let (engine, newer) = (engine(), self::engine());
        let key: KeyId = KEY.parse().unwrap();
        newer.keyring().update(|keys| keys.rotate(&key)).unwrap();
        let context = EncryptionContext::from_pairs([("tenant", "42")]).unwrap();
        let (_, sealed) = newer.create_dek(&key, &context).unwrap();
        let template = template();
        let rewrap = Rewrap {
            engine: &engine,
            template: &template,
            content: Content::SealedDek,
            encoding: None,
            only: &[],
        };
        let refreshed = Counter::new(0);
        let rows = [row(Value::Bytes(sealed.as_bytes().to_vec()), tenant("42"))];
        let outcomes = rewrap.rows(&rows, &|| refreshed.set(refreshed.get() + 1)).unwrap();
        assert!(problem(&outcomes[0]).starts_with("unknown key version"));
        assert_eq!(refreshed.get(), 1);
    }

    #[test]
    fn of_a_payload_only_the_header_is_replaced() {
        let (engine, template) = (engine(), template());
        let key: KeyId = KEY.parse().unwrap();
        let context = EncryptionContext::from_pairs([("tenant", "42")]).unwrap();
        let payload = engine.encrypt(&key, &context, &[5; 3000]).unwrap();
        engine.keyring().update(|keys| keys.rotate(&key)).unwrap();
        let rewrap = Rewrap {
            engine: &engine,
            template: &template,
            content: Content::Payload,
            encoding: None,
            only: &[],
        };
        let rows = [
            row(Value::Bytes(payload[..Value::HEAD].to_vec()), tenant("42")),
            row(Value::Bytes(payload[..263].to_vec()), tenant("42")),
        ];
        let outcomes = rewrap.rows(&rows, &|| ()).unwrap();
        let Outcome::Renewed {
            to,
            value: Value::Bytes(head),
            ..
        } = &outcomes[0]
        else {
            panic!("{:?}", outcomes[0]);
        };
        assert_eq!(to.version, 1);
        let renewed = [&head[..], &payload[Value::HEAD..]].concat();
        assert_eq!(*engine.decrypt(&key, &context, &renewed).unwrap(), [5; 3000]);
        assert!(problem(&outcomes[1]).starts_with("not a sealed payload"));
    }
}
