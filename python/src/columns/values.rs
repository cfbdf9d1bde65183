//! The values of a column: bytes or text, in each of Arrow's layouts.

use arrow_array::{
    Array, BinaryArray, BinaryViewArray, FixedSizeBinaryArray, LargeBinaryArray, LargeStringArray, StringArray,
    StringViewArray, cast::AsArray as _,
};
use arrow_schema::DataType;
use pyo3::{exceptions::PyTypeError, prelude::*};

/// Bytes, or the bytes of a text.
pub(super) enum Bytes<'a> {
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
    Fixed(&'a FixedSizeBinaryArray),
    Text(Texts<'a>),
}

impl<'a> Bytes<'a> {
    /// Whether the type can be read, and whether its columns may be larger than 2 GiB.
    pub(super) fn is_large(data_type: &DataType, name: &str) -> PyResult<bool> {
        match data_type {
            DataType::Binary | DataType::FixedSizeBinary(_) | DataType::Utf8 => Ok(false),
            DataType::LargeBinary | DataType::BinaryView | DataType::LargeUtf8 | DataType::Utf8View => Ok(true),
            other => Err(PyTypeError::new_err(format!(
                "{name} must be a column of binary values, not of {other}"
            ))),
        }
    }

    pub(super) fn of(array: &'a dyn Array) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Binary => Self::Binary(array.as_binary()),
            DataType::LargeBinary => Self::LargeBinary(array.as_binary()),
            DataType::BinaryView => Self::View(array.as_binary_view()),
            DataType::FixedSizeBinary(_) => Self::Fixed(array.as_fixed_size_binary()),
            _ => Self::Text(Texts::of(array)?),
        })
    }

    pub(super) fn get(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Self::Binary(array) => array.is_valid(row).then(|| array.value(row)),
            Self::LargeBinary(array) => array.is_valid(row).then(|| array.value(row)),
            Self::View(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Fixed(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Text(texts) => texts.get(row).map(str::as_bytes),
        }
    }
}

pub(super) enum Texts<'a> {
    Small(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
}

impl<'a> Texts<'a> {
    pub(super) fn can_read(data_type: &DataType) -> bool {
        matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    }

    pub(super) fn of(array: &'a dyn Array) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Utf8 => Self::Small(array.as_string()),
            DataType::LargeUtf8 => Self::Large(array.as_string()),
            DataType::Utf8View => Self::View(array.as_string_view()),
            _ => return None,
        })
    }

    pub(super) fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Small(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Large(array) => array.is_valid(row).then(|| array.value(row)),
            Self::View(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}
