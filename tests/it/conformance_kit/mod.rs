//! The conformance kit (`conformance/vectors`), run against this crate.

mod blobs;
#[cfg(feature = "file-keyring")]
mod keyrings;
mod payloads;

use std::collections::BTreeSet;

use dekseal::{CmkVersion, EncryptionContext, Error, ErrorKind, MemoryKeyring};
use serde_json::{Map, Value};

/// The fields of a JSON object. Each one is taken exactly once.
pub(crate) struct Fields {
    left: Map<String, Value>,
    at: String,
}

impl Fields {
    fn new(value: &Value, at: String) -> Self {
        let left = value
            .as_object()
            .unwrap_or_else(|| panic!("{at}: not an object"))
            .clone();
        Self { left, at }
    }

    /// A field that may be absent.
    fn maybe(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name)
    }

    fn take(&mut self, name: &str) -> Value {
        let value = self.maybe(name);
        value.unwrap_or_else(|| panic!("{}: {name} is missing, or taken twice", self.at))
    }

    fn text(&mut self, name: &str) -> String {
        let value = self.take(name);
        value.as_str().unwrap_or_else(|| panic!("{}: {name}", self.at)).into()
    }

    fn number(&mut self, name: &str) -> u64 {
        let value = self.take(name);
        value.as_u64().unwrap_or_else(|| panic!("{}: {name}", self.at))
    }

    fn version(&mut self) -> u32 {
        self.number("key_version").try_into().unwrap()
    }

    fn array(&mut self, name: &str) -> Vec<Value> {
        let value = self.take(name);
        value
            .as_array()
            .unwrap_or_else(|| panic!("{}: {name}", self.at))
            .clone()
    }

    fn object(&mut self, name: &str) -> Self {
        let value = self.take(name);
        Self::new(&value, format!("{}: {name}", self.at))
    }

    fn hex(&mut self, name: &str) -> Vec<u8> {
        hex::decode(self.text(name)).unwrap_or_else(|error| panic!("{}: {name}: {error}", self.at))
    }

    fn dek(&mut self) -> [u8; 64] {
        self.hex("dek").try_into().unwrap()
    }

    fn context(&mut self) -> Result<EncryptionContext, Error> {
        let pairs = self.object("context").left;
        EncryptionContext::from_pairs(pairs.iter().map(|(key, value)| (key, value.as_str().unwrap())))
    }

    fn cmk(&mut self) -> Result<CmkVersion, Error> {
        let (key_id, version, material) = (self.text("key_id"), self.version(), self.hex("material"));
        CmkVersion::new(key_id.parse()?, version, &material)
    }

    /// Takes all fields of an object, which are those of a CMK version.
    fn whole_cmk(&mut self, name: &str) -> CmkVersion {
        let mut fields = self.object(name);
        let cmk = fields.cmk().unwrap();
        fields.done();
        cmk
    }

    /// The keyring of a group.
    fn keyring(&mut self) -> MemoryKeyring {
        let cmks: Vec<_> = self
            .array("keys")
            .iter()
            .map(|value| {
                let mut fields = Self::new(value, self.at.clone());
                let cmk = fields.cmk().unwrap();
                fields.done();
                cmk
            })
            .collect();
        MemoryKeyring::from_versions(cmks).unwrap()
    }

    fn done(self) {
        let left: Vec<_> = self.left.keys().collect();
        assert!(left.is_empty(), "{}: nothing takes {left:?}", self.at);
    }
}

/// How the kit names an error.
fn named(error: Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotABlob(_) => "not_a_blob",
        ErrorKind::MalformedKeyId => "malformed_key_id",
        ErrorKind::DamagedBlob => "damaged_blob",
        ErrorKind::KeyMismatch => "key_mismatch",
        ErrorKind::UnknownKey => "unknown_key",
        ErrorKind::UnknownKeyVersion => "unknown_key_version",
        ErrorKind::AuthenticationFailed => "authentication_failed",
        ErrorKind::InvalidMaterial => "invalid_material",
        ErrorKind::Context(_) => "context",
        ErrorKind::NotAPayload(_) => "not_a_payload",
        ErrorKind::PayloadTooLong => "payload_too_long",
        #[cfg(feature = "file-keyring")]
        ErrorKind::File(fault) => keyrings::named(fault),
        #[cfg(feature = "store-keyring")]
        ErrorKind::Store(fault) => keyrings::named_of_store(fault),
        other => panic!("no test expects {other:?}"),
    }
}

/// What a test did: the name of the error with which it was refused. A test that succeeds compares its outputs itself.
type Outcome = Result<(), &'static str>;

/// Runs a test of a group.
type RunTest = Box<dyn FnMut(&mut Fields) -> Outcome>;

/// Runs the tests of a level. `group` takes the inputs that the tests of a group share and returns what runs a test, or
/// returns `None` if a feature of the crate is off.
fn run(level: &str, group: impl Fn(&str, &mut Fields) -> Option<RunTest>) {
    let path = format!("{}/conformance/vectors/{level}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut file = Fields::new(&serde_json::from_str(&text).unwrap(), level.into());
    assert_eq!(file.text("format"), "dekseal conformance vectors");
    assert_eq!(file.number("version"), 1);
    assert_eq!(file.text("level"), level);
    file.text("section");
    file.text("comment");
    let flags = file.object("flags").left;
    let mut used = BTreeSet::new();
    for (name, flag) in &flags {
        let mut flag = Fields::new(flag, format!("{level}: {name}"));
        flag.text("section");
        flag.text("explanation");
        flag.done();
    }
    let mut count = 0;
    for (number, value) in file.array("groups").iter().enumerate() {
        let mut fields = Fields::new(value, format!("{level}: group {}", number + 1));
        fields.text("comment");
        let (kind, tests) = (fields.text("type"), fields.array("tests"));
        let run = group(&kind, &mut fields);
        let Some(mut run) = run else {
            count += tests.len() as u64;
            used.extend(flags.keys().cloned());
            continue;
        };
        fields.done();
        for value in tests {
            count += 1;
            let mut test = Fields::new(&value, format!("{level}: test {count}"));
            assert_eq!(test.number("id"), count);
            test.at = format!("{level}: test {count}, {}", test.text("comment"));
            let names = test.array("flags");
            assert!(!names.is_empty(), "{}", test.at);
            for name in names {
                let name = name.as_str().unwrap().to_owned();
                assert!(flags.contains_key(&name), "{}: unknown flag {name}", test.at);
                used.insert(name);
            }
            let expected = match test.text("result").as_str() {
                "valid" => Ok(()),
                "invalid" => Err(test.text("error")),
                other => panic!("{}: unknown result {other}", test.at),
            };
            let outcome = run(&mut test).map_err(String::from);
            assert_eq!(outcome, expected, "{}", test.at);
            test.done();
        }
    }
    assert!(used.iter().eq(flags.keys()), "{level}: a flag that no test has");
    assert_eq!(count, file.number("number_of_tests"));
    file.done();
}

/// A vector file with an unknown field, flag or type must not pass.
#[test]
fn what_no_check_takes_is_noticed() {
    for change in [
        |test: &mut Fields| drop(test.left.insert("new".into(), Value::Null)),
        |test: &mut Fields| drop(test.left.remove("blob")),
    ] {
        let broken = std::panic::catch_unwind(|| {
            run("parse", |kind, group| {
                let mut run = blobs::group(kind, group)?;
                Some(Box::new(move |test: &mut Fields| {
                    change(test);
                    run(test)
                }))
            });
        });
        assert!(broken.is_err());
    }
}
