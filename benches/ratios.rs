//! What each operation costs beside its floor, as ratios: `cargo bench --bench ratios`. Exit code 1 where a bound does not hold.
//!
//! Paired and interleaved: in each round both sides run for a short while, one right after the other, and the order changes from
//! round to round. The ratio is the median of the rounds' ratios. What disturbs the machine disturbs both sides of a round alike, or
//! makes a round that the median leaves out.

mod common;

use std::{
    env,
    hint::black_box,
    io::{Read, Write},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use dekseal::{KeyId, Keyring, MemoryKeyring, SealedDek, api};

use crate::common::{Busy, Floor, cmk, context, dek, engine, key_id, keyring_of, long_context, os_randomness, wire};

/// An odd number, so that one round stands in the middle.
const ROUNDS: usize = 1001;
/// How long each side runs in a round.
const BATCH: Duration = Duration::from_micros(300);

fn main() -> ExitCode {
    if env::args().any(|argument| argument == WORKER) {
        return worker();
    }
    let mut table = Table { holds: true };
    println!("| what | against | ratio | bound | | ns | against, ns |");
    println!("|---|---|---:|---:|---|---:|---:|");
    primitives(&mut table);
    randomness(&mut table);
    wire_api(&mut table);
    keyrings(&mut table);
    contexts(&mut table);
    threads(&mut table);
    if table.holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn primitives(table: &mut Table) {
    let (cmk, context, dek) = (cmk(), context(), dek());
    let floor = Floor::new(&context);
    let sealed = cmk.seal(&context, &dek);
    table.at_most(
        1.05,
        "seal",
        || cmk.seal(black_box(&context), black_box(&dek)),
        "HMAC, HKDF-Expand, GCM set-up, GCM of 64 bytes, SHA-256 of 156",
        || floor.seal(),
    );
    table.at_most(
        1.05,
        "open",
        || cmk.open(black_box(&context), black_box(&sealed)),
        "HKDF-Expand, GCM set-up, GCM of 64 bytes, HMAC",
        || floor.open(),
    );
    table.at_most(
        1.10,
        "parse, with checksum",
        || SealedDek::from_bytes(black_box(sealed.as_bytes())),
        "SHA-256 of 156 bytes",
        || floor.sha256_of_156_bytes(),
    );
}

fn randomness(table: &mut Table) {
    let (engine, cmk, key_id, context, dek) = (engine(), cmk(), key_id(), context(), dek());
    table.at_most(
        1.03,
        "create_dek",
        || engine.create_dek(black_box(&key_id), black_box(&context)),
        "OS randomness of 64 bytes, seal",
        || (os_randomness(), cmk.seal(black_box(&context), black_box(&dek))),
    );
    let mut slots = [const { None }; 64];
    table.at_most(
        0.75,
        "create_deks, 64 of them",
        || engine.create_deks(black_box(&key_id), black_box(&context), &mut slots),
        "create_dek, 64 times",
        || (0..64).for_each(|_| drop(black_box(engine.create_dek(black_box(&key_id), black_box(&context))))),
    );
}

fn wire_api(table: &mut Table) {
    let engine = engine();
    for (operation, body) in [
        ("create-datakey", wire::create_body()),
        ("decrypt-datakey", wire::decrypt_body()),
    ] {
        let path = wire::path(operation);
        table.at_most(
            1.15,
            operation,
            || api::handle(&engine, "POST", black_box(&path), black_box(body.as_bytes())),
            "the engine's call, hex, serde_json",
            || wire::floor(&engine, operation, black_box(body.as_bytes())),
        );
    }
}

fn keyrings(table: &mut Table) {
    /// Looks the keys up one after another.
    fn look_up<'a>(keyring: &'a MemoryKeyring, ids: &'a [KeyId]) -> impl FnMut() -> Option<u32> + use<'a> {
        let mut wanted = ids.iter().cycle();
        move || keyring.with_current(wanted.next()?, |cmk| cmk.key_version()).ok()
    }
    let ((one, id), (many, ids)) = (keyring_of(1), keyring_of(100_000));
    table.at_most_more(
        150.0,
        "look up among 100,000 keys",
        look_up(&many, &ids),
        "among 1",
        look_up(&one, &id),
    );

    let (quiet, ids) = keyring_of(1_000);
    let busy = Busy::new(keyring_of(1_000).0);
    table.at_most(
        1.2,
        "look up while a writer is busy",
        look_up(&busy.keyring, &ids),
        "while none is",
        look_up(&quiet, &ids),
    );
}

fn contexts(table: &mut Table) {
    let (cmk, dek, context) = (cmk(), dek(), long_context());
    let floor = Floor::new(&context);
    table.at_most(
        1.20,
        "seal with 8192 characters, used again",
        || cmk.seal(black_box(&context), black_box(&dek)),
        "the primitives, without SHA-256 of the context",
        || floor.seal(),
    );
}

struct Table {
    holds: bool,
}

impl Table {
    /// A line whose ratio is to be `bound` at most.
    fn at_most<A, B>(&mut self, bound: f64, ours: &str, a: impl FnMut() -> A, floor: &str, b: impl FnMut() -> B) {
        let rounds = compare(a, b);
        let ratio = median(rounds.iter().map(|(a, b)| a / b));
        self.line(
            ours,
            floor,
            format!("{ratio:.3}"),
            format!("≤ {bound:.2}"),
            ratio <= bound,
            &rounds,
        );
    }

    /// A line where `a` is to take no more than `bound` nanoseconds more than `b`.
    fn at_most_more<A, B>(&mut self, bound: f64, ours: &str, a: impl FnMut() -> A, floor: &str, b: impl FnMut() -> B) {
        let rounds = compare(a, b);
        let more = median(rounds.iter().map(|(a, b)| a - b));
        self.line(
            ours,
            floor,
            format!("+{more:.0} ns"),
            format!("≤ +{bound:.0} ns"),
            more <= bound,
            &rounds,
        );
    }

    fn line(&mut self, ours: &str, floor: &str, ratio: String, bound: String, holds: bool, rounds: &[(f64, f64)]) {
        let verdict = if holds { "holds" } else { "FAILS" };
        let (a, b) = (
            median(rounds.iter().map(|(a, _)| *a)),
            median(rounds.iter().map(|(_, b)| *b)),
        );
        println!("| {ours} | {floor} | {ratio} | {bound} | {verdict} | {a:.0} | {b:.0} |");
        self.holds &= holds;
    }
}

/// Nanoseconds for one call of each side, round by round.
fn compare<A, B>(mut a: impl FnMut() -> A, mut b: impl FnMut() -> B) -> Vec<(f64, f64)> {
    let (count_a, count_b) = (calibrate(&mut a), calibrate(&mut b));
    let round = |number| {
        if number % 2 == 0 {
            let first = time(count_a, &mut a);
            (first, time(count_b, &mut b))
        } else {
            let second = time(count_b, &mut b);
            (time(count_a, &mut a), second)
        }
    };
    (0..ROUNDS).map(round).collect()
}

/// How many calls take about `BATCH`.
fn calibrate<T>(f: &mut impl FnMut() -> T) -> u32 {
    let mut count = 1;
    while time(count, f) * f64::from(count) < BATCH.as_nanos() as f64 {
        count *= 2;
    }
    count
}

fn time<T>(count: u32, f: &mut impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        // By reference: to hand the value itself over would copy it.
        black_box(&call(f));
    }
    start.elapsed().as_nanos() as f64 / f64::from(count)
}

/// Called, as a service calls it. A primitive alone in a loop is inlined into it, and what is the same each time is done once.
#[inline(never)]
fn call<T>(f: &mut impl FnMut() -> T) -> T {
    f()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The argument that makes a process of this program a worker.
const WORKER: &str = "--worker";
/// How long threads and processes seal, and how often.
const SEALING: Duration = Duration::from_millis(50);
const TURNS: usize = 41;

/// Seals for a while whenever a byte comes in, and answers with how many it did.
fn worker() -> ExitCode {
    let engine = engine();
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut go = [0];
    while input.read_exact(&mut go).is_ok() {
        let count = seal_for_a_while(&engine);
        if output
            .write_all(&count.to_le_bytes())
            .and_then(|()| output.flush())
            .is_err()
        {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn seal_for_a_while(engine: &dekseal::Engine<MemoryKeyring>) -> u64 {
    let (key_id, context, dek) = (key_id(), context(), dek());
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < SEALING {
        for _ in 0..64 {
            let _ = black_box(engine.encrypt_dek(black_box(&key_id), &context, black_box(&dek)));
        }
        count += 64;
    }
    count
}

/// Two threads on one engine against two processes, in turns.
fn threads(table: &mut Table) {
    let engine = engine();
    let program = env::current_exe().expect("this program has a path");
    let mut workers: Vec<_> = (0..2)
        .map(|_| {
            let mut command = Command::new(&program);
            let command = command.arg(WORKER).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().expect("it can be started again")
        })
        .collect();
    let mut two_processes = || -> u64 {
        for worker in &mut workers {
            let input = worker.stdin.as_mut().expect("it is piped");
            input
                .write_all(&[1])
                .and_then(|()| input.flush())
                .expect("the worker listens");
        }
        let counts = workers.iter_mut().map(|worker| {
            let mut count = [0; 8];
            worker
                .stdout
                .as_mut()
                .expect("it is piped")
                .read_exact(&mut count)
                .expect("the worker answers");
            u64::from_le_bytes(count)
        });
        counts.sum()
    };
    let two_threads = || -> u64 {
        thread::scope(|scope| {
            let threads = [(); 2].map(|()| scope.spawn(|| seal_for_a_while(&engine)));
            threads
                .into_iter()
                .map(|thread| thread.join().expect("it does not panic"))
                .sum()
        })
    };
    let mut rounds = Vec::new();
    for turn in 0..TURNS {
        let (processes, threads);
        if turn % 2 == 0 {
            processes = two_processes();
            threads = two_threads();
        } else {
            threads = two_threads();
            processes = two_processes();
        }
        // Seals in the same time, so that one seal takes the inverse of it.
        let nanoseconds = |count: u64| 2.0 * SEALING.as_nanos() as f64 / count as f64;
        rounds.push((nanoseconds(threads), nanoseconds(processes)));
    }
    for mut worker in workers {
        drop(worker.stdin.take());
        worker.wait().expect("the worker ends with its input");
    }
    let ratio = median(rounds.iter().map(|(threads, processes)| processes / threads));
    table.line(
        "seals by 2 threads on one engine",
        "by 2 processes",
        format!("{ratio:.3}"),
        "≥ 0.97".into(),
        ratio >= 0.97,
        &rounds,
    );
}
