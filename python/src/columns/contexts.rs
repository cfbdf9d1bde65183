//! The encryption contexts of the rows of a column.

use arrow_array::{Array, ArrayRef, OffsetSizeTrait, StructArray, cast::AsArray as _};
use arrow_schema::DataType;
use dekseal::{EncryptionContext, Error};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyString},
};

use super::{ffi::Column, values::Texts};
use crate::sealed::context;

/// What the caller passed as contexts.
pub(super) enum Contexts {
    /// The same context for all rows.
    Same(EncryptionContext),
    /// A column of maps, or of structs whose fields are the keys.
    Rows(Column),
    /// Keys whose values are the same for all rows, and keys whose values are in a column.
    Fields(Vec<(String, Field)>),
}

pub(super) enum Field {
    Same(String),
    Rows(Column),
}

/// A row has no context. The text names what is missing.
pub(super) enum Refused {
    Null(&'static str),
    Dekseal(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Dekseal(error)
    }
}

impl Contexts {
    /// One context, a column of contexts, or a dict some of whose values are columns of text.
    pub(super) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(dict) = object.cast::<PyDict>()
            && dict.iter().any(|(_, value)| !value.is_instance_of::<PyString>())
        {
            let fields = dict.iter().map(|(key, value)| {
                let key = key.cast::<PyString>()?.to_str()?.to_owned();
                if let Ok(text) = value.cast::<PyString>() {
                    let text = text
                        .to_str()
                        .map_err(|_| PyValueError::new_err("encryption context: a text contains a lone surrogate"))?;
                    return Ok((key, Field::Same(text.to_owned())));
                }
                let column = Column::import(&value, "a value of contexts")?;
                match Texts::can_read(&column.data_type) {
                    true => Ok((key, Field::Rows(column))),
                    false => Err(PyTypeError::new_err(format!(
                        "the values of {key:?} must be a column of text, not of {}: convert it",
                        column.data_type
                    ))),
                }
            });
            return fields.collect::<PyResult<_>>().map(Self::Fields);
        }
        if object.hasattr("__arrow_c_array__")? || object.hasattr("__arrow_c_stream__")? {
            let column = Column::import(object, "contexts")?;
            return match can_read(&column.data_type) {
                true => Ok(Self::Rows(column)),
                false => Err(PyTypeError::new_err(format!(
                    "contexts must be a column of maps or structs of text, not of {}",
                    column.data_type
                ))),
            };
        }
        context(object).map(|context| Self::Same(context.as_ref().clone()))
    }

    /// The columns among the contexts.
    pub(super) fn columns(&self) -> Vec<&Column> {
        match self {
            Self::Same(_) => Vec::new(),
            Self::Rows(column) => vec![column],
            Self::Fields(fields) => fields.iter().filter_map(|(_, field)| field.column()).collect(),
        }
    }

    /// The contexts of some rows, whose columns are `columns`.
    pub(super) fn reader<'r>(&'r self, columns: &'r [ArrayRef]) -> Option<Reader<'r>> {
        let mut columns = columns.iter();
        Some(match self {
            Self::Same(context) => Reader::Same(context),
            Self::Rows(_) => Reader::of_column(columns.next()?)?,
            Self::Fields(fields) => {
                let fields = fields.iter().map(|(key, field)| match field {
                    Field::Same(text) => Some((key.as_str(), Value::Same(text))),
                    Field::Rows(_) => Some((key.as_str(), Value::Rows(Texts::of(columns.next()?)?))),
                });
                Reader::Fields(None, fields.collect::<Option<_>>()?)
            }
        })
    }
}

impl Field {
    fn column(&self) -> Option<&Column> {
        match self {
            Self::Same(_) => None,
            Self::Rows(column) => Some(column),
        }
    }
}

fn can_read(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(entries, _) | DataType::List(entries) | DataType::LargeList(entries) => {
            match entries.data_type() {
                DataType::Struct(fields) => {
                    fields.len() == 2 && fields.iter().all(|field| Texts::can_read(field.data_type()))
                }
                _ => false,
            }
        }
        // Without fields, each row would have the empty context, which binds nothing.
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| Texts::can_read(field.data_type())),
        _ => false,
    }
}

