//! A rotation of one key among many keys, against one among ten.

use dekseal::{StoreKeyring, store::KeyStore};

use crate::{
    key_id,
    measure::{compare, header, in_turns},
    prepare::{Size, Stores},
    root,
};

const ROUNDS: usize = 400;

/// Rotates one key after another, so that no document grows long.
fn rotation<S: KeyStore>(store: S, keys: u64) -> impl FnMut() {
    let keyring = StoreKeyring::new(store, root(0));
    let step = (keys / 10).max(1);
    let mut numbers = (0..10).map(move |number| number * step % keys).cycle();
    move || {
        let key_id = key_id(numbers.next().expect("it never ends"));
        keyring.update(&key_id, |keys| keys.rotate(&key_id)).expect("a key");
    }
}

pub(crate) fn run(stores: &Stores) -> bool {
    println!("A rotation in a table of {} keys:\n", stores.documents);
    header();
    let [mut many, mut ten] = Size::ALL.map(|size| rotation(stores.postgres(size), stores.count(size)));
    let [among_many, among_ten] = in_turns(ROUNDS, [&mut many, &mut ten]);
    let postgres = compare("a rotation in PostgreSQL", among_many, "among 10 keys", among_ten, 1.50);
    let [mut many, mut ten] = Size::ALL.map(|size| rotation(stores.sqlite(size), stores.count(size)));
    let [among_many, among_ten] = in_turns(ROUNDS, [&mut many, &mut ten]);
    let sqlite = compare("a rotation in SQLite", among_many, "among 10 keys", among_ten, 1.50);
    println!();
    postgres && sqlite
}
