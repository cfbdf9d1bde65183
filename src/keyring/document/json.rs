//! The JSON of a keyring document (FORMAT.md C2).

use std::{
    borrow::Cow,
    fmt,
    marker::PhantomData,
    ops::Range,
    string::{String, ToString},
    time::SystemTime,
    vec::Vec,
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    super::{key::KeyState, material::SealedMaterial},
    contents::{Contents, KeyContents, RootContents, VERSION, VersionContents},
};
use crate::{
    blob::SealedDek,
    error::{Error, FileFault},
    unix_time::UnixTime,
};

/// The value of the field `format`.
const FORMAT: &str = "dekseal keyring";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: Cow<'static, str>,
    version: u32,
    id: Hex<16>,
    generation: u64,
    root: Object<Root>,
    keys: Vec<Object<Key>>,
    mac: Hex<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    key_id: String,
    key_version: u32,
    check: Hex<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    key_id: String,
    state: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion: Option<Date>,
    min_version: u32,
    versions: Vec<Object<Version>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    version: u32,
    created: Date,
    material_length: u8,
    sealed: Hex<{ SealedDek::LEN }>,
}

/// The fields that every version of the format has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

/// A struct that is read only from a JSON object. The code that `derive` makes would also accept an array of the
/// values.
#[derive(Serialize)]
#[serde(transparent)]
struct Object<T>(T);

/// Bytes as hex, which is written in upper case and read in either case.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Hex<const N: usize>([u8; N]);

/// A time in the form `2026-12-31T23:59:59Z`, and in no other form.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Date(UnixTime);

/// Writes the text of a document.
pub(super) fn render(contents: &Contents, mac: [u8; 32]) -> Result<Vec<u8>, Error> {
    let document = Document {
        format: FORMAT.into(),
        version: VERSION,
        id: Hex(contents.id),
        generation: contents.generation,
        root: Object(Root {
            key_id: contents.root.key_id.to_string(),
            key_version: contents.root.key_version,
            check: Hex(contents.root.check),
        }),
        keys: contents.keys.iter().map(|key| Object(Key::from(key))).collect(),
        mac: Hex(mac),
    };
    let mut text = serde_json::to_vec_pretty(&document).map_err(Error::keyring)?;
    text.push(b'\n');
    Ok(text)
}

/// Parses a text of the form of C2. Returns the fields and the MAC.
pub(super) fn parse(text: &[u8]) -> Result<(Contents, [u8; 32]), Error> {
    let Ok(Object(document)) = serde_json::from_slice::<Object<Document>>(text) else {
        return Err(fault(text).into());
    };
    if document.format != FORMAT {
        return Err(FileFault::NotAKeyring.into());
    }
    if document.version != VERSION {
        return Err(FileFault::UnknownFormat.into());
    }
    let mac = document.mac.0;
    let contents = document.contents().filter(Contents::follow_rules);
    Ok((contents.ok_or(FileFault::NotAKeyring)?, mac))
}

/// The reason why a text is not a document, in the order of C5.
fn fault(text: &[u8]) -> FileFault {
    match serde_json::from_slice::<IgnoredAny>(text) {
        Err(error) if error.is_eof() => return FileFault::Truncated,
        _ => {}
    }
    // The other fields may differ in another version of the format.
    match serde_json::from_slice::<Object<Head>>(text) {
        Ok(Object(head)) if head.format == FORMAT && head.version != u64::from(VERSION) => FileFault::UnknownFormat,
        _ => FileFault::NotAKeyring,
    }
}

impl Document {
    fn contents(self) -> Option<Contents> {
        let Object(root) = self.root;
        let root = RootContents {
            key_id: root.key_id.parse().ok()?,
            key_version: root.key_version,
            check: root.check.0,
        };
        let keys = self.keys.into_iter().map(|Object(key)| key.contents());
        Some(Contents {
            id: self.id.0,
            generation: self.generation,
            root,
            keys: keys.collect::<Option<_>>()?,
        })
    }
}

