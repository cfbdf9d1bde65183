//! The fields of a request, and the rule for each.

use alloc::{string::String, vec::Vec};
use core::fmt;

use super::{
    Operation,
    json::{CONTEXT_FIELD, Pairs, Value},
    response::{self, Refusal, Response},
};
use crate::{
    blob::SealedDek,
    context::EncryptionContext,
    dek::Dek,
    error::ErrorKind,
    key_id::KeyId,
    secret::{Secret, ct_eq},
    sha256::sha256,
};

/// The fields that each operation needs besides key ID and context.
pub(super) enum Payload {
    CreateDatakey,
    CreateDatakeyWithoutPlaintext,
    EncryptDatakey(Dek),
    DecryptDatakey(SealedDek),
}

/// The fields of a request. The operation knows all of them, and no mandatory field is missing.
pub(super) struct Fields<'a>(&'a Pairs<'a, Value<'a>>);

impl<'a> Fields<'a> {
    pub(super) fn of(operation: Operation, object: &'a Pairs<'a, Value<'a>>) -> Result<Self, Response> {
        let mandatory = || core::iter::once("key_id").chain(operation.mandatory().iter().copied());
        let known = |name: &str| {
            mandatory()
                .chain([CONTEXT_FIELD, "sequence"])
                .any(|known| known == name)
        };
        for (name, _) in object {
            if !name.as_str().is_some_and(known) {
                let name = String::from_utf8_lossy(name.as_bytes());
                return Err(response::UNKNOWN_FIELD.naming(&name));
            }
        }
        let fields = Self(object);
        for name in mandatory() {
            if fields.get(name).is_none() {
                return Err(response::MISSING_FIELD.naming(name));
            }
        }
        Ok(fields)
    }

    fn get(&self, name: &str) -> Option<&'a Value<'a>> {
        let (_, value) = self.0.iter().find(|(field, _)| field.as_bytes() == name.as_bytes())?;
        Some(value)
    }

    /// The bytes of a field that is a string.
    fn text(&self, name: &str) -> Option<&'a [u8]> {
        match self.get(name)? {
            Value::Text(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// Whether the field of a length is `expected`, as a string or as a number.
    fn length_is(&self, name: &str, expected: &str) -> bool {
        match self.get(name) {
            Some(Value::Text(text)) => text.as_bytes() == expected.as_bytes(),
            Some(Value::Number(number)) => *number == expected,
            _ => false,
        }
    }

    pub(super) fn key_id(&self) -> Option<KeyId> {
        KeyId::from_bytes(self.text("key_id")?.try_into().ok()?).ok()
    }

    /// Returns `None` if the field is malformed.
    pub(super) fn sequence(&self) -> Option<Option<&'a str>> {
        if self.get("sequence").is_none() {
            return Some(None);
        }
        let sequence = core::str::from_utf8(self.text("sequence")?).ok()?;
        let well_formed = sequence.len() == 36
            && sequence
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        well_formed.then_some(Some(sequence))
    }

    /// The encryption context (FORMAT.md A3). A missing context and an empty one are the same.
    pub(super) fn context(&self) -> Result<EncryptionContext, Response> {
        let refused = |why: &dyn fmt::Display| response::CONTEXT.response_with(format_args!(": {why}"));
        let pairs = match self.get(CONTEXT_FIELD) {
            None => return Ok(EncryptionContext::none()),
            Some(Value::Context(pairs)) => pairs,
            Some(_) => return Err(refused(&"not an object")),
        };
        let mut texts = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let Some(value) = value else {
                return Err(refused(&"a value is not a string"));
            };
            let (Some(key), Some(value)) = (key.as_str(), value.as_str()) else {
                return Err(refused(&"a lone surrogate"));
            };
            texts.push((key, value));
        }
        EncryptionContext::of(texts).map_err(|error| refused(&error.kind()))
    }

