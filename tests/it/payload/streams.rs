//! The streaming writer and reader.

use std::{
    io::{self, BufRead, Cursor, ErrorKind as Kind, Read, Seek, SeekFrom, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

use dekseal::{
    EncryptionContext, Engine, ErrorKind, MemoryKeyring, PayloadRule,
    payload::{PayloadCipher, PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN},
};

use super::{
    file::plaintext,
    inner::{Slow, Step, Told, assert_is_the_cable, kind_of, read_until_error},
};
use crate::support::{KEY_ID, OTHER_KEY_ID, cmk, key_id, one_key};

fn engine() -> Engine<MemoryKeyring> {
    Engine::new(one_key())
}

fn payload_cipher() -> PayloadCipher {
    let created = engine().create_payload_cipher(&key_id(KEY_ID), &EncryptionContext::none());
    created.unwrap()
}

#[test]
fn copies_through_io_copy() {
    let (engine, key_id, none) = (engine(), key_id(KEY_ID), EncryptionContext::none());
    for length in [0, 1, SEGMENT_LEN, 3 * SEGMENT_LEN + 17] {
        let plaintext = plaintext(length);
        let mut writer = engine.encrypt_writer(&key_id, &none, Vec::new()).unwrap();
        assert_eq!(io::copy(&mut plaintext.as_slice(), &mut writer).unwrap(), length as u64);
        let payload = writer.finish().unwrap();

        let mut reader = engine.decrypt_reader(&key_id, &none, payload.as_slice()).unwrap();
        let mut opened = Vec::new();
        assert_eq!(io::copy(&mut reader, &mut opened).unwrap(), length as u64);
        assert!(opened == plaintext, "{length}");
        // After a clean end, every later read returns 0.
        assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0);
        assert_eq!(reader.read(&mut vec![0; SEGMENT_LEN]).unwrap(), 0);
        assert_eq!(reader.fill_buf().unwrap(), b"");
    }
}

#[test]
fn a_dropped_writer_leaves_no_payload() {
    let payload_cipher = payload_cipher();
    // Complete segments are missing too: the segment that becomes the last was not sealed as the last.
    for length in [
        0,
        1,
        SEGMENT_LEN - 1,
        SEGMENT_LEN,
        SEGMENT_LEN + 1,
        2 * SEGMENT_LEN,
        3 * SEGMENT_LEN + 5,
    ] {
        for flushed in [false, true] {
            let mut left = Vec::new();
            let mut writer = payload_cipher.encrypt_writer(&mut left).unwrap();
            writer.write_all(&plaintext(length)).unwrap();
            if flushed {
                writer.flush().unwrap();
            }
            drop(writer);

            assert!(
                payload_cipher.decrypt(&left).is_err(),
                "{length} bytes were whole without an end"
            );
            if let Ok(mut reader) = payload_cipher.decrypt_reader(left.as_slice()) {
                let (opened, _) = read_until_error(&mut reader, 1 << 20);
                assert!(opened.len() <= length);
            }
            if let Ok(mut reader) = payload_cipher.decrypt_seek_reader(Cursor::new(&left)) {
                assert!(reader.plaintext_len().is_err());
            }
        }
    }
}

#[test]
fn flushes_between_writes_keep_the_payload_whole() {
    let payload_cipher = payload_cipher();
    let mut writer = payload_cipher.encrypt_writer(Told::new(Vec::new(), [])).unwrap();
    writer.flush().unwrap();
    let plaintext = plaintext(2 * SEGMENT_LEN);
    writer.write_all(&plaintext).unwrap();
    writer.flush().unwrap();
    let payload = writer.finish().unwrap().inner;
    assert!(*payload_cipher.decrypt(&payload).unwrap() == plaintext);
}

#[test]
fn interruptions_are_no_errors() {
    let payload_cipher = payload_cipher();
    let plaintext = plaintext(2 * SEGMENT_LEN + 100);
    let interrupted = || {
        [Step::Interrupt, Step::Interrupt, Step::Pass]
            .into_iter()
            .cycle()
            .take(300)
    };

    let mut writer = payload_cipher
        .encrypt_writer(Told::new(Vec::new(), interrupted()))
        .unwrap();
    for piece in plaintext.chunks(40_000) {
        assert!(writer.write(piece).unwrap() > 0);
        writer.flush().unwrap();
    }
    drop(writer);
    let mut writer = payload_cipher
        .encrypt_writer(Told::new(Vec::new(), interrupted()))
        .unwrap();
    writer.write_all(&plaintext).unwrap();
    let payload = writer.finish().unwrap().inner;
    assert!(*payload_cipher.decrypt(&payload).unwrap() == plaintext);

    let mut opened = vec![0; plaintext.len()];
    let mut reader = payload_cipher
        .decrypt_reader(Told::new(Slow::new(payload.as_slice(), 1000), interrupted()))
        .unwrap();
    let mut filled = 0;
    while filled < opened.len() {
        // `read_exact` would retry by itself.
        filled += reader.read(&mut opened[filled..]).unwrap();
    }
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert!(opened == plaintext);

    let mut reader = payload_cipher
        .decrypt_seek_reader(Told::new(Slow::new(Cursor::new(&payload), 1000), interrupted()))
        .unwrap();
    assert_eq!(reader.seek(SeekFrom::End(-3)).unwrap(), plaintext.len() as u64 - 3);
    let mut end = [0; 3];
    assert_eq!(reader.read(&mut end).unwrap(), 3);
    assert_eq!(end, plaintext[plaintext.len() - 3..]);
}

#[test]
fn an_error_of_the_inner_reader_comes_through_and_stays() {
    let payload_cipher = payload_cipher();
    let plaintext = plaintext(2 * SEGMENT_LEN + 100);
    let payload = payload_cipher.encrypt(&plaintext).unwrap();
    for passes in 0..6 {
        let steps = std::iter::repeat_n(Step::Pass, passes).chain([Step::Fail]);
        // One step for the header, and two for each segment: the text, then the tag and one more byte.
        let inner = Told::new(payload.as_slice(), steps);
        let (opened, error) = match payload_cipher.decrypt_reader(inner) {
            Ok(mut reader) => read_until_error(&mut reader, 1 << 20),
            Err(error) => (Vec::new(), error),
        };
        assert_is_the_cable(&error);
        assert!(
            opened == plaintext[..passes.saturating_sub(1) / 2 * SEGMENT_LEN],
            "{passes}"
        );
    }
    for passes in 0..6 {
        let steps = std::iter::repeat_n(Step::Pass, passes).chain([Step::Fail]);
        // Seek and read the header, seek the end, seek and read each segment.
        let inner = Told::new(Cursor::new(&payload), steps);
        let error = match payload_cipher.decrypt_seek_reader(inner) {
            Ok(mut reader) => {
                let (opened, error) = read_until_error(&mut reader, 1 << 20);
                assert_eq!(opened, plaintext[..(passes - 3) / 2 * SEGMENT_LEN]);
                assert_eq!(reader.seek(SeekFrom::Start(0)).unwrap_err().kind(), error.kind());
                assert_eq!(reader.plaintext_len().unwrap_err().kind(), error.kind());
                error
            }
            Err(error) => error,
        };
        assert_is_the_cable(&error);
    }
}

/// A caller that catches the panic of an inner reader and continues gets no byte of the partly read buffer.
#[test]
fn a_panic_of_the_inner_reader_brings_nothing_out() {
    let payload_cipher = payload_cipher();
    let plaintext = plaintext(3 * SEGMENT_LEN);
    let payload = payload_cipher.encrypt(&plaintext).unwrap();
    let panics = |f: &mut dyn FnMut()| assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
    let mut some = vec![0; 1000];

    // The header, the text and the tag of the first segment, and then the panic.
    let steps = [Step::Pass, Step::Pass, Step::Pass, Step::Panic];
    let mut reader = payload_cipher
        .decrypt_reader(Told::new(payload.as_slice(), steps))
        .unwrap();
    reader.read_exact(&mut vec![0; SEGMENT_LEN]).unwrap();
    panics(&mut || drop(reader.read(&mut some)));
    // The reader does not know which bytes were lost, and the bytes that come now are later ones.
    let mut opened = Vec::new();
    _ = reader.read_to_end(&mut opened);
    assert!(plaintext[SEGMENT_LEN..].starts_with(&opened));

    // Seek and read the header, seek the end, seek and read the first segment, and seek the second one.
    let steps = [Step::Pass; 6].into_iter().chain([Step::Panic]);
    let mut reader = payload_cipher
        .decrypt_seek_reader(Told::new(Cursor::new(&payload), steps))
        .unwrap();
    reader.read_exact(&mut vec![0; SEGMENT_LEN]).unwrap();
    panics(&mut || drop(reader.read(&mut some)));
    reader.rewind().unwrap();
    reader.read_exact(&mut some).unwrap();
    assert!(plaintext.starts_with(&some));
}

#[test]
fn an_error_of_the_inner_writer_comes_through_and_loses_nothing() {
    let payload_cipher = payload_cipher();
    let plaintext = plaintext(3 * SEGMENT_LEN + 100);
    for piece in [1000, SEGMENT_LEN, 1 << 20] {
        // Every second step fails, within segments too.
        let steps = [Step::Pass, Step::Fail].into_iter().cycle().take(100);
        let mut writer = payload_cipher.encrypt_writer(Told::new(Vec::new(), steps)).unwrap();
        let (mut taken, mut failed) = (0, 0);
        while taken < plaintext.len() {
            let end = plaintext.len().min(taken + piece);
            match writer.write(&plaintext[taken..end]) {
                Ok(count) => taken += count,
                Err(error) => {
                    assert_is_the_cable(&error);
                    failed += 1;
                }
            }
        }
        assert!(failed >= 6, "only {failed} errors");
        // `finish` stops at an error, so all steps are used up first.
        for _ in 0..100 {
            _ = writer.flush();
        }
        let payload = writer.finish().unwrap().inner;
        assert!(
            *payload_cipher.decrypt(&payload).unwrap() == plaintext,
            "writes of {piece}"
        );
    }
}

/// A caller that catches the panic of an inner writer and continues makes the right payload. If the inner writer had
/// written a part of a buffer, there is no valid payload.
#[test]
fn a_panic_of_the_inner_writer_makes_no_other_payload() {
    /// At the call `panics_at` it writes nothing, or half of the bytes, and panics.
    struct Panicking<'a> {
        written: &'a mut Vec<u8>,
        calls: usize,
        panics_at: usize,
        half: bool,
    }

    impl Write for Panicking<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            let count = match self.calls - 1 == self.panics_at {
                true if self.half => bytes.len() / 2,
                true => 0,
                false => bytes.len().min(50_000),
            };
            self.written.extend(&bytes[..count]);
            assert!(self.calls - 1 != self.panics_at, "the inner one has a bug");
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let payload_cipher = payload_cipher();
    let plaintext = plaintext(2 * SEGMENT_LEN + 100);
    // One call for the header, two for each full segment, and one for the last, which `finish` makes.
    for (panics_at, half) in (0..6).flat_map(|at| [(at, false), (at, true)]) {
        let mut written = Vec::new();
        let inner = Panicking {
            written: &mut written,
            calls: 0,
            panics_at,
            half,
        };
        let mut writer = payload_cipher.encrypt_writer(inner).unwrap();
        let (mut taken, mut panics) = (0, 0);
        while taken < plaintext.len() {
            match catch_unwind(AssertUnwindSafe(|| writer.write(&plaintext[taken..]))) {
                Ok(count) => taken += count.unwrap(),
                Err(_) => panics += 1,
            }
        }
        let finished = catch_unwind(AssertUnwindSafe(|| writer.finish().is_ok())).unwrap_or(false);
        assert_eq!((panics, finished), if panics_at < 5 { (1, true) } else { (0, false) });
        match payload_cipher.decrypt(&written) {
            Ok(opened) => assert!(!half && finished && *opened == plaintext),
            Err(_) => assert!(half || !finished, "call {panics_at} lost something"),
        }
    }
}

