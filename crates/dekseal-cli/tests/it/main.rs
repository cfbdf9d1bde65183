//! Tests of the `dekseal` command as a process.

#[cfg(unix)]
mod serve;
#[path = "../../../dekseal-postgres/tests/it/server.rs"]
#[allow(dead_code, reason = "the tests of dekseal-postgres use more of it")]
mod server;
mod support;
mod sweep;

use support::Place;

#[test]
fn a_keyring_is_made_and_a_key_in_it() {
    let place = Place::new();
    place.does(&["keyring", "create"]);
    place.does(&["key", "create", "0d0466b0-e727-4d9c-b35d-f84bb474a37f"]);
}

/// The part of the store's conformance tests that the server's helpers use.
mod conformance {
    pub(crate) fn call() -> dekseal::store::Call {
        dekseal::store::Call::within(std::time::Duration::from_secs(20))
    }
}