    pub(super) fn payload(&self, operation: Operation, key_id: &KeyId) -> Result<Payload, Response> {
        let length = |name, expected, refusal: Refusal| match self.length_is(name, expected) {
            true => Ok(()),
            false => Err(refusal.response()),
        };
        match operation {
            Operation::CreateDatakey => {
                length("datakey_length", "512", response::CREATE_LENGTH)?;
                Ok(Payload::CreateDatakey)
            }
            Operation::CreateDatakeyWithoutPlaintext => {
                length("datakey_length", "512", response::CREATE_WITHOUT_PLAINTEXT_LENGTH)?;
                Ok(Payload::CreateDatakeyWithoutPlaintext)
            }
            Operation::EncryptDatakey => {
                let plain = self.plain_text().ok_or_else(|| response::PLAIN_TEXT.response())?;
                length("datakey_plain_length", "64", response::PLAIN_LENGTH)?;
                let dek = checked_dek(&plain).ok_or_else(|| response::DIGEST.response())?;
                Ok(Payload::EncryptDatakey(dek))
            }
            Operation::DecryptDatakey => {
                let sealed = self.cipher_text(key_id)?;
                length("datakey_cipher_length", "64", response::CIPHER_LENGTH)?;
                Ok(Payload::DecryptDatakey(sealed))
            }
        }
    }

    /// Decodes a DEK and its digest from 192 hex digits.
    fn plain_text(&self) -> Option<Secret<{ Dek::LEN + 32 }>> {
        let mut bytes = Secret::zeroed();
        decode(self.text("plain_text")?, &mut *bytes)?;
        Some(bytes)
    }

    /// Parses a blob from 376 hex digits by steps 1 to 4 of FORMAT.md A5.
    fn cipher_text(&self, key_id: &KeyId) -> Result<SealedDek, Response> {
        let refused = |why: &dyn fmt::Display| response::CIPHER_TEXT.response_with(format_args!(": {why}"));
        let mut bytes = [0; SealedDek::LEN];
        self.text("cipher_text")
            .and_then(|text| decode_public(text, &mut bytes))
            .ok_or_else(|| refused(&"not 376 hex digits"))?;
        SealedDek::check(&bytes).map_err(|error| refused(&error.kind()))?;
        let sealed = SealedDek::from_checked(bytes);
        if sealed.key_id() != *key_id {
            return Err(refused(&ErrorKind::KeyMismatch));
        }
        Ok(sealed)
    }
}

/// Returns the DEK if the digest after it matches.
fn checked_dek(plain: &[u8; Dek::LEN + 32]) -> Option<Dek> {
    let (dek, digest) = plain.split_first_chunk::<{ Dek::LEN }>()?;
    ct_eq(&sha256(dek), digest.try_into().ok()?).then(|| Dek::from_bytes(dek))
}

/// Fills `bytes` from hex digits in either case. Returns `None` unless there are exactly as many digits as needed.
///
/// For bytes that are not secret. The loop has no early exit, so it compiles to wide instructions, and is faster than
/// [`decode`].
fn decode_public<const N: usize>(digits: &[u8], bytes: &mut [u8; N]) -> Option<()> {
    let (pairs, rest) = digits.as_chunks();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let pairs = pairs.iter().zip(bytes);
    let well_formed = pairs.fold(true, |so_far, ([high, low], byte)| {
        let ((high, high_fits), (low, low_fits)) = (nibble(*high), nibble(*low));
        *byte = high << 4 | low;
        so_far & high_fits & low_fits
    });
    well_formed.then_some(())
}

/// The value of a hex digit, and whether it is one.
#[inline]
fn nibble(digit: u8) -> (u8, bool) {
    let decimal = digit.wrapping_sub(b'0');
    // The bit of 0x20 turns an upper-case letter into a lower-case one.
    let letter = (digit | 0x20).wrapping_sub(b'a');
    let value = if decimal < 10 { decimal } else { letter.wrapping_add(10) };
    (value & 0x0f, decimal < 10 || letter < 6)
}

/// Fills `bytes` from hex digits in either case, in constant time. Returns `None` unless there are exactly as many
/// digits as needed.
fn decode(digits: &[u8], bytes: &mut [u8]) -> Option<()> {
    let decoded = base16ct::mixed::decode(digits, bytes).ok()?.len();
    (decoded == bytes.len()).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_decoders_agree_on_every_pair_of_bytes() {
        for pair in (0..=u16::MAX).map(u16::to_be_bytes) {
            let (mut public, mut secret) = ([0; 1], [0; 1]);
            let decoded = (decode_public(&pair, &mut public), decode(&pair, &mut secret));
            assert_eq!(decoded.0, decoded.1, "{pair:?}");
            if decoded.0.is_some() {
                assert_eq!(public, secret, "{pair:?}");
            }
        }
    }

    #[test]
    fn digits_are_as_many_as_needed() {
        for (digits, fit) in [(&b"0aF"[..], false), (b"0aF1", true), (b"0aF1c", false), (b"", false)] {
            assert_eq!(decode_public(digits, &mut [0; 2]).is_some(), fit, "{digits:?}");
        }
    }
}
