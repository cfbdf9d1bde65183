//! The cost of each operation, as a ratio to its floor: `cargo bench --bench ratios`. Exits with code 1 if a bound does
//! not hold.
//!
//! Measurements are paired and interleaved. In each round both sides run for a short time, one right after the other,
//! in an order and at a place of the stack that change from round to round. The ratio of a process is the median of the
//! ratios of its rounds. So a disturbance of the machine affects both sides of a round, or affects a round that the
//! median ignores. The addresses of the heap are the same for all rounds of a process. So several processes measure,
//! and the table shows the median of them.
//!
//! Arguments select parts: `cargo bench --bench ratios -- primitives payload`.

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "store-keyring")]
mod fleet;
mod measure;
mod payload;
mod threads;

use std::{env, hint::black_box, process::ExitCode, sync::Arc};

use arc_swap::ArcSwap;
use dekseal::{CmkVersion, EncryptionContext, KeyId, Keyring, MemoryKeyring, SealedDek, api};
use hashbrown::HashMap;

use crate::{
    common::{
        Busy, Floor, cmk, context, dek, engine, key_id, keyring_of, least::Least, long_context, os_randomness, wire,
    },
    measure::{Bound, Lines},
};

/// A part of the table, and the function that measures it.
type Part = (&'static str, fn(&mut Lines));

const PARTS: &[Part] = &[
    ("primitives", primitives),
    ("randomness", randomness),
    ("records", records),
    ("api", wire_api),
    ("keyrings", keyrings),
    ("contexts", contexts),
    ("threads", threads::threads),
    #[cfg(feature = "store-keyring")]
    ("fleet", fleet::fleet),
    #[cfg(feature = "ring")]
    ("by-hand", by_hand),
    ("payload", payload::payload),
];

fn main() -> ExitCode {
    let (options, wanted): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let chosen = PARTS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name));
    let programs = options.iter().filter_map(|option| option.strip_prefix(measure::BESIDE));
    let programs: Vec<&str> = programs.collect();
    if options.iter().any(|option| option == threads::WORKER) {
        threads::worker()
    } else if options.iter().any(|option| option == measure::ONCE) {
        chosen.for_each(|(_, part)| part(&mut Lines));
        ExitCode::SUCCESS
    } else if !programs.is_empty() {
        measure::beside_one_another(&programs, &wanted)
    } else {
        measure::in_several_processes(&wanted)
    }
}

fn primitives(lines: &mut Lines) {
    let (cmk, context, dek) = (cmk(), context(), dek());
    let mut floor = Floor::new(&context);
    let sealed = cmk.seal(&context, &dek);
    lines.compare(
        Bound::TimesAsLong(0.90),
        "seal",
        || cmk.seal(black_box(&context), black_box(&dek)),
        "HMAC, HKDF-Expand, GCM set-up, GCM of 64 bytes, SHA-256 of 156",
        || floor.seal(),
    );
    lines.compare(
        Bound::TimesAsLong(0.90),
        "open",
        || cmk.open(black_box(&context), black_box(&sealed)),
        "HKDF-Expand, GCM set-up, GCM of 64 bytes, HMAC",
        || floor.open(),
    );
    lines.compare(
        Bound::TimesAsLong(1.00),
        "parse, with checksum",
        || SealedDek::from_bytes(black_box(sealed.as_bytes())),
        "SHA-256 of 156 bytes",
        || floor.sha256_of_156_bytes(),
    );
    lines.compare(
        Bound::TimesAsLong(1.00),
        "a CMK from its material",
        || CmkVersion::new(key_id(), 0, black_box(&[7; 64])),
        "HKDF-Extract, HKDF-Expand twice, HMAC keyed twice",
        || Floor::cmk(black_box(&[7; 64])),
    );
}

fn randomness(lines: &mut Lines) {
    let (engine, key_id, context, dek) = (engine(), key_id(), context(), dek());
    // The look-up is on both sides. It has a row of its own, and the faster a seal, the larger its share.
    lines.compare(
        Bound::TimesAsLong(1.03),
        "create_dek",
        || engine.create_dek(black_box(&key_id), black_box(&context)),
        "OS randomness of 64 bytes, seal under the key of the keyring",
        || {
            let seal = |cmk: &CmkVersion| cmk.seal(black_box(&context), black_box(&dek));
            (
                os_randomness::<64>(),
                engine.keyring().with_current(black_box(&key_id), seal),
            )
        },
    );
    let mut floor = Floor::new(&context);
    lines.compare(
        Bound::TimesAsLong(1.00),
        "create_dek",
        || engine.create_dek(black_box(&key_id), black_box(&context)),
        "OS randomness of 64 bytes, the primitives of a seal",
        || (os_randomness::<64>(), floor.seal()),
    );
    let mut slots = [const { None }; 64];
    lines.compare(
        Bound::TimesAsLong(0.75),
        "create_deks, 64 of them",
        || engine.create_deks(black_box(&key_id), black_box(&context), &mut slots),
        "create_dek, 64 times",
        || (0..64).for_each(|_| drop(black_box(engine.create_dek(black_box(&key_id), black_box(&context))))),
    );
}

