//! The JSON of a keyring document (FORMAT.md C2).

use std::{
    borrow::Cow,
    fmt::{self, Display},
    marker::PhantomData,
    ops::Range,
    str::FromStr,
    string::{String, ToString},
    time::SystemTime,
    vec::Vec,
};

use base16ct::HexDisplay;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    super::{key::KeyState, material::SealedMaterial},
    contents::{Contents, KeyContents, RootContents, VERSION, VersionContents},
};
use crate::{
    blob::SealedDek,
    error::{Error, FileFault},
    key_id::KeyId,
    unix_time::UnixTime,
};

/// The value of the field `format`.
const FORMAT: &str = "dekseal keyring";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    #[serde(borrow)]
    format: Cow<'a, str>,
    version: u32,
    id: Text<Hex<16>>,
    generation: u64,
    root: Object<Root>,
    #[serde(borrow)]
    keys: Vec<Object<Key<'a>>>,
    mac: Text<Hex<32>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    key_id: Text<KeyId>,
    key_version: u32,
    check: Text<Hex<32>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key<'a> {
    key_id: Text<KeyId>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion: Option<Text<Date>>,
    min_version: u32,
    versions: Vec<Object<Version>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    version: u32,
    created: Text<Date>,
    material_length: u8,
    sealed: Text<Hex<{ SealedDek::LEN }>>,
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

/// A value that is a string in JSON. It is parsed where it stands, without a copy of the string.
struct Text<T>(T);

/// Bytes as hex, which is written in upper case and read in either case.
struct Hex<const N: usize>([u8; N]);

/// A time in the form `2026-12-31T23:59:59Z`, and in no other form.
#[derive(Clone, Copy)]
struct Date(UnixTime);

/// Writes the text of a document.
pub(super) fn render(contents: &Contents, mac: [u8; 32]) -> Result<Vec<u8>, Error> {
    let document = Document {
        format: FORMAT.into(),
        version: VERSION,
        id: Text(Hex(contents.id)),
        generation: contents.generation,
        root: Object(Root {
            key_id: Text(contents.root.key_id),
            key_version: contents.root.key_version,
            check: Text(Hex(contents.root.check)),
        }),
        keys: contents.keys.iter().map(|key| Object(Key::from(key))).collect(),
        mac: Text(Hex(mac)),
    };
    let mut text = serde_json::to_vec_pretty(&document).map_err(Error::keyring)?;
    text.push(b'\n');
    Ok(text)
}

/// Parses a text of the form of C2. Returns the fields and the MAC.
pub(super) fn parse(text: &[u8]) -> Result<(Contents, [u8; 32]), Error> {
    // The whole text is checked at once. `from_slice` would check each string in it.
    let document = str::from_utf8(text)
        .ok()
        .and_then(|text| serde_json::from_str(text).ok());
    let Some(Object::<Document<'_>>(document)) = document else {
        return Err(fault(text).into());
    };
    if document.format != FORMAT {
        return Err(FileFault::NotAKeyring.into());
    }
    if document.version != VERSION {
        return Err(FileFault::UnknownFormat.into());
    }
    let Text(Hex(mac)) = document.mac;
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

impl Document<'_> {
    fn contents(self) -> Option<Contents> {
        let Object(root) = self.root;
        let root = RootContents {
            key_id: root.key_id.0,
            key_version: root.key_version,
            check: root.check.0.0,
        };
        let keys = self.keys.into_iter().map(|Object(key)| key.contents());
        Some(Contents {
            id: self.id.0.0,
            generation: self.generation,
            root,
            keys: keys.collect::<Option<_>>()?,
        })
    }
}

impl Key<'_> {
    fn contents(self) -> Option<KeyContents> {
        let versions = self.versions.into_iter().map(|Object(version)| VersionContents {
            version: version.version,
            created: version.created.0.0,
            material: SealedMaterial {
                length: version.material_length,
                blob: version.sealed.0.0,
            },
        });
        Some(KeyContents {
            key_id: self.key_id.0,
            state: match (&*self.state, self.deletion) {
                ("enabled", None) => KeyState::Enabled,
                ("disabled", None) => KeyState::Disabled,
                ("pending_deletion", Some(Text(Date(at)))) => KeyState::PendingDeletion { at },
                _ => return None,
            },
            min_version: self.min_version,
            versions: versions.collect(),
        })
    }
}

impl From<&KeyContents> for Key<'_> {
    fn from(key: &KeyContents) -> Self {
        let (state, deletion) = match key.state {
            KeyState::Enabled => ("enabled", None),
            KeyState::Disabled => ("disabled", None),
            KeyState::PendingDeletion { at } => ("pending_deletion", Some(Text(Date(at)))),
        };
        let versions = key.versions.iter().map(|version| {
            Object(Version {
                version: version.version,
                created: Text(Date(version.created)),
                material_length: version.material.length,
                sealed: Text(Hex(version.material.blob)),
            })
        });
        Self {
            key_id: Text(key.key_id),
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

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `collect_str` has a panic for a `Display` that fails.
        serializer.serialize_str(&self.0.to_string())
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse<T>(PhantomData<T>);

        impl<T: FromStr> Visitor<'_> for Parse<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
                text.parse().map_err(|_| E::custom("a malformed string"))
            }
        }

        deserializer.deserialize_str(Parse(PhantomData)).map(Self)
    }
}

impl<const N: usize> Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HexDisplay(&self.0).fmt(f)
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = ();

    fn from_str(digits: &str) -> Result<Self, ()> {
        let mut bytes = [0; N];
        match base16ct::mixed::decode(digits, &mut bytes) {
            Ok(decoded) if decoded.len() == N => Ok(Self(bytes)),
            _ => Err(()),
        }
    }
}

impl Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(SystemTime::from(self.0)).fmt(f)
    }
}

impl FromStr for Date {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let date = seconds(text)
            .and_then(|seconds| UnixTime::from_secs(seconds).ok())
            .map(Self);
        // Each time has exactly one text.
        date.filter(|date| date.to_string() == text).ok_or(())
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
            assert_eq!(date.to_string().parse().map(|Date(read)| read.as_secs()), Ok(time));
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
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }
}
