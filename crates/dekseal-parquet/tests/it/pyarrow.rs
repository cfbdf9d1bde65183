//! Files exchanged between PyArrow and the crate `parquet`.

use crate::{
    exchange::{Library, PyKms, exchange},
    support::{Form, read, write},
};

/// parquet-key-management makes keys of 128 bits only.
fn parquet() -> Library {
    Library {
        forms: Form::all(&[128]),
        write,
        read: |kms, _, path| read(kms, path),
    }
}

#[test]
fn files_are_exchanged_with_pyarrow() {
    exchange(PyKms::Reference, &parquet());
}

#[test]
#[ignore = "needs the Python package, which python/check builds; `check` runs this test"]
fn files_are_exchanged_with_the_python_package() {
    exchange(PyKms::Package, &parquet());
}
