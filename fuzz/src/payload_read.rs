//! Compares three ways to read a payload with the second implementation: all accept the same bytes, and return no
//! others.

use std::{
    io::{self, BufRead, Cursor, Read, Seek, SeekFrom},
    sync::LazyLock,
};

use arbitrary::{Arbitrary, Unstructured};
use dekseal::{
    CmkVersion, EncryptionContext, Engine, Error, ErrorKind, KeyId, MemoryKeyring,
    payload::{PayloadHeader, PayloadReader, PayloadSeekReader, SEALED_SEGMENT_LEN, SEGMENT_LEN, plaintext_len},
};
use serde_json::Value;

use crate::{
    roundtrip,
    second::{Key, canonical},
};

/// Key, context and DEK of the test vectors, so that the vectors are seeds.
struct Known {
    key_id: KeyId,
    context: EncryptionContext,
    canonical: Vec<u8>,
    engine: Engine<MemoryKeyring>,
    second: Key,
    bases: Vec<Base>,
}

/// A payload to edit.
struct Base {
    plaintext: Vec<u8>,
    payload: Vec<u8>,
}

/// Lengths around the boundaries, and short lengths, which are fast to read.
const LENGTHS: [usize; 10] = [0, 1, 100, 1000, 65535, 65536, 65537, 131_072, 131_077, 196_625];

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let vectors = serde_json::from_str::<Value>(include_str!("../../tests/vectors/payload.json")).expect("JSON");
    let bytes = |value: &Value| hex::decode(value.as_str().expect("text")).expect("hex");
    let id = vectors["key_id"].as_str().expect("text");
    let material = bytes(&vectors["keys"][0]["material"]);
    let pairs: Vec<_> = vectors["context"]
        .as_object()
        .expect("a map")
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str().expect("text")))
        .collect();
    let canonical = canonical(pairs.iter().copied()).expect("a context");
    let dek: [u8; 64] = bytes(&vectors["dek"]).try_into().expect("64 bytes");
    let key_id: KeyId = id.parse().expect("a key ID");
    let cmk = CmkVersion::new(key_id, 0, &material).expect("material");
    let second = Key::new(id, 0, &material).expect("material");
    let sealed = second.seal(&canonical, &dek);
    let base = |(number, length): (u8, usize)| {
        let plaintext = roundtrip::plaintext(length, number);
        let payload = Key::seal_payload(&sealed, &dek, &[number; 32], &plaintext);
        Base { plaintext, payload }
    };
    Known {
        key_id,
        context: EncryptionContext::from_pairs(pairs).expect("a context"),
        engine: Engine::new(MemoryKeyring::from_versions([cmk]).expect("one key")),
        bases: (0..).zip(LENGTHS).map(base).collect(),
        second,
        canonical,
    }
});

/// The edits of a payload, and the way to read it.
#[derive(Arbitrary, Debug)]
struct Plan<'a> {
    edits: Vec<Edit<'a>>,
    /// The inner reader returns this many bytes at a time.
    most: u16,
    interrupted: bool,
    reads: Vec<u32>,
    moves: Vec<(Move, u32)>,
}

/// A place in a payload, in terms of its structure.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum At {
    Front(u16),
    Boundary(u8, i8),
    Back(u16),
    Anywhere(u32),
}