fn wire_api(lines: &mut Lines) {
    let engine = engine();
    for (operation, body) in [
        ("create-datakey", wire::create_body()),
        ("decrypt-datakey", wire::decrypt_body()),
    ] {
        let path = wire::path(operation);
        lines.compare(
            Bound::TimesAsLong(1.10),
            operation,
            || api::handle(&engine, "POST", black_box(&path), black_box(body.as_bytes())),
            "the engine's call, hex, serde_json",
            || wire::floor(&engine, operation, black_box(body.as_bytes())),
        );
    }
    let (path, deep, flat) = (
        wire::path("create-datakey"),
        wire::nested_body(126),
        wire::nested_body(1),
    );
    let parse = |body: &str| api::Request::parse("POST", black_box(&path), black_box(body.as_bytes())).is_err();
    lines.compare(
        Bound::TimesAsLong(2.0),
        "refuse 256 KiB nested 126 deep",
        || parse(&deep),
        "nested 1 deep",
        || parse(&flat),
    );
}

/// Compares look-ups with those in a map that contains only IDs and keys. The map is hashbrown's, with its hash
/// function, which is fast and has no random key from the system. The map of `std` is slower.
fn keyrings(lines: &mut Lines) {
    type Bare = HashMap<[u8; KeyId::LEN], Arc<[u8; 512]>>;
    /// A keyring, the bare map with its values in the same order, and all IDs in another order.
    fn of(count: u32) -> (MemoryKeyring, Bare, Vec<KeyId>) {
        let (keyring, ids) = keyring_of(count);
        let list = keyring.keys().list();
        let bare = list.iter().map(|info| (*info.key_id.as_bytes(), Arc::new([0; 512])));
        (keyring, bare.collect(), ids)
    }
    fn look_up<'a>(keyring: &'a MemoryKeyring, ids: &'a [KeyId]) -> impl FnMut() -> usize + use<'a> {
        in_sequence(ids, move |key_id| {
            keyring
                .with_current(key_id, |cmk| cmk.key_version())
                .expect("it is there") as usize
        })
    }
    let (keyring, bare, ids) = of(100_000);
    lines.compare(
        Bound::TimesAsLong(1.3),
        "look up among 100,000 keys",
        look_up(&keyring, &ids),
        "in a bare map",
        in_sequence(&ids, |key_id| bare[key_id.as_bytes()][0].into()),
    );

    let (keyring, bare, ids) = of(1_000);
    let (keyring, bare) = (Arc::new(keyring), Arc::new(ArcSwap::from_pointee(bare)));
    let (rotated, keyring_too, bare_too) = (ids[0], Arc::clone(&keyring), Arc::clone(&bare));
    let _busy = Busy::new(move || {
        keyring_too.update(|keys| keys.rotate(&rotated)).expect("it is enabled");
        bare_too.store(Arc::new(Bare::clone(&bare_too.load())));
    });
    lines.compare(
        Bound::TimesAsLong(1.3),
        "look up while a writer is busy",
        look_up(&keyring, &ids),
        "in a bare map in an ArcSwap, which the same thread clones and replaces",
        in_sequence(&ids, |key_id| bare.load()[key_id.as_bytes()][0].into()),
    );
}

/// Looks up all IDs again and again. `look_up` finds the number 0, and the place of the next ID depends on it. So no
/// look-up begins before the one before it has ended. Otherwise a processor would look up several IDs in the bare map
/// at once, which a service does not do, and which the atomic operations of an `ArcSwap` prevent.
fn in_sequence<F: FnMut(&KeyId) -> usize>(ids: &[KeyId], mut look_up: F) -> impl FnMut() -> usize + use<'_, F> {
    let mut at = 0;
    move || {
        let found = look_up(&ids[at]);
        at = (at + 1 + found) % ids.len();
        found
    }
}

