//! Files exchanged between PyArrow and DataFusion.

use crate::{
    exchange::{Library, PyKms, exchange},
    files::{read, write},
    support::Form,
};

/// DataFusion writes key material inside the file only.
fn datafusion() -> Library {
    Library {
        forms: Form::all(&[128]).into_iter().filter(|form| !form.external).collect(),
        write,
        read,
    }
}

#[test]
fn files_are_exchanged_with_pyarrow() {
    exchange(PyKms::Reference, &datafusion());
}

#[test]
#[ignore = "needs the Python package, which python/check builds; `check --datafusion` runs this test"]
fn files_are_exchanged_with_the_python_package() {
    exchange(PyKms::Package, &datafusion());
}
