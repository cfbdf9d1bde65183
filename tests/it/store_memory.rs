//! The memory that a fleet's keyring allocates has the bound that the documentation of `StoreSettings` states.

use std::sync::Arc;

use allocation_counter::measure;
use dekseal::{CmkVersion, Keyring as _, StoreKeyring, StoreSettings, store::MemoryStore};

use crate::store_keyring::{id, process, root};

const CAPACITY: usize = 250;
const REMEMBERED: usize = 250;
const KEYS: u64 = 2_000;

/// The stated bytes for a key in memory, and for one that is remembered.
const HELD: usize = 2_000;
const SEEN: usize = 250;

/// The map frees removed keys in batches, and the choice of the keys to evict needs a list.
const GARBAGE: usize = 64 * HELD;

#[test]
fn memory_does_not_grow_with_the_number_of_keys_met() {
    let store = Arc::new(MemoryStore::new());
    let maker = process(&store);
    for number in 0..KEYS {
        let made = maker.keyring().update(&id(number), |keys| keys.create_key(id(number)));
        made.unwrap();
    }
    let mut settings = StoreSettings::default();
    (settings.capacity, settings.remembered) = (CAPACITY, REMEMBERED);
    let keyring = StoreKeyring::with_settings(store, root(0), [], settings).unwrap();
    let look_up_all = || {
        for number in 0..KEYS {
            keyring.with_current(&id(number), CmkVersion::key_version).unwrap();
        }
    };
    let once = measure(look_up_all);
    let bound = CAPACITY * HELD + REMEMBERED * SEEN + GARBAGE;
    assert!(once.bytes_max < bound as u64, "{once:?}");
    // The remembered keys have changed all the same, and no key has left anything else behind.
    let again = measure(look_up_all);
    assert!(again.bytes_current < GARBAGE as i64, "{again:?}");
    assert!(keyring.counters().evictions >= 2 * (KEYS - CAPACITY as u64));
}
