//! Data of any length, encrypted under a DEK that travels in front of it (FORMAT.md part B).
//!
//! | you want to | use |
//! |---|---|
//! | encrypt and decrypt what is in memory | [`Engine::encrypt`], [`Engine::decrypt`] |
//! | the same into a buffer of your own | [`Engine::encrypt_into`], [`Engine::decrypt_into`] |
//! | know how long that buffer is | [`encrypted_len`], [`plaintext_len`] |
//! | encrypt and decrypt streams | [`Engine::encrypt_writer`], [`Engine::decrypt_reader`] |
//! | read parts of a large payload | [`Engine::decrypt_seek_reader`] |
//! | give up an old key, and keep what is under it | [`Engine::rewrap`], [`Engine::rewrap_file`], [`Engine::rewrap_header`] |
//! | encrypt many small records | [`PayloadCipher`] |
//! | look at a payload without any key | [`PayloadHeader`] |
//! | do the I/O yourself, async perhaps | [`SegmentSealer`], [`SegmentOpener`] |
//!
//! A payload is a header of 264 bytes and segments of 64 KiB, each with a tag of 16. Nothing is given out that was not
//! verified, and a payload of which anything was changed, exchanged, repeated, left out, cut off or added is refused.
//!
//! # Without I/O
//!
//! The [`SegmentSealer`] and the [`SegmentOpener`] turn segments into segments, and leave reading and writing to their
//! host. All it has to know is which segment is the last: the one that nothing follows, so both loops read one byte
//! more than a segment has.
//!
#![cfg_attr(feature = "std", doc = "```")]
#![cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
//! use dekseal::{
//!     payload::{PayloadCipher, PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN, TAG_LEN},
//!     zeroize::Zeroizing,
//! };
//! # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
//! # // What an async runtime has under these names, over bytes in memory.
//! # struct Stream(Vec<u8>);
//! # impl Stream {
//! #     async fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
//! #         let count = room.len().min(self.0.len()).min(1000);
//! #         room[..count].copy_from_slice(&self.0[..count]);
//! #         self.0.drain(..count);
//! #         Ok(count)
//! #     }
//! #     async fn read_exact(&mut self, mut room: &mut [u8]) -> std::io::Result<()> {
//! #         while !room.is_empty() {
//! #             let count = self.read(room).await?;
//! #             room = &mut room[count..];
//! #         }
//! #         Ok(())
//! #     }
//! #     async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
//! #         self.0.extend_from_slice(bytes);
//! #         Ok(())
//! #     }
//! # }
//!
//! async fn encrypt(payload_cipher: &PayloadCipher, input: &mut Stream, output: &mut Stream) -> std::io::Result<()> {
//!     let (header, mut sealer) = payload_cipher.sealer()?;
//!     output.write_all(&header.to_bytes()).await?;
//!
//!     let mut plaintext = Zeroizing::new(vec![0; SEGMENT_LEN + 1]);
//!     let mut sealed = vec![0; SEALED_SEGMENT_LEN];
//!     let mut filled = 0;
//!     loop {
//!         let count = input.read(&mut plaintext[filled..]).await?;
//!         filled += count;
//!         if count == 0 {
//!             break;
//!         }
//!         if filled > SEGMENT_LEN {
//!             // Something follows the segment, so it is not the last.
//!             let (segment, _) = plaintext.split_first_chunk().unwrap();
//!             sealer.seal(segment, sealed.first_chunk_mut().unwrap())?;
//!             output.write_all(&sealed).await?;
//!             plaintext[0] = plaintext[SEGMENT_LEN];
//!             filled = 1;
//!         }
//!     }
//!     let sealed = &mut sealed[..filled + TAG_LEN];
//!     sealer.seal_last(&plaintext[..filled], sealed)?;
//!     output.write_all(sealed).await
//! }
//!
//! async fn decrypt(payload_cipher: &PayloadCipher, input: &mut Stream, output: &mut Stream) -> std::io::Result<()> {
//!     let mut header = [0; PayloadHeader::LEN];
//!     input.read_exact(&mut header).await?;
//!     let mut opener = payload_cipher.opener(&PayloadHeader::from_bytes(&header)?)?;
//!
//!     let mut segment = Zeroizing::new(vec![0; SEALED_SEGMENT_LEN + 1]);
//!     let mut filled = 0;
//!     loop {
//!         let count = input.read(&mut segment[filled..]).await?;
//!         filled += count;
//!         if count == 0 {
//!             break;
//!         }
//!         if filled > SEALED_SEGMENT_LEN {
//!             let plaintext = opener.open_in_place(segment.first_chunk_mut().unwrap())?;
//!             output.write_all(plaintext).await?;
//!             segment[0] = segment[SEALED_SEGMENT_LEN];
//!             filled = 1;
//!         }
//!     }
//!     let plaintext = opener.open_last_in_place(&mut segment[..filled])?;
//!     output.write_all(plaintext).await
//! }
//! # fn block_on<T>(future: impl Future<Output = T>) -> T {
//! #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
//! #     match std::pin::pin!(future).poll(&mut context) {
//! #         std::task::Poll::Ready(output) => output,
//! #         std::task::Poll::Pending => unreachable!("nothing here waits"),
//! #     }
//! # }
//! # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
//! # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
//! # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
//! # for length in [0, 1, SEGMENT_LEN, SEGMENT_LEN + 1, 2 * SEGMENT_LEN, 200_000] {
//! #     let plaintext: Vec<u8> = (0..length).map(|at| at as u8).collect();
//! #     let (mut payload, mut opened) = (Stream(Vec::new()), Stream(Vec::new()));
//! #     block_on(encrypt(&payload_cipher, &mut Stream(plaintext.clone()), &mut payload))?;
//! #     assert_eq!(*payload_cipher.decrypt(&payload.0)?, plaintext);
//! #     block_on(decrypt(&payload_cipher, &mut payload, &mut opened))?;
//! #     assert_eq!(opened.0, plaintext);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `ring`: the segments go through ring's AES-256-GCM, which is faster; the bytes are the same. What is secret is wiped
//! as without it, but for what ring holds: it does not wipe the key schedule of a payload, nor what its assembly left
//! in registers and on the stack. And where the default tells a changed segment before it decrypts it, ring decrypts it
//! first, and overwrites it before anyone sees it.
//!
//! `rayon`: what is encrypted or decrypted in one call, and has 1 MiB or more, goes through all cores; the bytes are
//! the same. The threads are those of the pool that the call is made in, and of the global one where it is in none.
//!
//! # Security
//!
//! At 1 TiB under one payload key the advantage of an attacker is about 2⁻⁵⁷, at the longest payload, 2⁴⁸ bytes, about
//! 2⁻⁴¹. The length of the plaintext shows in the length of the payload, and who holds two payloads of one [`PayloadCipher`]
//! sees that they are. A payload cannot be changed in place, appended to or resumed: encrypt it anew.
//!
//! [`Engine::encrypt`]: crate::Engine::encrypt
//! [`Engine::decrypt`]: crate::Engine::decrypt
//! [`Engine::encrypt_into`]: crate::Engine::encrypt_into
//! [`Engine::decrypt_into`]: crate::Engine::decrypt_into
//! [`Engine::encrypt_writer`]: crate::Engine::encrypt_writer
//! [`Engine::decrypt_reader`]: crate::Engine::decrypt_reader
//! [`Engine::decrypt_seek_reader`]: crate::Engine::decrypt_seek_reader
//! [`Engine::rewrap`]: crate::Engine::rewrap
//! [`Engine::rewrap_file`]: crate::Engine::rewrap_file
//! [`Engine::rewrap_header`]: crate::Engine::rewrap_header

mod engine;
mod header;
#[cfg(feature = "std")]
mod io;
mod keys;
mod length;
mod oneshot;
mod payload_cipher;
#[cfg(feature = "std")]
mod reader;
mod rewrap;
#[cfg(feature = "std")]
mod rewrap_file;
#[cfg(feature = "std")]
mod seek;
mod segment_cipher;
mod segments;
#[cfg(feature = "std")]
mod writer;

pub use self::{
    header::PayloadHeader,
    length::{encrypted_len, plaintext_len},
    payload_cipher::PayloadCipher,
    segments::{SegmentOpener, SegmentSealer},
};
#[cfg(feature = "std")]
pub use self::{reader::PayloadReader, seek::PayloadSeekReader, writer::PayloadWriter};

/// How many bytes of plaintext are in every segment but the last.
pub const SEGMENT_LEN: usize = 65536;

/// The length of a segment's tag in bytes.
pub const TAG_LEN: usize = 16;

/// The length of a full segment with its tag.
pub const SEALED_SEGMENT_LEN: usize = SEGMENT_LEN + TAG_LEN;
