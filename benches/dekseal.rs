//! Measures each operation and its floor, in groups: `cargo bench --bench dekseal`.

mod common;

use std::{hint::black_box, sync::Arc, thread, time::Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dekseal::{CmkVersion, EncryptionContext, FileKeyring, Keyring, SealedDek, api};

use crate::common::{
    Busy, Floor, Keyed, cmk, context, dek, engine, key_id, keyring_of, long_context, long_pairs, os_randomness, pairs,
    wire,
};

fn seal_and_open(c: &mut Criterion) {
    let (cmk, context, dek) = (cmk(), context(), dek());
    let mut floor = Floor::new(&context);
    let sealed = cmk.seal(&context, &dek);

    let mut group = c.benchmark_group("seal");
    group.bench_function("dekseal", |b| b.iter(|| cmk.seal(black_box(&context), black_box(&dek))));
    group.bench_function("floor", |b| b.iter(|| floor.seal()));
    group.finish();

    let mut group = c.benchmark_group("open");
    group.bench_function("dekseal", |b| {
        b.iter(|| cmk.open(black_box(&context), black_box(&sealed)))
    });
    group.bench_function("floor", |b| b.iter(|| floor.open()));
    group.finish();

    let mut group = c.benchmark_group("parse");
    group.bench_function("dekseal", |b| {
        b.iter(|| SealedDek::from_bytes(black_box(sealed.as_bytes())))
    });
    group.bench_function("floor", |b| b.iter(|| floor.sha256_of_156_bytes()));
    group.finish();
}

/// The parts of a seal and of a new DEK, one by one.
fn primitives(c: &mut Criterion) {
    let (floor, dek) = (Floor::new(&context()), *dek().expose_secret());
    let keyed = &floor.keyed;
    let (gcm, nonce, mut body) = (Keyed::set_up([7; 32]), [7; 12], [7; 64]);
    let mut group = c.benchmark_group("primitives");
    group.bench_function("HMAC of 96 bytes", |b| b.iter(|| keyed.hmac(black_box(&dek))));
    group.bench_function("HKDF-Expand", |b| b.iter(|| keyed.expand(black_box(&[7; 32]))));
    group.bench_function("GCM set-up", |b| b.iter(|| Keyed::set_up(black_box([7; 32]))));
    group.bench_function("GCM of 64 bytes", |b| {
        b.iter(|| keyed.encrypt(black_box(&gcm), &nonce, black_box(&mut body)))
    });
    group.bench_function("SHA-256 of 156 bytes", |b| b.iter(|| floor.sha256_of_156_bytes()));
    group.bench_function("OS randomness of 64 bytes", |b| b.iter(os_randomness::<64>));
    group.bench_function("wipe_stack", |b| b.iter(dekseal::wipe_stack));
    group.finish();
}

fn create_dek(c: &mut Criterion) {
    let (engine, cmk, key_id, context, dek) = (engine(), cmk(), key_id(), context(), dek());
    let mut group = c.benchmark_group("create_dek");
    group.bench_function("dekseal", |b| {
        b.iter(|| engine.create_dek(&key_id, black_box(&context)))
    });
    group.bench_function("floor", |b| {
        b.iter(|| {
            black_box(os_randomness::<64>());
            cmk.seal(black_box(&context), black_box(&dek))
        });
    });
    for count in [64, 1024] {
        let mut slots: Vec<_> = (0..count).map(|_| None).collect();
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("batch", count), |b| {
            b.iter(|| engine.create_deks(&key_id, black_box(&context), &mut slots));
        });
    }
    group.finish();
}

