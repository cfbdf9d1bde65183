//! Tests of the `dekseal` command as a process.

mod data;
mod dek;
mod help;
mod inspect;
mod key;
mod keyring;
mod kills;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod readme;
mod root;
mod secrets;
#[cfg(unix)]
mod serve;
#[path = "../../../dekseal-postgres/tests/it/server.rs"]
#[allow(dead_code, reason = "the tests of dekseal-postgres use more of it")]
mod server;
#[path = "../../../../tests/it/strace.rs"]
#[allow(dead_code, reason = "the tests of dekseal use more of it")]
mod strace;
mod support;
mod sweep;

/// The part of the store's conformance tests that the server's helpers use.
mod conformance {
    pub(crate) fn call() -> dekseal::store::Call {
        dekseal::store::Call::within(std::time::Duration::from_secs(20))
    }
}
