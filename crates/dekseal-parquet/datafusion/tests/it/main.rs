//! The integration tests of DataFusion: one binary, with a module for each subject.

#[path = "../../../tests/it/exchange.rs"]
mod exchange;
mod files;
mod pyarrow;
#[path = "../../../tests/it/support.rs"]
mod support;