#[derive(Arbitrary, Debug)]
enum Edit<'a> {
    Flip(At, u8),
    Cut(At),
    Remove(At, u16),
    Insert(At, &'a [u8]),
    Extend(&'a [u8]),
    Swap(u8, u8),
    Drop(u8),
    Repeat(u8),
    /// A segment of another payload under the same DEK.
    Foreign(u8, u8, u8),
    /// The header of another payload under the same DEK.
    ForeignHeader(u8),
}

#[derive(Arbitrary, Debug)]
enum Move {
    Stay,
    To(u32),
    Boundary(u8, i8),
    Far(u64),
    By(i32),
    Wild(i64),
    FromEnd(i32),
    Length,
}

/// The first byte selects the meaning of the others: a whole payload, segments after a valid header, or edits of a
/// valid payload.
pub fn payload_read(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(rest)) else {
        return;
    };
    let known = &*KNOWN;
    match usize::from(*first) % (2 + known.bases.len()) {
        0 => read(rest, None, &plan),
        1 => {
            let base = &known.bases[known.bases.len() - 1];
            read(&[&base.payload[..PayloadHeader::LEN], rest].concat(), Some(base), &plan);
        }
        number => {
            let base = &known.bases[number - 2];
            let mut payload = base.payload.clone();
            plan.edits.iter().take(8).for_each(|edit| edit.apply(&mut payload));
            read(&payload, Some(base), &plan);
        }
    }
}

impl At {
    fn of(self, length: usize) -> usize {
        let at = match self {
            Self::Front(at) => usize::from(at) % 300,
            Self::Boundary(segment, by) => {
                (PayloadHeader::LEN + usize::from(segment % 5) * SEALED_SEGMENT_LEN).saturating_add_signed(by.into())
            }
            Self::Back(by) => length.saturating_sub(usize::from(by) % 300),
            Self::Anywhere(at) => at as usize % (length + 1),
        };
        at.min(length)
    }
}

impl Edit<'_> {
    fn apply(&self, payload: &mut Vec<u8>) {
        let bases = &KNOWN.bases;
        match *self {
            Self::Flip(at, bit) => {
                let at = at.of(payload.len());
                if let Some(byte) = payload.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Self::Cut(at) => payload.truncate(at.of(payload.len())),
            Self::Remove(at, length) => {
                let from = at.of(payload.len());
                let to = from.saturating_add(length.into()).min(payload.len());
                drop(payload.drain(from..to));
            }
            Self::Insert(at, bytes) => {
                let at = at.of(payload.len());
                drop(payload.splice(at..at, bytes.iter().copied()));
            }
            Self::Extend(bytes) => payload.extend(bytes),
            Self::Swap(a, b) => in_segments(payload, |segments| {
                let count = segments.len();
                segments.swap(usize::from(a) % count, usize::from(b) % count);
            }),
            Self::Drop(at) => in_segments(payload, |segments| {
                drop(segments.remove(usize::from(at) % segments.len()));
            }),
            Self::Repeat(at) => in_segments(payload, |segments| {
                let at = usize::from(at) % segments.len();
                segments.insert(at, segments[at].clone());
            }),
            Self::Foreign(base, from, to) => {
                let other = &bases[usize::from(base) % bases.len()].payload[PayloadHeader::LEN..];
                let other: Vec<_> = other.chunks(SEALED_SEGMENT_LEN).collect();
                let segment = other[usize::from(from) % other.len()].to_vec();
                in_segments(payload, |segments| {
                    let to = usize::from(to) % segments.len();
                    segments[to] = segment;
                });
            }
            Self::ForeignHeader(base) => {
                let other = &bases[usize::from(base) % bases.len()].payload;
                if let Some(header) = payload.first_chunk_mut::<{ PayloadHeader::LEN }>() {
                    header.copy_from_slice(&other[..PayloadHeader::LEN]);
                }
            }
        }
    }
}

/// Changes the list of segments, if there are any.
fn in_segments(payload: &mut Vec<u8>, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    if payload.len() <= PayloadHeader::LEN {
        return;
    }
    let behind = payload.split_off(PayloadHeader::LEN);
    let mut segments: Vec<_> = behind.chunks(SEALED_SEGMENT_LEN).map(<[u8]>::to_vec).collect();
    change(&mut segments);
    payload.extend(segments.concat());
}