pub(super) enum Value<'a> {
    Same(&'a str),
    Rows(Texts<'a>),
}

/// Makes the context of a row.
pub(super) enum Reader<'a> {
    Same(&'a EncryptionContext),
    /// The struct of the fields, if they come from one, which can be null itself.
    Fields(Option<&'a StructArray>, Vec<(&'a str, Value<'a>)>),
    Pairs(Pairs<'a>),
}

/// A column of lists of keys and values.
pub(super) struct Pairs<'a> {
    lists: &'a dyn Array,
    offsets: Offsets<'a>,
    entries: &'a StructArray,
    keys: Texts<'a>,
    values: Texts<'a>,
}

enum Offsets<'a> {
    Small(&'a [i32]),
    Large(&'a [i64]),
}

impl<'a> Reader<'a> {
    fn of_column(array: &'a ArrayRef) -> Option<Self> {
        let (entries, offsets) = match array.data_type() {
            DataType::Struct(fields) => {
                let array = array.as_struct();
                let columns = fields.iter().zip(array.columns());
                let fields =
                    columns.map(|(field, column)| Some((field.name().as_str(), Value::Rows(Texts::of(column)?))));
                return Some(Self::Fields(Some(array), fields.collect::<Option<_>>()?));
            }
            DataType::Map(..) => {
                let map = array.as_map();
                (map.entries(), Offsets::Small(map.offsets()))
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                (list.values().as_struct(), Offsets::Small(list.offsets()))
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                (list.values().as_struct(), Offsets::Large(list.offsets()))
            }
            _ => return None,
        };
        Some(Self::Pairs(Pairs {
            lists: array,
            offsets,
            keys: Texts::of(entries.columns().first()?)?,
            values: Texts::of(entries.columns().get(1)?)?,
            entries,
        }))
    }

    /// Calls `f` with the context of a row. A null is refused: it would bind nothing.
    pub(super) fn with<T>(
        &self,
        row: usize,
        f: impl FnOnce(&EncryptionContext) -> Result<T, Error>,
    ) -> Result<T, Refused> {
        let null = Refused::Null("the encryption context is null");
        let context = match self {
            Self::Same(context) => return Ok(f(context)?),
            Self::Fields(array, _) if array.is_some_and(|array| array.is_null(row)) => return Err(null),
            Self::Fields(_, fields) => of_pairs(fields.iter().map(|(key, value)| match value {
                Value::Same(text) => Some((*key, *text)),
                Value::Rows(texts) => texts.get(row).map(|text| (*key, text)),
            }))?,
            Self::Pairs(pairs) if pairs.lists.is_null(row) => return Err(null),
            Self::Pairs(pairs) => {
                let range = pairs.range(row);
                let (from, to) = range.ok_or(Refused::Null("the encryption context has no entries in its column"))?;
                of_pairs((from..to).map(|entry| match pairs.entries.is_null(entry) {
                    true => None,
                    false => pairs.keys.get(entry).zip(pairs.values.get(entry)),
                }))?
            }
        };
        Ok(f(&context)?)
    }
}

/// The context of pairs, none of which may be null.
fn of_pairs<'a>(pairs: impl Iterator<Item = Option<(&'a str, &'a str)>>) -> Result<EncryptionContext, Refused> {
    let mut null = false;
    let present = pairs.map_while(|pair| {
        null = pair.is_none();
        pair
    });
    let context = EncryptionContext::from_pairs(present);
    match null {
        true => Err(Refused::Null("a value of the encryption context is null")),
        false => Ok(context?),
    }
}

impl Pairs<'_> {
    fn range(&self, row: usize) -> Option<(usize, usize)> {
        fn of<O: OffsetSizeTrait>(offsets: &[O], row: usize) -> Option<(usize, usize)> {
            let from = offsets.get(row)?.as_usize();
            Some((from, offsets.get(row.checked_add(1)?)?.as_usize()))
        }
        match self.offsets {
            Offsets::Small(offsets) => of(offsets, row),
            Offsets::Large(offsets) => of(offsets, row),
        }
    }
}
