//! Times operations in turns, so that a change of the machine's speed meets all of them.

use std::{
    fs,
    time::{Duration, Instant},
};

/// The name of the processor.
pub(crate) fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name"));
    name.map_or("unknown processor", |name| name.trim_start_matches(['\t', ' ', ':']))
        .to_owned()
}

/// The memory of this process that is resident, in bytes.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kibibytes
        .and_then(|number| number.trim().parse::<u64>().ok())
        .expect("a size")
        * 1024
}

/// The middle of the times of each operation, in rounds in which each is called once.
pub(crate) fn in_turns<const N: usize>(rounds: usize, mut operations: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for _ in 0..rounds {
        for (operation, times) in operations.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            operation();
            times.push(begun.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

pub(crate) fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}

/// A line of a table, and whether its bound holds.
pub(crate) fn compare(what: &str, time: Duration, against: &str, other: Duration, bound: f64) -> bool {
    let ratio = time.as_secs_f64() / other.as_secs_f64();
    let holds = ratio <= bound;
    println!(
        "| {what} | {} | {against} | {} | {ratio:.2} | ≤ {bound:.2} | {} |",
        micros(time),
        micros(other),
        if holds { "holds" } else { "FAILS" }
    );
    holds
}

pub(crate) fn header() {
    println!("| what | one call | against | one call | ratio | bound | |");
    println!("|---|---:|---|---:|---:|---:|---|");
}