#[test]
fn an_error_while_finishing_comes_through() {
    let payload_cipher = payload_cipher();
    // For the header, for the last segment, and for the flush.
    for passes in 0..3 {
        let steps = std::iter::repeat_n(Step::Pass, passes).chain([Step::Fail]);
        let mut left = Vec::new();
        let mut writer = payload_cipher.encrypt_writer(Told::new(&mut left, steps)).unwrap();
        assert_eq!(writer.write(b"attack at dawn").is_ok(), passes > 0);
        let finished = writer.finish().map(|_| ());
        if passes > 0 {
            assert_is_the_cable(&finished.unwrap_err());
        }
    }
    // The inner writer is full.
    let mut room = [0; PayloadHeader::LEN + 5];
    let mut writer = payload_cipher.encrypt_writer(&mut room[..]).unwrap();
    writer.write_all(b"attack at dawn").unwrap();
    assert_eq!(writer.finish().unwrap_err().kind(), Kind::WriteZero);
}

#[test]
fn a_truncated_stream_is_never_a_clean_end() {
    let payload_cipher = payload_cipher();
    let plaintext = plaintext(SEGMENT_LEN + 3);
    let payload = payload_cipher.encrypt(&plaintext).unwrap();
    let boundary = PayloadHeader::LEN + SEALED_SEGMENT_LEN;
    let ends = (0..300).chain(boundary - 20..payload.len());
    for end in ends {
        let (opened, error) = match payload_cipher.decrypt_reader(&payload[..end]) {
            Ok(mut reader) => read_until_error(&mut reader, 1 << 20),
            Err(error) => (Vec::new(), error),
        };
        // If the cut leaves no room for a tag, the length is wrong. Otherwise the tag is.
        let expected = match end {
            0..280 => ErrorKind::NotAPayload(PayloadRule::Length),
            _ if end > boundary && end <= boundary + 16 => ErrorKind::NotAPayload(PayloadRule::Length),
            _ => ErrorKind::AuthenticationFailed,
        };
        assert_eq!(kind_of(&error), Some(expected), "{end} bytes");
        assert_eq!(
            opened,
            plaintext[..if end > boundary { SEGMENT_LEN } else { 0 }],
            "{end} bytes"
        );
    }
}

