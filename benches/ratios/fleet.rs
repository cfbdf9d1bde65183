//! Compares a fleet's keyring with a keyring in memory, for keys in memory. The fleet's keyring also reads a clock in
//! each call, because it may use a document only for so long.

use std::{hint::black_box, thread};

use dekseal::{Engine, KeyId, Keyring, MemoryKeyring, StoreKeyring, store::MemoryStore};

use crate::{
    common::{context, dek},
    measure::{Bound, Lines},
};

const KEYS: usize = 1_000;

pub(crate) fn fleet(lines: &mut Lines) {
    let root = dekseal::CmkVersion::new(
        "00000000-0000-0000-0000-00000000root".parse().expect("a key ID"),
        0,
        &[7; 64],
    );
    let fleet = StoreKeyring::new(MemoryStore::new(), root.expect("a CMK"));
    let mut keys = dekseal::Keyset::new();
    let mut ids = Vec::new();
    for _ in 0..KEYS {
        let key_id = KeyId::generate().expect("there is randomness");
        let material = [ids.len() as u8; 64];
        keys.import_key(key_id, &material).expect("it is new");
        fleet
            .update(&key_id, |keys| keys.import_key(key_id, &material))
            .expect("it is new");
        ids.push(key_id);
    }
    let (memory, fleet) = (Engine::new(MemoryKeyring::new(keys)), Engine::new(fleet));
    // As in a service. Without a refresher, calls would confirm a key each minute.
    fleet.keyring().start_refresher().expect("a thread");
    lines.compare(
        Bound::TimesAsLong(1.10),
        "seal a DEK in a StoreKeyring",
        seal(&fleet, &ids),
        "in a MemoryKeyring",
        seal(&memory, &ids),
    );
    lines.compare(
        Bound::TimesAsLong(1.10),
        "seal DEKs in a StoreKeyring, by 2 threads",
        on_two_threads(|| seal(&fleet, &ids)),
        "in a MemoryKeyring, by 2 threads",
        on_two_threads(|| seal(&memory, &ids)),
    );
    lines.compare(
        Bound::NanosecondsMore(60.0),
        "look up a key in a StoreKeyring",
        look_up(fleet.keyring(), &ids),
        "in a MemoryKeyring",
        look_up(memory.keyring(), &ids),
    );
}

fn look_up<'a, K: Keyring>(keyring: &'a K, ids: &'a [KeyId]) -> impl FnMut() -> Option<u32> + use<'a, K> {
    let mut wanted = ids.iter().cycle();
    move || keyring.with_current(wanted.next()?, |cmk| cmk.key_version()).ok()
}

fn seal<'a, K: Keyring>(engine: &'a Engine<K>, ids: &'a [KeyId]) -> impl FnMut() + use<'a, K> {
    let (mut wanted, context, dek) = (ids.iter().cycle(), context(), dek());
    move || {
        let key_id = wanted.next().expect("it never ends");
        let _ = black_box(engine.encrypt_dek(key_id, &context, black_box(&dek)));
    }
}

/// A thousand seals on each of two threads.
fn on_two_threads<F: FnMut()>(seal: impl Fn() -> F + Sync) -> impl FnMut() {
    move || {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seal = seal();
                    (0..1_000).for_each(|_| seal());
                });
            }
        });
    }
}
