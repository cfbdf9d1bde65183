//! PKCS#11 URIs (RFC 7512), as far as they name a token and a secret key.

use std::{env, path::PathBuf};

use cryptoki::slot::TokenInfo;
use percent_encoding::percent_decode_str;

use crate::failure::Failure;

/// The parts of a URI that are used here.
#[derive(Default)]
pub(super) struct Uri {
    token: Option<String>,
    serial: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    slot_id: Option<u64>,
    pub(super) object: Option<String>,
    pub(super) id: Option<Vec<u8>>,
    /// The file with the PIN.
    pub(super) pin_source: Option<PathBuf>,
    module_path: Option<PathBuf>,
}

impl Uri {
    /// Parses a URI. No error repeats a value: one of them may be a PIN.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.strip_prefix("pkcs11:").unwrap_or(text);
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let attributes = path.split(';').chain(query.split('&'));
        let mut uri = Self::default();
        let mut seen = Vec::new();
        for attribute in attributes.filter(|attribute| !attribute.is_empty()) {
            let (name, value) = attribute.split_once('=').ok_or_else(|| {
                Failure::usage("pkcs11: write NAME=VALUE between the semicolons, as in token=prod;object=dekseal")
            })?;
            if seen.contains(&name) {
                return Err(Failure::usage(format!("pkcs11: {name} occurs twice; leave one out")));
            }
            seen.push(name);
            uri.set(name, value)?;
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err(Failure::usage(
                "pkcs11: the URI names no key; add object=LABEL or id=%01",
            ));
        }
        Ok(uri)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let bytes = || percent_decode_str(value).collect::<Vec<u8>>();
        let text = || {
            String::from_utf8(bytes()).map_err(|_| Failure::usage(format!("pkcs11: the value of {name} is not UTF-8")))
        };
        match name {
            "token" => self.token = Some(text()?),
            "serial" => self.serial = Some(text()?),
            "manufacturer" => self.manufacturer = Some(text()?),
            "model" => self.model = Some(text()?),
            "object" => self.object = Some(text()?),
            "id" => self.id = Some(bytes()),
            "type" if value == "secret-key" => {}
            "type" => return Err(Failure::usage("pkcs11: the key must be of type=secret-key")),
            "slot-id" => {
                let number = text()?.parse();
                self.slot_id = Some(number.map_err(|_| Failure::usage("pkcs11: slot-id is not a number"))?);
            }
            "pin-source" => {
                let text = text()?;
                let path = text.strip_prefix("file:").unwrap_or(&text);
                self.pin_source = Some(path.strip_prefix("//").unwrap_or(path).into());
            }
            "pin-value" => {
                return Err(Failure::usage(
                    "pkcs11: other users can read a PIN in a URI; write it to a file, and name that with \
                     pin-source=file:PATH",
                ));
            }
            "module-path" => self.module_path = Some(text()?.into()),
            _ => {
                return Err(Failure::usage(format!(
                    "pkcs11: {name} is not supported; name the token by token, serial, manufacturer, model or slot-id, \
                     and the key by object or id"
                )));
            }
        }
        Ok(())
    }

    /// The library of the token.
    pub(super) fn module(&self) -> Result<PathBuf, Failure> {
        let named = self
            .module_path
            .clone()
            .or_else(|| env::var_os("DEKSEAL_PKCS11_MODULE").map(PathBuf::from));
        named.ok_or_else(|| Failure::usage("pkcs11: add ?module-path=LIBRARY to the URI, or set DEKSEAL_PKCS11_MODULE"))
    }

    /// Whether the URI names this token.
    pub(super) fn names(&self, slot_id: u64, token: &TokenInfo) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        token.token_initialized()
            && is(&self.token, token.label())
            && is(&self.serial, token.serial_number())
            && is(&self.manufacturer, token.manufacturer_id())
            && is(&self.model, token.model())
            && self.slot_id.is_none_or(|wanted| wanted == slot_id)
    }

    pub(super) fn token_name(&self) -> String {
        let parts = [("token", &self.token), ("serial", &self.serial), ("model", &self.model)];
        let slot_id = self.slot_id.map(|id| id.to_string());
        let parts = parts.into_iter().chain([("slot-id", &slot_id)]);
        join(parts.filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}"))))
    }

    pub(super) fn key_name(&self) -> String {
        let id = self
            .id
            .as_ref()
            .map(|id| id.iter().map(|byte| format!("%{byte:02X}")).collect::<String>());
        let parts = [("object", &self.object), ("id", &id)];
        join(
            parts
                .into_iter()
                .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}"))),
        )
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        "of any name".into()
    } else {
        parts.join(";")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_decoded() {
        let uri =
            Uri::parse("pkcs11:token=My%20token;object=k%3b;id=%01%ff?pin-source=file:///run/pin&module-path=/m.so");
        let uri = uri.unwrap();
        assert_eq!(
            (uri.token_name().as_str(), uri.key_name().as_str()),
            ("token=My token", "object=k;;id=%01%FF")
        );
        assert_eq!(uri.pin_source, Some(PathBuf::from("/run/pin")));
        assert_eq!(uri.module().unwrap(), PathBuf::from("/m.so"));
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let refused = [
            "pkcs11:object=a?pin-value=1234",
            "pkcs11:object=a;library-version=3",
            "pkcs11:object=a;object=b",
            "pkcs11:token=a",
            "pkcs11:object=a;type=private",
            "pkcs11:object",
            "pkcs11:object=a;slot-id=x",
        ];
        for text in refused {
            let failure = Uri::parse(text).err().unwrap();
            assert!(!failure.to_string().contains("1234"), "{failure}");
        }
    }
}
