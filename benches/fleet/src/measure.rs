//! Times operations in turns, so that a change of the machine's speed affects all of them.

use std::time::{Duration, Instant};

/// The times of one operation.
pub(crate) struct Times {
    pub(crate) median: Duration,
}

/// The number of calls in a row. The first call after others finds their data in the caches of the processor, and other
/// threads asleep.
const IN_A_ROW: usize = 20;

/// Calls each operation some times in each round. The order changes from round to round.
pub(crate) fn in_turns<const N: usize>(calls: usize, operations: [&mut dyn FnMut(); N]) -> [Times; N] {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::with_capacity(calls));
    for round in 0..calls / IN_A_ROW {
        for at in 0..N {
            let at = (at + round) % N;
            for _ in 0..IN_A_ROW {
                let begun = Instant::now();
                operations[at]();
                times[at].push(begun.elapsed());
            }
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        let median = times[times.len() / 2];
        Times { median }
    })
}

pub(crate) fn micros(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    format!("{micros:.*} µs", if micros < 100.0 { 1 } else { 0 })
}

pub(crate) fn header() {
    println!("| what | median | against | its median | ratio | bound | |");
    println!("|---|---:|---|---:|---:|---:|---|");
}

/// Prints a line of the table. Returns whether the bound holds.
pub(crate) fn compare(what: &str, time: &Times, against: &str, other: Duration, bound: f64) -> bool {
    let holds = ratio(time.median, other) <= bound;
    line(what, time, against, other, bound, if holds { "holds" } else { "FAILS" });
    holds
}

/// Prints two lines, with a bound for each. The first compares with the goal. The second compares with the work that
/// nobody can leave out. A time that is near this work holds, although the goal may be out of its reach.
pub(crate) fn compare_with_least(
    what: &str,
    time: &Times,
    (against, other): (&str, Duration),
    (least, work): (&str, Duration),
    (goal, near): (f64, f64),
) -> bool {
    let verdict = if ratio(time.median, other) <= goal {
        "holds"
    } else if ratio(time.median, work) <= near {
        "near the least"
    } else {
        "FAILS"
    };
    line(what, time, against, other, goal, verdict);
    compare(what, time, least, work, near) && verdict != "FAILS"
}

fn line(what: &str, time: &Times, against: &str, other: Duration, bound: f64, verdict: &str) {
    println!(
        "| {what} | {} | {against} | {} | {:.2} | ≤ {bound:.2} | {verdict} |",
        micros(time.median),
        micros(other),
        ratio(time.median, other),
    );
}

fn ratio(time: Duration, other: Duration) -> f64 {
    time.as_secs_f64() / other.as_secs_f64()
}