impl Key {
    fn contents(self) -> Option<KeyContents> {
        let versions = self.versions.into_iter().map(|Object(version)| VersionContents {
            version: version.version,
            created: version.created.0,
            material: SealedMaterial {
                length: version.material_length,
                blob: version.sealed.0,
            },
        });
        Some(KeyContents {
            key_id: self.key_id.parse().ok()?,
            state: match (&*self.state, self.deletion) {
                ("enabled", None) => KeyState::Enabled,
                ("disabled", None) => KeyState::Disabled,
                ("pending_deletion", Some(Date(at))) => KeyState::PendingDeletion { at },
                _ => return None,
            },
            min_version: self.min_version,
            versions: versions.collect(),
        })
    }
}

impl From<&KeyContents> for Key {
    fn from(key: &KeyContents) -> Self {
        let (state, deletion) = match key.state {
            KeyState::Enabled => ("enabled", None),
            KeyState::Disabled => ("disabled", None),
            KeyState::PendingDeletion { at } => ("pending_deletion", Some(Date(at))),
        };
        let versions = key.versions.iter().map(|version| {
            Object(Version {
                version: version.version,
                created: Date(version.created),
                material_length: version.material.length,
                sealed: Hex(version.material.blob),
            })
        });
        Self {
            key_id: key.key_id.to_string(),
            state: state.into(),
            deletion,
            min_version: key.min_version,
            versions: versions.collect(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

impl<const N: usize> From<Hex<N>> for String {
    fn from(Hex(bytes): Hex<N>) -> Self {
        base16ct::upper::encode_string(&bytes)
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = &'static str;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; N];
        match base16ct::mixed::decode(digits, &mut bytes) {
            Ok(decoded) if decoded.len() == N => Ok(Self(bytes)),
            _ => Err("another number of hex digits"),
        }
    }
}

impl From<Date> for String {
    fn from(Date(time): Date) -> Self {
        humantime::format_rfc3339_seconds(SystemTime::from(time)).to_string()
    }
}

impl TryFrom<String> for Date {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let date = seconds(&text)
            .and_then(|seconds| UnixTime::from_secs(seconds).ok())
            .map(Self);
        // Each time has exactly one text.
        date.filter(|date| String::from(*date) == text)
            .ok_or("not a date between the years 2020 and 9999")
    }
}

/// The seconds since 1970 of a text like `2026-01-31T23:59:59Z`. Other texts may have a result too.
///
/// The parser of humantime refuses dates after January 2038 on 32-bit machines.
#[expect(clippy::arithmetic_side_effects, reason = "no number has more than four digits")]
fn seconds(text: &str) -> Option<u64> {
    let number = |digits: Range<usize>| text.get(digits)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Counted from March, because the leap day is then the last day of a year.
    let (year, month) = match month.checked_sub(3) {
        Some(month) => (year, month),
        None => (year.checked_sub(1)?, month + 9),
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    // The first of January 1970, in days since the last of February of the year 0.
    let days = days.checked_sub(719_469)?;
    Some(86_400 * days + 3600 * hour + 60 * minute + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_of_the_years_2020_to_9999_is_read() {
        const DAY: u64 = 86_400;
        let (first, last) = (18_262, 2_932_896);
        for day in (first..=last).step_by(if cfg!(debug_assertions) { 13 } else { 1 }) {
            let time = day * DAY + day % DAY;
            let date = Date(UnixTime::from_secs(time).unwrap());
            assert_eq!(
                Date::try_from(String::from(date)).map(|date| date.0.as_secs()),
                Ok(time)
            );
        }
    }

    #[test]
    fn other_texts_are_no_dates() {
        for text in [
            "",
            "2019-12-31T23:59:59Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00.0Z",
            "2026-01-01T00:00:00+00:00",
            "2026-1-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2026-01-01T00:00:0\u{e9}Z",
        ] {
            assert!(Date::try_from(String::from(text)).is_err(), "{text}");
        }
    }
}
