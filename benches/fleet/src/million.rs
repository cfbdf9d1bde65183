//! All documents of a large table: memory, listing, and sealing again under another root.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use dekseal::{StoreKeyring, StoreSettings, store::KeyStore};

use crate::{
    key_id,
    measure::resident,
    prepare::{Size, Stores},
    root,
};

/// The bound of the documentation of `StoreSettings`: 2 KB for each key, and 250 bytes for each that is remembered.
fn bound(settings: &StoreSettings) -> u64 {
    (settings.capacity * 2_000 + settings.remembered * 250) as u64
}

pub(crate) fn run(stores: &Stores, reseal: u64) -> bool {
    println!(
        "All of {} keys, in a keyring with a capacity of 10,000:\n",
        stores.documents
    );
    println!("| store | what | result |");
    println!("|---|---|---:|");
    let postgres = of("PostgreSQL", stores.postgres(Size::Many), stores.documents, reseal);
    let sqlite = of("SQLite", stores.sqlite(Size::Many), stores.documents, reseal);
    println!();
    postgres && sqlite
}

fn of<S: KeyStore>(name: &str, store: S, documents: u64, reseal: u64) -> bool {
    let settings = StoreSettings::default();
    let keyring = StoreKeyring::with_settings(store, root(1), [root(0)], settings).expect("settings");
    let rate = |what: &str, count: u64, begun: Instant| {
        let per_second = count as f64 / begun.elapsed().as_secs_f64();
        println!("| {name} | {what} | {per_second:.0} per second |");
    };

    let begun = Instant::now();
    let (mut after, mut listed) = (None, 0);
    loop {
        let page = keyring.list(after.as_ref(), 1_000).expect("a page");
        let Some(last) = page.last() else { break };
        after = Some(*last);
        listed += page.len() as u64;
    }
    assert_eq!(listed, documents);
    rate(&format!("listing {listed} keys"), listed, begun);

    // More keys than the keyring remembers.
    let load = documents.min(3 * (settings.capacity + settings.remembered) as u64 / 2);
    let before = resident();
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let highest = thread::scope(|scope| {
        let loaders: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let mut highest = 0;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= load {
                            return highest;
                        }
                        keyring.info(&key_id(number)).expect("a key");
                        if number % 1_000 == 0 {
                            highest = highest.max(resident());
                        }
                    }
                })
            })
            .collect();
        let highest = loaders.into_iter().map(|loader| loader.join().expect("a thread"));
        highest.max().unwrap_or_default()
    });
    rate(
        &format!("looking up {load} keys by 16 threads, each a miss"),
        load,
        begun,
    );
    let (held, grown) = (keyring.counters().held, highest.saturating_sub(before));
    let bound = bound(&settings);
    let holds = held <= settings.capacity && grown <= bound;
    println!(
        "| {name} | resident memory more than before, with {held} keys held and {} remembered (bound {:.0} MB) | \
         {:.1} MB{} |",
        load.saturating_sub(held as u64).min(settings.remembered as u64),
        bound as f64 / 1e6,
        grown as f64 / 1e6,
        if holds { "" } else { ", FAILS" }
    );

    let begun = Instant::now();
    let mut done = 0;
    let pass = keyring.reseal(None, |_, result| {
        assert!(result.expect("a document"));
        done += 1;
        if done < reseal {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    assert_eq!(pass.expect("a store").resealed, reseal.min(documents));
    rate(&format!("sealing {done} documents again"), done, begun);
    holds
}