fn contexts(lines: &mut Lines) {
    let (cmk, dek, context) = (cmk(), dek(), long_context());
    let mut floor = Floor::new(&context);
    lines.compare(
        Bound::TimesAsLong(1.20),
        "seal with 8192 characters, used again",
        || cmk.seal(black_box(&context), black_box(&dek)),
        "the primitives, without SHA-256 of the context",
        || floor.seal(),
    );
}

/// What a service author writes with ring: a random key under AES-256-GCM with a random nonce, and the context as
/// associated data. Nothing commits to key or context, and key ID, version and checksum are left to the author.
#[cfg(feature = "ring")]
fn by_hand(lines: &mut Lines) {
    use ring::{
        aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
        rand::{SecureRandom, SystemRandom},
    };
    let (engine, key_id, context) = (engine(), key_id(), context());
    let (random, key) = (SystemRandom::new(), UnboundKey::new(&AES_256_GCM, &[7; 32]));
    let key = LessSafeKey::new(key.expect("32 bytes"));
    let pairs = [("purpose", "backup"), ("tenant", "42")];
    let mut least = least(&context);
    lines.compare_with_least(
        1.10,
        "create_dek",
        || engine.create_dek(black_box(&key_id), black_box(&context)),
        "by hand with ring: OS randomness of 64 and of 12 bytes, AES-256-GCM",
        || {
            let (mut dek, mut nonce) = ([0; 64], [0; 12]);
            random.fill(&mut dek).expect("the system has randomness");
            random.fill(&mut nonce).expect("the system has randomness");
            let mut aad = Vec::with_capacity(64);
            for part in black_box(&pairs).iter().flat_map(|(key, value)| [key, value]) {
                aad.extend_from_slice(&(part.len() as u32).to_be_bytes());
                aad.extend_from_slice(part.as_bytes());
            }
            let mut sealed = Vec::with_capacity(12 + 64 + 16);
            sealed.extend_from_slice(&nonce);
            sealed.extend_from_slice(&dek);
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut sealed[12..]);
            sealed.extend_from_slice(tag.expect("short").as_ref());
            (dek, sealed)
        },
        &mut least,
        Least::create_dek,
        None,
    );
}

fn least(context: &EncryptionContext) -> Least {
    let sealed = cmk().seal(context, &dek());
    let sealed = sealed.as_bytes();
    Least::new(&[&sealed[..4], &sealed[116..156], context.canonical()].concat())
}

/// Records of 64 bytes, such as cells of a database, each under its own DEK.
fn records(lines: &mut Lines) {
    let (engine, key_id, context, record) = (engine(), key_id(), context(), [7; 64]);
    let (_, sealed) = engine.create_dek(&key_id, &context).expect("the key is enabled");
    let payload = engine.encrypt(&key_id, &context, &record).expect("the key is enabled");
    let mut floor = Floor::new(&context);
    lines.compare(
        Bound::TimesAsLong(1.00),
        "engine.encrypt, 64 bytes",
        || engine.encrypt(black_box(&key_id), black_box(&context), black_box(&record)),
        "OS randomness of 96 bytes, the primitives of a seal and of a payload",
        || (os_randomness::<96>(), floor.seal(), floor.payload()),
    );
    lines.compare(
        Bound::TimesAsLong(1.00),
        "engine.decrypt, 64 bytes",
        || engine.decrypt(black_box(&key_id), black_box(&context), black_box(&payload)),
        "the primitives of parse, of an opening and of a payload",
        || (floor.sha256_of_156_bytes(), floor.open(), floor.payload()),
    );
    let mut least = least(&context);
    lines.compare_with_least(
        1.65,
        "engine.encrypt, 64 bytes",
        || engine.encrypt(black_box(&key_id), black_box(&context), black_box(&record)),
        "create_dek",
        || engine.create_dek(black_box(&key_id), black_box(&context)),
        &mut least,
        |least| drop(black_box(least.encrypt())),
        Some(Least::create_dek),
    );
    lines.compare_with_least(
        2.6,
        "engine.decrypt, 64 bytes",
        || engine.decrypt(black_box(&key_id), black_box(&context), black_box(&payload)),
        "decrypt_dek",
        || engine.decrypt_dek(black_box(&key_id), black_box(&context), black_box(&sealed)),
        &mut least,
        |least| drop(black_box(least.decrypt())),
        Some(Least::decrypt_dek),
    );
}
