//! Known answers, for every way to write and to read a payload.

use dekseal::payload::{PayloadHeader, SEALED_SEGMENT_LEN, encrypted_len, plaintext_len};
use sha2::{Digest, Sha256};

use super::file::{File, plaintext};
use crate::support::{Fixed, encrypt};

#[test]
fn every_known_answer_is_encrypted_to_the_byte() {
    let file = File::read();
    let (engine, key_id, context) = (file.engine(1), file.key_id(), file.context());
    assert_eq!(file.valid.len(), 9);
    for v in &file.valid {
        let plaintext = plaintext(v.plaintext_length);
        let randomness = file.randomness(&v.payload_salt);
        let check = |how: &str, payload: &[u8]| {
            assert_eq!(payload.len(), v.payload_length, "{}, {how}", v.name);
            assert_eq!(
                hex::encode(Sha256::digest(payload)),
                v.payload_sha256,
                "{}, {how}",
                v.name
            );
            if let Some(known) = &v.payload {
                assert_eq!(hex::encode(payload), *known, "{}, {how}", v.name);
            }
        };

        let payload = encrypt(&engine, &key_id, &context, &plaintext, &mut Fixed(&randomness));
        check("encrypt", &payload.unwrap());

        assert_eq!(encrypted_len(v.plaintext_length as u64), Some(v.payload_length as u64));
        let mut payload = vec![0; v.payload_length];
        let salt = hex::decode(&v.payload_salt).unwrap();
        file.payload_cipher()
            .encrypt_into_with_rng(&plaintext, &mut payload, &mut Fixed(&salt))
            .unwrap();
        check("encrypt_into", &payload);

        let payload = file.payload_cipher().encrypt_with_rng(&plaintext, &mut Fixed(&salt));
        check("payload cipher", &payload.unwrap());

        let (header, mut sealer) = file.payload_cipher().sealer_with_rng(&mut Fixed(&salt)).unwrap();
        let mut payload = header.to_bytes().to_vec();
        let mut rest = plaintext.as_slice();
        let mut sealed = [0; SEALED_SEGMENT_LEN];
        while let Some((segment, behind @ [_, ..])) = rest.split_first_chunk() {
            sealer.seal(segment, &mut sealed).unwrap();
            payload.extend_from_slice(&sealed);
            rest = behind;
        }
        let sealed = &mut sealed[..rest.len() + 16];
        sealer.seal_last(rest, sealed).unwrap();
        payload.extend_from_slice(sealed);
        check("sealer", &payload);

        #[cfg(feature = "std")]
        for cut in [1, 7, 8192, 65536, 65537, 1 << 20] {
            use std::io::Write;
            let mut writer = file
                .payload_cipher()
                .encrypt_writer_with_rng(Vec::new(), &mut Fixed(&salt))
                .unwrap();
            for piece in plaintext.chunks(cut) {
                writer.write_all(piece).unwrap();
            }
            check(&format!("writes of {cut}"), &writer.finish().unwrap());
        }
    }
}

#[test]
fn every_known_answer_is_decrypted() {
    let file = File::read();
    let (engine, key_id, context) = (file.engine(2), file.key_id(), file.context());
    for v in &file.valid {
        let plaintext = plaintext(v.plaintext_length);
        let randomness = file.randomness(&v.payload_salt);
        // The test above shows that this is the known payload.
        let payload = encrypt(&file.engine(1), &key_id, &context, &plaintext, &mut Fixed(&randomness)).unwrap();

        assert_eq!(
            *engine.decrypt(&key_id, &context, &payload).unwrap(),
            plaintext,
            "{}",
            v.name
        );
        assert_eq!(plaintext_len(payload.len() as u64), Some(v.plaintext_length as u64));
        let header = PayloadHeader::from_bytes(payload.first_chunk().unwrap()).unwrap();
        assert_eq!(header.to_bytes(), payload[..PayloadHeader::LEN], "{}", v.name);
        assert_eq!(
            (header.sealed_dek().key_id(), header.sealed_dek().key_version()),
            (key_id, 0)
        );
        let payload_cipher = engine
            .open_payload_cipher(&key_id, &context, header.sealed_dek())
            .unwrap();
        assert_eq!(*payload_cipher.decrypt(&payload).unwrap(), plaintext, "{}", v.name);
        let mut opened = vec![0xa5; v.plaintext_length];
        payload_cipher.decrypt_into(&payload, &mut opened).unwrap();
        assert_eq!(opened, plaintext, "{}", v.name);

        #[cfg(feature = "std")]
        for cut in [1, 7, 1 << 20] {
            use super::inner::Slow;
            use std::io::{Cursor, Read};

            let mut opened = Vec::new();
            let mut reader = engine
                .decrypt_reader(&key_id, &context, Slow::new(Cursor::new(&payload), cut))
                .unwrap();
            reader.read_to_end(&mut opened).unwrap();
            assert_eq!(opened, plaintext, "{}, reads of {cut}", v.name);

            let mut opened = Vec::new();
            let mut reader = engine
                .decrypt_seek_reader(&key_id, &context, Slow::new(Cursor::new(&payload), cut))
                .unwrap();
            reader.read_to_end(&mut opened).unwrap();
            assert_eq!(opened, plaintext, "{}, sought by {cut}", v.name);
            assert_eq!(reader.plaintext_len().unwrap(), plaintext.len() as u64, "{}", v.name);
        }
    }
}
