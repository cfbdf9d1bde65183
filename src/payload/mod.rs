//! Data of any length, encrypted under a DEK. Each payload begins with its sealed DEK (FORMAT.md part B).
//!
//! | task | use |
//! |---|---|
//! | encrypt and decrypt data in memory | [`Engine::encrypt`], [`Engine::decrypt`] |
//! | encrypt and decrypt streams | [`Engine::encrypt_writer`], [`Engine::decrypt_reader`] |
//! | read parts of a large payload | [`Engine::decrypt_seek_reader`] |
//! | rewrap payloads: for the current version, or for another key | [`Engine::rewrap`], [`Engine::rewrap_file`], [`Engine::rewrap_header`] |
//! | encrypt many small records under one DEK | [`PayloadCipher`] |
//! | encrypt and decrypt into a buffer, or with your own random generator | [`PayloadCipher`] |
//! | compute the length of that buffer | [`encrypted_len`], [`plaintext_len`] |
//! | see which key a payload is under, without any key | [`PayloadHeader`] |
//! | do the I/O yourself, for example async | [`SegmentSealer`], [`SegmentOpener`] |
//!
//! A payload is a header of 264 bytes, followed by segments of 64 KiB, each with a tag of 16 bytes. No plaintext is
//! returned before it is verified. A payload is refused if a byte was changed, removed or added, or if segments were
//! swapped or repeated.
//!
//! # Without I/O
//!
//! [`SegmentSealer`] and [`SegmentOpener`] convert segments; the caller reads and writes. The caller must know which
//! segment is the last one. So both loops read one byte more than a segment has: if there is no such byte, the segment
//! is the last.
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
//! `ring`: AES-256-GCM from ring, which is faster. The bytes are the same. ring does not wipe the key schedule of a
//! payload, nor the registers and the stack that its assembly used; everything else is wiped as without the feature.
//! The default checks the tag of a segment before it decrypts; ring decrypts first, and overwrites the plaintext if the
//! tag is wrong.
//!
//! `rayon`: a call that encrypts or decrypts 1 MiB or more uses all cores. The bytes are the same. The call runs in the
//! current thread pool, or in the global one.
//!
//! # Security
//!
//! At 1 TiB under one payload key the advantage of an attacker is about 2⁻⁵⁷; at the maximum, 2⁴⁸ bytes, it is about
//! 2⁻⁴¹. The length of a payload reveals the length of its plaintext, and payloads of one [`PayloadCipher`] have the
//! same sealed DEK. A payload cannot be changed in place, extended or resumed: encrypt the data again.
//!
//! [`Engine::encrypt`]: crate::Engine::encrypt
//! [`Engine::decrypt`]: crate::Engine::decrypt
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

/// The length of the plaintext in every segment but the last.
pub const SEGMENT_LEN: usize = 65536;

/// The length of a segment's tag in bytes.
pub const TAG_LEN: usize = 16;

/// The length of a full segment with its tag.
pub const SEALED_SEGMENT_LEN: usize = SEGMENT_LEN + TAG_LEN;
