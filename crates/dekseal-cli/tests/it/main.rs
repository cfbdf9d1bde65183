//! Tests of the `dekseal` command as a process.

mod support;

use support::Place;

#[test]
fn a_keyring_is_made_and_a_key_in_it() {
    let place = Place::new();
    place.does(&["keyring", "create"]);
    place.does(&["key", "create", "0d0466b0-e727-4d9c-b35d-f84bb474a37f"]);
}