#[test]
fn a_reader_expects_a_key() {
    let keys = [cmk(KEY_ID, 0, &[7; 32]), cmk(OTHER_KEY_ID, 0, &[8; 32])];
    let engine = Engine::new(MemoryKeyring::from_versions(keys).unwrap());
    let (context, none) = (
        EncryptionContext::from_pairs([("a", "b")]).unwrap(),
        EncryptionContext::none(),
    );
    let payload = engine.encrypt(&key_id(KEY_ID), &context, b"attack at dawn").unwrap();
    let kind = |id, context: &EncryptionContext| {
        let streaming = engine
            .decrypt_reader(&key_id(id), context, payload.as_slice())
            .map(|_| ());
        let seeking = engine
            .decrypt_seek_reader(&key_id(id), context, Cursor::new(&payload))
            .map(|_| ());
        let one_shot = engine.decrypt(&key_id(id), context, &payload).map(|_| ());
        let kinds = [kind_of(&streaming.unwrap_err()), kind_of(&seeking.unwrap_err())];
        assert_eq!(kinds, [Some(one_shot.unwrap_err().kind()); 2]);
        kinds[0].unwrap()
    };
    assert_eq!(kind(OTHER_KEY_ID, &context), ErrorKind::KeyMismatch);
    assert_eq!(kind(KEY_ID, &none), ErrorKind::AuthenticationFailed);
}

