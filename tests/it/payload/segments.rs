//! The segment layer alone.

use dekseal::{
    ErrorKind, PayloadRule,
    payload::{PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN, SegmentOpener, SegmentSealer, TAG_LEN},
};

use super::{
    buffers::{payload, payload_cipher, randomness},
    file::plaintext,
};
use crate::support::Fixed;

fn sealer() -> SegmentSealer {
    let (_, sealer) = payload_cipher()
        .sealer_with_rng(&mut Fixed(&randomness()[64..]))
        .unwrap();
    sealer
}

fn opener() -> SegmentOpener {
    let (header, _) = payload_cipher()
        .sealer_with_rng(&mut Fixed(&randomness()[64..]))
        .unwrap();
    payload_cipher().opener(&header).unwrap()
}

/// A sealer and an opener after one full segment.
fn behind_one() -> (SegmentSealer, SegmentOpener) {
    let (mut sealer, mut opener) = (sealer(), opener());
    let mut segment = [0; SEALED_SEGMENT_LEN];
    sealer.seal_in_place(&mut segment).unwrap();
    opener.open_in_place(&mut segment).unwrap();
    (sealer, opener)
}

#[test]
fn in_place_gives_the_same_bytes() {
    let plaintext = plaintext(2 * SEGMENT_LEN + 9);
    let expected = payload(&plaintext);
    let (mut sealer, mut opener) = (sealer(), opener());
    let mut expected = expected[PayloadHeader::LEN..].chunks(SEALED_SEGMENT_LEN);
    for full in plaintext.chunks_exact(SEGMENT_LEN) {
        let mut segment = [0; SEALED_SEGMENT_LEN];
        segment[..SEGMENT_LEN].copy_from_slice(full);
        sealer.seal_in_place(&mut segment).unwrap();
        assert!(segment == *expected.next().unwrap());
        assert!(opener.open_in_place(&mut segment).unwrap() == full);
        assert!(segment[..SEGMENT_LEN] == *full);
    }
    let last = &plaintext[2 * SEGMENT_LEN..];
    let mut segment = [last, &[0; TAG_LEN]].concat();
    sealer.seal_last_in_place(&mut segment).unwrap();
    assert_eq!(segment, expected.next().unwrap());
    assert_eq!(opener.open_last_in_place(&mut segment).unwrap(), last);
}

#[test]
fn the_last_segment_has_a_length_of_its_own() {
    let mut room = vec![0; SEALED_SEGMENT_LEN + 1];
    // The last segment may be empty only if the payload is empty.
    sealer().seal_last(&[], &mut room[..TAG_LEN]).unwrap();
    opener().open_last(&room[..TAG_LEN], &mut []).unwrap();
    let (sealer_behind, opener_behind) = behind_one();
    let refused = sealer_behind.seal_last(&[], &mut room[..TAG_LEN]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::BufferLength);
    let refused = opener_behind.open_last(&room[..TAG_LEN], &mut []);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotAPayload(PayloadRule::Length));
    let (sealer_behind, opener_behind) = behind_one();
    let refused = sealer_behind.seal_last_in_place(&mut room[..TAG_LEN]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::BufferLength);
    let refused = opener_behind.open_last_in_place(&mut room[..TAG_LEN]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotAPayload(PayloadRule::Length));

    // The last segment is at most a segment long, and at least a tag.
    let long = vec![0; SEGMENT_LEN + 1];
    let refused = sealer().seal_last(&long, &mut vec![0; SEALED_SEGMENT_LEN + 1]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::BufferLength);
    let refused = sealer().seal_last_in_place(&mut vec![0; SEALED_SEGMENT_LEN + 1]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::BufferLength);
    for length in [0, 1, TAG_LEN - 1, SEALED_SEGMENT_LEN + 1] {
        let not_one = Err(ErrorKind::NotAPayload(PayloadRule::Length));
        let mut plaintext = vec![0; length.saturating_sub(TAG_LEN)];
        let refused = opener().open_last(&room[..length], &mut plaintext);
        assert_eq!(refused.map_err(|error| error.kind()), not_one, "{length}");
        let refused = opener().open_last_in_place(&mut room[..length]).map(|_| ());
        assert_eq!(refused.map_err(|error| error.kind()), not_one, "{length}");
    }
    // The lengths of the two buffers must match.
    for (plaintext, sealed) in [(5, 20), (5, 22), (5, 5), (5, 0)] {
        let refused = sealer().seal_last(&vec![0; plaintext], &mut vec![0; sealed]);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::BufferLength);
    }
    for (sealed, plaintext) in [(21, 4), (21, 6), (21, 0), (21, 21)] {
        let refused = opener().open_last(&vec![0; sealed], &mut vec![0; plaintext]);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::BufferLength);
    }
}

#[test]
fn the_last_segment_and_other_segments_cannot_be_exchanged() {
    let plaintext = plaintext(SEGMENT_LEN);
    let full: &[u8; SEGMENT_LEN] = plaintext.as_slice().try_into().unwrap();
    let mut opened = [0xa5; SEGMENT_LEN];
    let refused = |result: Result<(), dekseal::Error>, opened: &[u8; SEGMENT_LEN]| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::AuthenticationFailed);
        assert!(opened.iter().all(|byte| *byte == 0xa5) || opened.iter().all(|byte| *byte == 0));
    };

    let mut middle = [0; SEALED_SEGMENT_LEN];
    sealer().seal(full, &mut middle).unwrap();
    refused(opener().open_last(&middle, &mut opened), &opened);
    let mut last = [0; SEALED_SEGMENT_LEN];
    sealer().seal_last(full, &mut last).unwrap();
    refused(opener().open(&last, &mut opened), &opened);

    opener().open(&middle, &mut opened).unwrap();
    assert!(opened == *full);
    opener().open_last(&last, &mut opened).unwrap();
    assert!(opened == *full);
}

#[test]
fn an_opener_that_has_refused_goes_on_refusing() {
    let payload = payload(&plaintext(4 * SEGMENT_LEN));
    let segment = |index: usize| {
        let from = PayloadHeader::LEN + index * SEALED_SEGMENT_LEN;
        payload[from..from + SEALED_SEGMENT_LEN].to_vec()
    };
    for in_place in [false, true] {
        let (mut opener, mut opened) = (opener(), vec![0; SEGMENT_LEN]);
        let mut open = |mut segment: Vec<u8>| {
            let segment = segment.first_chunk_mut().unwrap();
            let opened = if in_place {
                opener.open_in_place(segment).map(|_| ())
            } else {
                opener.open(segment, opened.first_chunk_mut().unwrap())
            };
            opened.map_err(|error| error.kind())
        };
        assert_eq!(open(segment(0)), Ok(()));
        let mut changed = segment(1);
        changed[5] ^= 1;
        // After the refusal, neither the next segment nor the right one is opened: no segment can be skipped.
        for refused in [changed, segment(2), segment(1), segment(0)] {
            assert_eq!(open(refused), Err(ErrorKind::AuthenticationFailed));
        }
        let end = opener.open_last(&segment(3), &mut opened);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    }
}

#[test]
fn a_wrong_header_opens_nothing() {
    let (header, _) = payload_cipher()
        .sealer_with_rng(&mut Fixed(&randomness()[64..]))
        .unwrap();
    // Salt and commitment. The parser of the header checks its other fields.
    for at in (12..44).chain(232..264) {
        let mut bytes = header.to_bytes();
        bytes[at] ^= 1;
        let header = PayloadHeader::from_bytes(&bytes).unwrap();
        let kind = payload_cipher().opener(&header).map(|_| ()).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::AuthenticationFailed, "byte {at}");
    }
}
