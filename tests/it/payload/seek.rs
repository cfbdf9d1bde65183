//! The seek reader: the bytes that it reads from the inner reader, and when it knows the length of the plaintext.

use std::{
    cell::RefCell,
    io::{self, Cursor, ErrorKind as Kind, Read, Seek, SeekFrom},
    rc::Rc,
};

use dekseal::{
    ErrorKind, PayloadRule,
    payload::{PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN},
};

use super::{
    buffers::{payload, payload_cipher},
    file::plaintext,
    inner::kind_of,
};

const SEGMENTS: usize = 5;
const LENGTH: usize = (SEGMENTS - 1) * SEGMENT_LEN + 100;

/// Records which segments are read.
struct Watched {
    inner: Cursor<Vec<u8>>,
    read: Rc<RefCell<Vec<usize>>>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(self.inner.position()).unwrap();
        if let Some(behind) = at.checked_sub(PayloadHeader::LEN) {
            self.read.borrow_mut().push(behind / SEALED_SEGMENT_LEN);
        }
        self.inner.read(buffer)
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[test]
fn only_what_is_needed_is_read() {
    let plaintext = plaintext(LENGTH);
    let read = Rc::new(RefCell::new(Vec::new()));
    let inner = Watched {
        inner: Cursor::new(payload(&plaintext)),
        read: Rc::clone(&read),
    };
    let mut reader = payload_cipher().decrypt_seek_reader(inner).unwrap();
    let mut some = [0; 10];
    let expect = |what: &str, segments: &[usize]| assert_eq!(read.take(), segments, "{what}");
    expect("making it", &[]);

    reader.seek(SeekFrom::Start(2 * SEGMENT_LEN as u64 + 7)).unwrap();
    expect("seeking", &[]);
    reader.read_exact(&mut some).unwrap();
    assert_eq!(some, plaintext[2 * SEGMENT_LEN + 7..][..10]);
    expect("reading in the middle", &[2]);
    reader.seek(SeekFrom::Current(-17)).unwrap();
    reader.read_exact(&mut some).unwrap();
    assert_eq!(some, plaintext[2 * SEGMENT_LEN..][..10]);
    expect("the same segment again", &[]);
    reader.seek(SeekFrom::Current(-15)).unwrap();
    reader.read_exact(&mut some).unwrap();
    assert_eq!(some, plaintext[2 * SEGMENT_LEN - 5..][..10]);
    expect("over a boundary", &[1, 2]);

    assert_eq!(reader.plaintext_len().unwrap(), LENGTH as u64);
    expect("the length", &[4]);
    assert_eq!(reader.seek(SeekFrom::End(-5)).unwrap(), LENGTH as u64 - 5);
    assert_eq!(reader.read(&mut some).unwrap(), 5);
    assert_eq!(reader.read(&mut some).unwrap(), 0);
    expect("the end", &[]);
    reader.rewind().unwrap();
    reader.read_exact(&mut some).unwrap();
    assert_eq!(reader.plaintext_len().unwrap(), LENGTH as u64);
    expect("the beginning, and the length that is known", &[0]);
    assert_eq!(reader.seek(SeekFrom::Start(1 << 50)).unwrap(), 1 << 50);
    assert_eq!(reader.read(&mut some).unwrap(), 0);
    assert_eq!(reader.seek(SeekFrom::End(3)).unwrap(), LENGTH as u64 + 3);
    assert_eq!(reader.read(&mut some).unwrap(), 0);
    expect("behind the end", &[]);
}

#[test]
fn the_end_is_verified_before_it_is_reported() {
    let mut payload = payload(&plaintext(LENGTH));
    let last = payload.len() - 1;
    payload[last] ^= 1;
    let open = || payload_cipher().decrypt_seek_reader(Cursor::new(&payload)).unwrap();
    let refused = |error: io::Error| assert_eq!(kind_of(&error), Some(ErrorKind::AuthenticationFailed));

    refused(open().plaintext_len().unwrap_err());
    refused(open().seek(SeekFrom::End(0)).unwrap_err());
    refused(open().seek(SeekFrom::End(-(LENGTH as i64))).unwrap_err());
    // Behind the claimed end, and exactly at it.
    for position in [LENGTH as u64, LENGTH as u64 + 1, u64::MAX] {
        let mut reader = open();
        reader.seek(SeekFrom::Start(position)).unwrap();
        refused(reader.read(&mut [0; 10]).unwrap_err());
        // Every later call fails too.
        refused(reader.seek(SeekFrom::Start(0)).unwrap_err());
        refused(reader.read(&mut [0; 10]).unwrap_err());
        refused(reader.plaintext_len().unwrap_err());
    }
    // The segments before it are valid.
    let mut reader = open();
    let mut some = vec![0; LENGTH];
    reader.read_exact(&mut some[..LENGTH - 100]).unwrap();
    refused(reader.read(&mut some).unwrap_err());
}

/// By its length, a payload that was cut at a segment boundary looks complete.
#[test]
fn a_length_that_is_claimed_is_not_reported() {
    let payload = payload(&plaintext(LENGTH));
    for segments in 1..SEGMENTS {
        let cut = &payload[..PayloadHeader::LEN + segments * SEALED_SEGMENT_LEN];
        let open = || payload_cipher().decrypt_seek_reader(Cursor::new(cut)).unwrap();
        assert!(open().plaintext_len().is_err());
        assert!(open().seek(SeekFrom::End(0)).is_err());
        let mut opened = Vec::new();
        let error = open().read_to_end(&mut opened).unwrap_err();
        assert_eq!(kind_of(&error), Some(ErrorKind::AuthenticationFailed));
        assert_eq!(opened.len(), (segments - 1) * SEGMENT_LEN);
    }
    for length in (0..280).chain([PayloadHeader::LEN + SEALED_SEGMENT_LEN + 16]) {
        let error = payload_cipher()
            .decrypt_seek_reader(Cursor::new(&payload[..length]))
            .unwrap_err();
        assert_eq!(kind_of(&error), Some(ErrorKind::NotAPayload(PayloadRule::Length)));
    }
}

#[test]
fn a_seek_to_nowhere_changes_nothing() {
    let plaintext = plaintext(LENGTH);
    let mut reader = payload_cipher()
        .decrypt_seek_reader(Cursor::new(payload(&plaintext)))
        .unwrap();
    reader.seek(SeekFrom::Start(5)).unwrap();
    for nowhere in [
        SeekFrom::Current(-6),
        SeekFrom::End(-(LENGTH as i64) - 1),
        SeekFrom::Current(i64::MIN),
    ] {
        assert_eq!(reader.seek(nowhere).unwrap_err().kind(), Kind::InvalidInput);
    }
    assert_eq!(reader.stream_position().unwrap(), 5);
    let mut some = [0; 3];
    reader.read_exact(&mut some).unwrap();
    assert_eq!(some, plaintext[5..8]);
    reader.seek(SeekFrom::Start(u64::MAX)).unwrap();
    assert_eq!(
        reader.seek(SeekFrom::Current(1)).unwrap_err().kind(),
        Kind::InvalidInput
    );
}

/// A file may change while it is read.
#[test]
fn a_payload_that_shrinks_is_an_error() {
    struct Shrinking(Cursor<Vec<u8>>, Rc<RefCell<bool>>);
    impl Read for Shrinking {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if *self.1.borrow() {
                self.0.get_mut().truncate(1000);
            }
            self.0.read(buffer)
        }
    }
    impl Seek for Shrinking {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let shrunk = Rc::new(RefCell::new(false));
    let inner = Shrinking(Cursor::new(payload(&plaintext(LENGTH))), Rc::clone(&shrunk));
    let mut reader = payload_cipher().decrypt_seek_reader(inner).unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    *shrunk.borrow_mut() = true;
    let error = reader.plaintext_len().unwrap_err();
    assert_eq!(kind_of(&error), Some(ErrorKind::NotAPayload(PayloadRule::Length)));
    // Not even the bytes in the buffer are returned.
    assert!(reader.read(&mut [0; 10]).is_err());
}

/// The reader starts at 0, whatever the position of the inner reader is.
#[test]
fn the_position_of_the_inner_reader_does_not_matter() {
    let mut inner = Cursor::new(payload(b"attack at dawn"));
    inner.set_position(100);
    let mut opened = String::new();
    payload_cipher()
        .decrypt_seek_reader(inner)
        .unwrap()
        .read_to_string(&mut opened)
        .unwrap();
    assert_eq!(opened, "attack at dawn");
}
