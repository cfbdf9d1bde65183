//! The integration tests: one binary, with a module for each subject.

mod kms;
mod pyarrow;
