//! Text forms and serde support of sealed DEKs and key IDs: bytes in binary formats, text in human-readable formats.

use core::{fmt, str::FromStr};

use crate::{
    blob::SealedDek,
    error::{BlobRule, Error, ErrorKind},
};

/// The text form: 376 hex digits in upper case, as in `cipher_text` of the wire API.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, Dek, EncryptionContext, SealedDek};
/// # let cmk = CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 3, &[7; 32])?;
/// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
/// let sealed = cmk.seal(&EncryptionContext::none(), &dek);
/// let text = sealed.to_string();
/// assert!(text.starts_with("02009800"));
/// assert_eq!(text.parse::<SealedDek>()?, sealed);
/// # Ok::<(), dekseal::Error>(())
/// ```
impl fmt::Display for SealedDek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// Parses 376 hex digits, in either case.
///
/// # Errors
///
/// [`ErrorKind::NotABlob`] with [`BlobRule::Hex`] if the text is anything else; the errors of
/// [`SealedDek::from_bytes`]. No others.
impl FromStr for SealedDek {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digit = |byte: &u8| {
            char::from(*byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let mut bytes = [0; Self::LEN];
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(ErrorKind::NotABlob(BlobRule::Hex).into());
        };
        if pairs.len() != bytes.len() {
            return Err(ErrorKind::NotABlob(BlobRule::Hex).into());
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digits = digit(high).zip(digit(low));
            let (high, low) = digits.ok_or(ErrorKind::NotABlob(BlobRule::Hex))?;
            *byte = high << 4 | low;
        }
        Self::from_bytes(&bytes)
    }
}

#[cfg(feature = "serde")]
mod with_serde {
    use core::{fmt, marker::PhantomData, str::FromStr};

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::{blob::SealedDek, error::Error, key_id::KeyId};

    /// A type that serde reads and writes as bytes in binary formats, and as text in human-readable formats.
    trait Form: fmt::Display + FromStr<Err = Error> {
        const EXPECTED: &str;

        fn bytes(&self) -> &[u8];
        fn of(bytes: &[u8]) -> Result<Self, Error>;
    }

    impl Form for SealedDek {
        const EXPECTED: &str = "a sealed DEK";

        fn bytes(&self) -> &[u8] {
            self.as_bytes()
        }

        fn of(bytes: &[u8]) -> Result<Self, Error> {
            Self::from_bytes(bytes)
        }
    }

    impl Form for KeyId {
        const EXPECTED: &str = "a key ID";

        fn bytes(&self) -> &[u8] {
            self.as_bytes()
        }

        fn of(bytes: &[u8]) -> Result<Self, Error> {
            let bytes = bytes.try_into();
            Self::from_bytes(bytes.map_err(|_| crate::error::ErrorKind::MalformedKeyId)?)
        }
    }

    struct FormVisitor<T>(PhantomData<T>);

    impl<T: Form> de::Visitor<'_> for FormVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::EXPECTED)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
            T::of(bytes).map_err(E::custom)
        }
    }

    macro_rules! with_serde {
        ($type:ty) => {
            impl Serialize for $type {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    if serializer.is_human_readable() {
                        serializer.collect_str(self)
                    } else {
                        serializer.serialize_bytes(self.bytes())
                    }
                }
            }

            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let visitor = FormVisitor(PhantomData);
                    if deserializer.is_human_readable() {
                        deserializer.deserialize_str(visitor)
                    } else {
                        deserializer.deserialize_bytes(visitor)
                    }
                }
            }
        };
    }

    with_serde!(SealedDek);
    with_serde!(KeyId);
}