/// Reads `payload`, which was made from `base`, in every way.
fn read(payload: &[u8], base: Option<&Base>, plan: &Plan<'_>) {
    // `None` if no segment may be opened.
    let segments = KNOWN.second.open_segments(&KNOWN.canonical, payload);
    let segments = segments.unwrap_or_default();
    let whole = !segments.is_empty() && segments.iter().all(Option::is_some);
    if let Some(base) = base {
        // If the header is still the base's, each segment that opens is the one that was sealed at its place.
        let same = payload.get(..PayloadHeader::LEN) == base.payload.get(..PayloadHeader::LEN);
        for (segment, sealed) in segments.iter().zip(base.plaintext.chunks(SEGMENT_LEN)) {
            assert!(!same || segment.as_ref().is_none_or(|segment| segment == sealed));
        }
        let sealed = KNOWN.bases.iter().any(|base| base.payload == payload);
        assert_eq!(whole, sealed, "what was sealed is accepted, and nothing else");
    }
    let truth = Truth {
        whole,
        prefix: segments.iter().map_while(Option::as_deref).collect::<Vec<_>>().concat(),
        segments,
    };
    at_once(payload, &truth);
    in_order(payload, &truth, plan);
    anywhere(payload, &truth, plan);
}

/// The result of the second implementation for a payload.
struct Truth {
    segments: Vec<Option<Vec<u8>>>,
    /// The data that may be returned before an error.
    prefix: Vec<u8>,
    whole: bool,
}

fn at_once(payload: &[u8], truth: &Truth) {
    let Known {
        key_id,
        context,
        engine,
        ..
    } = &*KNOWN;
    match engine.decrypt(key_id, context, payload) {
        Ok(plaintext) => assert!(truth.whole && *plaintext == truth.prefix),
        Err(error) => {
            assert!(!truth.whole, "{error}");
            allowed(error.kind());
        }
    }
    let Some(length) = plaintext_len(payload.len() as u64) else {
        assert!(!truth.whole);
        return;
    };
    let header = payload.first_chunk().map(PayloadHeader::from_bytes);
    let Some(Ok(header)) = header else { return };
    let Ok(payload_cipher) = engine.open_payload_cipher(key_id, context, header.sealed_dek()) else {
        return;
    };
    let mut plaintext = vec![0xa5; length as usize];
    match payload_cipher.decrypt_into(payload, &mut plaintext) {
        Ok(()) => assert!(truth.whole && plaintext == truth.prefix),
        Err(_) => {
            assert!(!truth.whole);
            let untouched = plaintext.iter().all(|byte| *byte == 0xa5);
            assert!(untouched || plaintext.iter().all(|byte| *byte == 0));
        }
    }
}

fn in_order(payload: &[u8], truth: &Truth, plan: &Plan<'_>) {
    let Known {
        key_id,
        context,
        engine,
        ..
    } = &*KNOWN;
    let mut reader = match engine.decrypt_reader(key_id, context, Slow::new(payload, plan)) {
        Ok(reader) => reader,
        Err(error) => {
            assert!(truth.segments.is_empty(), "{error}");
            allowed(kind_of(&error));
            return;
        }
    };
    let mut opened = Vec::new();
    let mut buffer = Vec::new();
    // After the end of the plan, reads have the length of a piece.
    let sizes = plan
        .reads
        .iter()
        .take(64)
        .map(|size| *size as usize % (2 * SEGMENT_LEN));
    for size in sizes.chain(std::iter::repeat(20_000)) {
        let read = match size {
            // Reads through the buffer, and once with an empty slice, which has no meaning.
            0 => reader.read(&mut []).and_then(|none| {
                assert_eq!(none, 0);
                let piece = reader.fill_buf()?;
                let some = piece.len().div_ceil(2);
                opened.extend(&piece[..some]);
                reader.consume(some);
                Ok(some)
            }),
            size => {
                buffer.clear();
                buffer.resize(size, 0);
                let read = reader.read(&mut buffer);
                opened.extend(&buffer[..*read.as_ref().unwrap_or(&0)]);
                read
            }
        };
        match read {
            Ok(0) => {
                assert!(truth.whole && opened == truth.prefix);
                assert_eq!(reader.read(&mut [0]).expect("the end stays"), 0);
                return;
            }
            Ok(_) => assert!(truth.prefix.starts_with(&opened), "what was not verified was given out"),
            Err(error) => {
                assert!(!truth.whole, "{error}");
                return fails_ever_after(&mut reader, kind_of(&error));
            }
        }
    }
}

