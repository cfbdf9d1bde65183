//! Encryption contexts on the command line.

use std::fmt;

use dekseal::EncryptionContext;
use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};

use crate::failure::Failure;

/// The options that name an encryption context.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct ContextArgs {
    /// A pair of the encryption context, or all pairs as a JSON object of strings; repeat it for further pairs
    #[arg(long = "context", short = 'c', value_name = "KEY=VALUE|JSON")]
    context: Vec<String>,
}

impl ContextArgs {
    pub(crate) fn context(&self) -> Result<EncryptionContext, Failure> {
        Ok(EncryptionContext::from_pairs(self.pairs()?)?)
    }

    /// The pairs in the order in which they were given. A key that occurs twice is still there twice.
    pub(crate) fn pairs(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut pairs = Vec::new();
        for text in &self.context {
            if text.starts_with('{') {
                pairs.extend(object(text)?);
            } else {
                let Some((key, value)) = text.split_once('=') else {
                    return Err(Failure::usage(format!(
                        "--context {text}: write KEY=VALUE, or a JSON object of strings"
                    )));
                };
                pairs.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(pairs)
    }
}

/// Reads the pairs of a JSON object, and keeps a key that occurs twice.
fn object(text: &str) -> Result<Vec<(String, String)>, Failure> {
    struct Pairs;

    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object whose values are strings")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }

    let mut json = serde_json::Deserializer::from_str(text);
    let pairs = json.deserialize_map(Pairs);
    let pairs = pairs.and_then(|pairs| json.end().map(|()| pairs));
    pairs.map_err(|error| Failure::usage(format!("--context: {error}; write an object of strings")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(context: &[&str]) -> Result<Vec<(String, String)>, Failure> {
        let context = context.iter().map(|text| (*text).to_owned()).collect();
        ContextArgs { context }.pairs()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn pairs_and_json_are_read() {
        let read = pairs(&["a=b=c", r#"{"d":"e","f":""}"#, "g="]).unwrap();
        assert_eq!(read, [pair("a", "b=c"), pair("d", "e"), pair("f", ""), pair("g", "")]);
    }

    #[test]
    fn a_context_that_binds_something_else_is_refused() {
        for refused in ["a", r#"{"a":1}"#, r#"{"a":"b"} x"#, r#"{"a":"b""#, r#"{"a":null}"#] {
            assert!(pairs(&[refused]).is_err(), "{refused}");
        }
        let twice = ContextArgs {
            context: vec![r#"{"a":"b","a":"c"}"#.into()],
        };
        assert!(twice.context().is_err());
    }
}