#[test]
fn lines_can_be_read() {
    let payload_cipher = payload_cipher();
    let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    let payload = payload_cipher.encrypt(text.as_bytes()).unwrap();
    let lines = payload_cipher.decrypt_reader(payload.as_slice()).unwrap().lines();
    assert!(lines.map(Result::unwrap).eq(text.lines()));
    let lines = payload_cipher
        .decrypt_seek_reader(Cursor::new(&payload))
        .unwrap()
        .lines();
    assert!(lines.map(Result::unwrap).eq(text.lines()));
}

#[test]
fn debug_shows_no_secret() {
    let payload_cipher = payload_cipher();
    let payload = payload_cipher.encrypt(b"attack at dawn").unwrap();
    let mut writer = payload_cipher.encrypt_writer(Vec::new()).unwrap();
    writer.write_all(b"attack at dawn").unwrap();
    let mut reader = payload_cipher.decrypt_reader(payload.as_slice()).unwrap();
    reader.fill_buf().unwrap();
    let mut seek_reader = payload_cipher.decrypt_seek_reader(Cursor::new(&payload)).unwrap();
    seek_reader.fill_buf().unwrap();
    let (header, sealer) = payload_cipher.sealer().unwrap();
    let opener = payload_cipher.opener(&header).unwrap();
    assert_eq!(
        format!("{writer:?} {reader:?} {seek_reader:?}"),
        "PayloadWriter(..) PayloadReader(..) PayloadSeekReader(..)"
    );
    assert_eq!(
        format!("{sealer:?} {opener:?}"),
        "SegmentSealer(next 0, ..) SegmentOpener(next 0, ..)"
    );
    assert_eq!(
        format!("{payload_cipher:?}"),
        format!("PayloadCipher(SealedDek({KEY_ID} version 0), ..)")
    );
    assert_eq!(
        format!("{header:?}"),
        format!("PayloadHeader(SealedDek({KEY_ID} version 0))")
    );
}
