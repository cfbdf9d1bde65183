//! All documents of a large table: the memory of a process, listing, and sealing again under another root.

use std::{
    env, fs,
    ops::ControlFlow,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use dekseal::{StoreKeyring, StoreSettings, store::KeyStore};

use crate::{
    key_id,
    prepare::{Size, Stores, Way, open_postgres, open_sqlite},
    root,
};

/// The argument for a process that only looks keys up: the store, its address, and the number of keys follow.
pub(crate) const LOOK_UP: &str = "--look-up";
const THREADS: usize = 16;

/// The bytes that the documentation of `StoreSettings` states for each key in memory, and for each that is remembered.
const HELD: usize = 2_000;
const REMEMBERED: usize = 250;
/// What docs/guide/fleet.md allows beside: connections with their caches, threads, and room that the allocator cannot
/// use.
const BESIDE: u64 = 20_000_000;

/// The most memory that this process has had resident, in KiB.
fn most_resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|number| number.trim().parse().ok()).expect("a size")
}

/// Looks up each of the first `count` keys once, and prints by how much that raised the most memory, in KiB.
fn look_up(keyring: &StoreKeyring<impl KeyStore>, count: u64) {
    let before = most_resident();
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    keyring.info(&key_id(number)).expect("a key");
                }
            });
        }
    });
    let held = keyring.counters().held;
    assert!(held <= keyring.settings().capacity, "{held} keys are held");
    println!("{}", most_resident() - before);
}

/// The process that looks up.
pub(crate) fn look_up_in_this_process() {
    let arguments: Vec<_> = env::args().skip(2).collect();
    let [store, address, count] = arguments.try_into().expect("three arguments");
    let count = count.parse().expect("a number");
    match store.as_str() {
        "PostgreSQL" => look_up(&StoreKeyring::new(open_postgres(&address, Size::Many), root(0)), count),
        _ => look_up(&StoreKeyring::new(open_sqlite(Path::new(&address)), root(0)), count),
    }
}

/// By how much another process grows that looks up keys, in MB. By default, glibc's allocator keeps an arena for each
/// thread, with room that no other thread uses.
fn grown(store: &str, address: &str, count: u64, one_arena: bool) -> f64 {
    let mut child = Command::new(env::current_exe().expect("this program has a path"));
    child.args([LOOK_UP, store, address, &count.to_string()]);
    if one_arena {
        child.env("MALLOC_ARENA_MAX", "1");
    }
    let output = child.stderr(Stdio::inherit()).output().expect("it starts again");
    let grown: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a size");
    grown as f64 * 1024.0 / 1e6
}

/// The memory for several numbers of keys: the capacity; as many more as are remembered; and far more.
fn memory(store: &str, address: &str, documents: u64) -> bool {
    let settings = StoreSettings::default();
    let (capacity, all) = (settings.capacity, settings.capacity + settings.remembered);
    let held = (capacity * HELD) as u64 + BESIDE;
    let all_of_it = held + (settings.remembered * REMEMBERED) as u64;
    let mut holds = true;
    for (count, bound) in [
        (capacity as u64, held),
        (all as u64, all_of_it),
        (4 * all as u64, all_of_it),
    ] {
        let count = count.min(documents);
        let [one, many] = [true, false].map(|one_arena| grown(store, address, count, one_arena));
        let bound = bound as f64 / 1e6;
        let verdict = if one <= bound { "holds" } else { "FAILS" };
        holds &= one <= bound;
        println!("| {store} | {count} | {one:.1} MB | ≤ {bound:.0} MB | {verdict} | {many:.1} MB |");
    }
    holds
}

/// Lists all keys, and seals `reseal` documents again.
fn pass(name: &str, store: impl KeyStore, documents: u64, reseal: u64) {
    let keyring = StoreKeyring::with_settings(store, root(1), [root(0)], StoreSettings::default()).expect("settings");
    let rate = |what: &str, count: u64, begun: Instant| {
        let seconds = begun.elapsed().as_secs_f64();
        let rate = count as f64 / seconds;
        println!("| {name} | {what} | {count} | {seconds:.1} s | {rate:.0} per second |");
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
    rate("listing", listed, begun);
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
    assert_eq!(pass.expect("a store").resealed, reseal);
    rate("sealing again under a new root", done, begun);
}

pub(crate) fn run(stores: &Stores, reseal: u64) -> bool {
    let (server, path, documents) = (stores.server.socket(), stores.path(Size::Many), stores.documents);
    let path = path.to_str().expect("text");
    println!("Memory of a process that looks up keys with {THREADS} threads, above that at its start:\n");
    println!("| store | keys looked up, of {documents} | with one arena | bound | | with many |");
    println!("|---|---:|---:|---:|---|---:|");
    let holds = [
        memory("PostgreSQL", &server, documents),
        memory("SQLite", path, documents),
    ];
    println!("\nPasses over all keys, one after another:\n");
    println!("| store | what | keys | time | rate |\n|---|---|---:|---:|---:|");
    pass(
        "PostgreSQL",
        stores.postgres(Way::Socket, Size::Many),
        documents,
        reseal,
    );
    pass("SQLite", stores.sqlite(Size::Many), documents, reseal);
    println!();
    !holds.contains(&false)
}