fn fails_ever_after<R: Read>(reader: &mut PayloadReader<R>, kind: ErrorKind) {
    allowed(kind);
    let mut room = [0xa5; 100];
    for _ in 0..2 {
        assert_eq!(kind_of(&reader.read(&mut room).expect_err("it had failed")), kind);
        assert_eq!(kind_of(&reader.fill_buf().expect_err("it had failed")), kind);
        assert_eq!(kind_of(&reader.read(&mut []).expect_err("it had failed")), kind);
    }
    assert_eq!(room, [0xa5; 100]);
}

/// The expected results of a seek reader at its position.
struct Model<'a> {
    truth: &'a Truth,
    /// The length that the length of the payload implies.
    length: u64,
    position: u64,
}

impl Model<'_> {
    fn last_opens(&self) -> bool {
        self.truth.segments.last().is_some_and(Option::is_some)
    }

    /// The data from the position to the end of its segment: nothing after the end, `None` if an error is expected.
    fn rest(&self) -> Option<&[u8]> {
        if self.position >= self.length {
            return self.last_opens().then_some(&[]);
        }
        let (segment, within) = (
            self.position as usize / SEGMENT_LEN,
            self.position as usize % SEGMENT_LEN,
        );
        Some(&self.truth.segments[segment].as_ref()?[within..])
    }
}

fn anywhere(payload: &[u8], truth: &Truth, plan: &Plan<'_>) {
    let Known {
        key_id,
        context,
        engine,
        ..
    } = &*KNOWN;
    let mut reader = match engine.decrypt_seek_reader(key_id, context, Slow::new(payload, plan)) {
        Ok(reader) => reader,
        Err(error) => {
            assert!(!truth.whole, "{error}");
            assert!(truth.segments.is_empty() || plaintext_len(payload.len() as u64).is_none());
            allowed(kind_of(&error));
            return;
        }
    };
    let length = plaintext_len(payload.len() as u64).expect("a reader was made");
    let mut model = Model {
        truth,
        length,
        position: 0,
    };
    for (to, size) in plan.moves.iter().take(64) {
        if !to.apply(&mut reader, &mut model) || !reads(&mut reader, &mut model, *size as usize % (2 * SEGMENT_LEN)) {
            return;
        }
    }
    reader.rewind().expect("no error has been");
    let mut opened = Vec::new();
    match reader.read_to_end(&mut opened) {
        Ok(_) => assert!(truth.whole && opened == truth.prefix),
        Err(error) => {
            assert!(!truth.whole, "{error}");
            assert!(truth.prefix.starts_with(&opened));
            seeks_no_more(&mut reader, kind_of(&error));
        }
    }
}

impl Move {
    /// Moves both. Returns false if the reader failed and had to fail.
    fn apply<R: Read + Seek>(&self, reader: &mut PayloadSeekReader<R>, model: &mut Model<'_>) -> bool {
        let to = match *self {
            Self::Stay => return true,
            Self::To(position) => SeekFrom::Start(u64::from(position) % (4 * SEGMENT_LEN as u64)),
            Self::Boundary(segment, by) => {
                let boundary = u64::from(segment % 5) * SEGMENT_LEN as u64;
                SeekFrom::Start(boundary.saturating_add_signed(by.into()))
            }
            Self::Far(position) => SeekFrom::Start(position),
            Self::By(offset) => SeekFrom::Current(i64::from(offset) % (2 * SEGMENT_LEN as i64)),
            Self::Wild(offset) => SeekFrom::Current(offset),
            Self::FromEnd(offset) => SeekFrom::End(i64::from(offset) % (2 * SEGMENT_LEN as i64)),
            Self::Length => {
                return match reader.plaintext_len() {
                    Ok(length) => {
                        assert!(model.last_opens() && length == model.length);
                        true
                    }
                    Err(error) => {
                        assert!(!model.last_opens(), "{error}");
                        seeks_no_more(reader, kind_of(&error));
                        false
                    }
                };
            }
        };
        let expected = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => model.position.checked_add_signed(offset),
            SeekFrom::End(offset) => model.length.checked_add_signed(offset),
        };
        let needs_end = matches!(to, SeekFrom::End(_));
        match reader.seek(to) {
            Ok(position) => {
                assert!(!needs_end || model.last_opens(), "an end that was not verified");
                assert_eq!(Some(position), expected);
                model.position = position;
            }
            // An invalid seek changes nothing.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => assert_eq!(expected, None),
            Err(error) => {
                assert!(needs_end && !model.last_opens(), "{error}");
                seeks_no_more(reader, kind_of(&error));
                return false;
            }
        }
        true
    }
}

