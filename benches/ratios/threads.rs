//! Compares threads of one process with processes.

use std::{
    env,
    hint::black_box,
    io::{Read, Write},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use dekseal::MemoryKeyring;

use crate::{
    common::{context, dek, engine, key_id},
    measure::{Bound, Lines, in_turns},
};

/// The argument that makes this program a worker process.
pub(crate) const WORKER: &str = "--worker";
/// The time that threads and processes seal, and the number of repetitions.
const SEALING: Duration = Duration::from_millis(20);
const TURNS: usize = 31;

/// Seals for some time whenever it reads a byte, and answers with the number of seals.
pub(crate) fn worker() -> ExitCode {
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

/// Compares two threads on one engine with two processes, in turns.
pub(crate) fn threads(lines: &mut Lines) {
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
        let (threads, processes) = in_turns(turn, two_threads, &mut two_processes);
        // These are seals in the same time, so one seal takes the inverse.
        let nanoseconds = |count: u64| 2.0 * SEALING.as_nanos() as f64 / count as f64;
        rounds.push((nanoseconds(threads), nanoseconds(processes)));
    }
    for mut worker in workers {
        drop(worker.stdin.take());
        worker.wait().expect("the worker ends with its input");
    }
    lines.line(
        Bound::TimesAsFast(0.97),
        "seals by 2 threads on one engine",
        "by 2 processes",
        &rounds,
    );
}