fn contexts(c: &mut Criterion) {
    let mut group = c.benchmark_group("context");
    for count in [0, 2, 20, 500] {
        let pairs = pairs(count);
        group.bench_function(BenchmarkId::new("pairs", count), |b| {
            b.iter(|| EncryptionContext::from_pairs(black_box(&pairs).iter().map(|(key, value)| (key, value))));
        });
    }
    let (cmk, dek, pairs, context) = (cmk(), dek(), long_pairs(), long_context());
    group.bench_function("8192 characters, first use", |b| {
        b.iter(|| {
            let context = EncryptionContext::from_pairs(black_box(&pairs).iter().map(|(key, value)| (key, value)));
            cmk.seal(&context.expect("within the rules"), black_box(&dek))
        });
    });
    group.bench_function("8192 characters, used again", |b| {
        b.iter(|| cmk.seal(black_box(&context), black_box(&dek)));
    });
    group.finish();
}

fn wire_api(c: &mut Criterion) {
    let engine = engine();
    let mut group = c.benchmark_group("api");
    for (operation, body) in [
        ("create-datakey", wire::create_body()),
        ("decrypt-datakey", wire::decrypt_body()),
    ] {
        let path = wire::path(operation);
        group.bench_function(BenchmarkId::new("dekseal", operation), |b| {
            b.iter(|| api::handle(&engine, "POST", black_box(&path), black_box(body.as_bytes())));
        });
        group.bench_function(BenchmarkId::new("floor", operation), |b| {
            b.iter(|| wire::floor(&engine, operation, black_box(body.as_bytes())));
        });
    }
    group.finish();
}

fn keyring(c: &mut Criterion) {
    let mut group = c.benchmark_group("keyring");
    for count in [1, 1_000, 100_000] {
        let (keyring, ids) = keyring_of(count);
        let mut wanted = ids.iter().cycle();
        group.bench_function(BenchmarkId::new("look up among", count), |b| {
            b.iter(|| keyring.with_current(wanted.next()?, |cmk| cmk.key_version()).ok());
        });
    }
    let (keyring, ids) = keyring_of(1_000);
    let keyring = Arc::new(keyring);
    let (shared, rotated) = (Arc::clone(&keyring), ids[0]);
    let _busy = Busy::new(move || drop(shared.update(|keys| keys.rotate(&rotated))));
    let mut wanted = ids.iter().cycle();
    group.bench_function("look up among 1000, with a busy writer", |b| {
        b.iter(|| keyring.with_current(wanted.next()?, |cmk| cmk.key_version()).ok());
    });
    group.finish();
}

fn keyring_file(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("keyring.json");
    let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    let id = |n: u32| format!("{n:08}-e727-4d9c-b35d-f84bb474a37f").parse();
    let keyring = FileKeyring::create(&path, root().expect("32 bytes")).expect("it is new");
    keyring
        .update(|keys| (0..10_000).try_for_each(|n| keys.create_key(id(n)?)))
        .expect("all differ");
    let mut group = c.benchmark_group("keyring file");
    group.sample_size(10);
    group.bench_function("open 10000 keys", |b| {
        b.iter(|| FileKeyring::open(&path, root().expect("32 bytes")))
    });
    group.finish();
}

fn threads(c: &mut Criterion) {
    let (engine, key_id, context, dek) = (engine(), key_id(), context(), dek());
    let mut group = c.benchmark_group("threads");
    for count in [1, 2] {
        group.throughput(Throughput::Elements(count));
        let parallel = |iterations: u64, f: &(dyn Fn() + Sync)| {
            let start = Instant::now();
            thread::scope(|scope| {
                for _ in 0..count {
                    scope.spawn(|| (0..iterations).for_each(|_| f()));
                }
            });
            start.elapsed()
        };
        group.bench_function(BenchmarkId::new("seal", count), |b| {
            b.iter_custom(|iterations| {
                parallel(iterations, &|| {
                    let _ = black_box(engine.encrypt_dek(&key_id, &context, &dek));
                })
            });
        });
        group.bench_function(BenchmarkId::new("create", count), |b| {
            b.iter_custom(|iterations| {
                parallel(iterations, &|| {
                    let _ = black_box(engine.create_dek(&key_id, &context));
                })
            });
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    primitives,
    seal_and_open,
    create_dek,
    contexts,
    wire_api,
    keyring,
    keyring_file,
    threads
);
criterion_main!(benches);