/// Reads `size` bytes or to the end; 0 reads through the buffer. Returns false if the reader failed and had to fail.
fn reads<R: Read + Seek>(reader: &mut PayloadSeekReader<R>, model: &mut Model<'_>, size: usize) -> bool {
    let mut room = vec![0; size];
    let read = match size {
        0 => reader
            .fill_buf()
            .map(<[u8]>::to_vec)
            .inspect(|piece| reader.consume(piece.len())),
        _ => reader.read(&mut room).map(|count| room[..count].to_vec()),
    };
    match read {
        Ok(piece) => {
            let rest = model.rest().expect("what was not verified was given out");
            assert!(rest.starts_with(&piece) && piece.is_empty() == rest.is_empty());
            model.position += piece.len() as u64;
            true
        }
        Err(error) => {
            assert!(model.rest().is_none(), "{error}");
            seeks_no_more(reader, kind_of(&error));
            false
        }
    }
}

fn seeks_no_more<R: Read + Seek>(reader: &mut PayloadSeekReader<R>, kind: ErrorKind) {
    allowed(kind);
    let mut room = [0xa5; 100];
    for _ in 0..2 {
        assert_eq!(kind_of(&reader.read(&mut room).expect_err("it had failed")), kind);
        assert_eq!(kind_of(&reader.fill_buf().expect_err("it had failed")), kind);
        assert_eq!(kind_of(&reader.rewind().expect_err("it had failed")), kind);
        assert_eq!(kind_of(&reader.plaintext_len().expect_err("it had failed")), kind);
    }
    assert_eq!(room, [0xa5; 100]);
}

/// Asserts that this is an error that a payload may give.
fn allowed(kind: ErrorKind) {
    assert!(
        matches!(
            kind,
            ErrorKind::NotAPayload(_)
                | ErrorKind::NotABlob(_)
                | ErrorKind::MalformedKeyId
                | ErrorKind::DamagedBlob
                | ErrorKind::KeyMismatch
                | ErrorKind::UnknownKeyVersion
                | ErrorKind::KeyVersionDestroyed
                | ErrorKind::AuthenticationFailed
        ),
        "{kind:?}"
    );
}

/// The kind of the `Error` inside an I/O error.
fn kind_of(error: &io::Error) -> ErrorKind {
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    let ours = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    ours.expect("one of ours").kind()
}

/// An inner reader that returns few bytes at a time, and is interrupted.
struct Slow<'a> {
    inner: Cursor<&'a [u8]>,
    most: usize,
    interrupted: bool,
    calls: u32,
}

impl<'a> Slow<'a> {
    fn new(payload: &'a [u8], plan: &Plan<'_>) -> Self {
        Self {
            // About two hundred calls at most.
            most: usize::from(plan.most) + 1 + payload.len() / 200,
            inner: Cursor::new(payload),
            interrupted: plan.interrupted,
            calls: 0,
        }
    }

    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.interrupted && self.calls % 2 == 1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.call()?;
        let room = buffer.len().min(self.most);
        self.inner.read(&mut buffer[..room])
    }
}

impl Seek for Slow<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.call()?;
        self.inner.seek(to)
    }
}
