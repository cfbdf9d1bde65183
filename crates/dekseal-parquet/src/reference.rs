//! What a Parquet file holds in place of key material that is beside it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error, KeyMaterial,
    material::{TYPE, unknown},
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    key_material_type: String,
    internal_storage: bool,
    key_reference: String,
}

/// The flag alone: key material inside the file has no reference.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Storage {
    internal_storage: bool,
}

/// The reference under which the material of a key is beside the file, or `None` if it is inside. `metadata` is that of
/// the key in the Parquet file.
pub(crate) fn reference(metadata: &[u8]) -> Result<Option<String>, Error> {
    let refused = |error: serde_json::Error| unknown("in the Parquet file").with(error);
    let storage: Storage = serde_json::from_slice(metadata).map_err(refused)?;
    if storage.internal_storage {
        return Ok(None);
    }
    let reference: Reference = serde_json::from_slice(metadata).map_err(refused)?;
    if reference.key_material_type != TYPE {
        return Err(unknown(&format!("in the Parquet file: not of the type {TYPE}")));
    }
    Ok(Some(reference.key_reference))
}

fn fields(reference: &str, json: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(json).map_err(|error| unknown(reference).with(error))
}

impl KeyMaterial {
    /// The key material under a reference, in the form for the inside of a file. The libraries read only that.
    pub(crate) fn internal(&self, reference: &str) -> Result<Vec<u8>, Error> {
        self.wrapped(reference)?;
        let text = self.entries.get(reference).map(String::as_str).unwrap_or_default();
        let mut fields = fields(reference, text.as_bytes())?;
        fields.insert("internalStorage".into(), true.into());
        Ok(Value::from(fields).to_string().into_bytes())
    }

    /// Takes up key material that was made for the inside of a file. Returns what the file holds instead.
    pub(crate) fn take_out(&mut self, reference: &str, metadata: &[u8]) -> Result<Vec<u8>, Error> {
        let mut fields = fields(reference, metadata)?;
        fields.remove("internalStorage");
        // PyArrow and parquet-java leave out what is not there.
        fields.retain(|_, value| !value.is_null());
        self.entries.insert(reference.into(), Value::from(fields).to_string());
        let reference = Reference {
            key_material_type: TYPE.into(),
            internal_storage: false,
            key_reference: reference.into(),
        };
        serde_json::to_vec(&reference).map_err(|error| unknown("a reference").with(error))
    }
}
