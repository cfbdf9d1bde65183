//! Times pairs of functions in turns, and prints the table of their ratios.

use std::{
    env,
    hint::black_box,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::common::{least::Least, processor::processor};

/// The argument for a process that measures once and prints a record for each line.
pub(crate) const ONCE: &str = "--once";

/// The argument that names another program to measure with the others.
pub(crate) const BESIDE: &str = "--beside=";

/// An odd number, so that there is a median.
const PROCESSES: usize = 7;
const ROUNDS: usize = 151;
/// The time that each side runs in a round.
const BATCH: Duration = Duration::from_micros(300);
/// A ratio that exceeds its bound must be within this many times that of the least work.
const NEAR: f64 = 1.08;
/// The maximum time of all rounds. If one call takes longer than a batch, there are fewer rounds.
const ALL_ROUNDS: Duration = Duration::from_millis(300);

/// A line of the table, as measured by one process.
#[derive(Serialize, Deserialize)]
struct Line {
    what: String,
    against: String,
    bound: Bound,
    /// The value to compare with the bound.
    value: f64,
    /// The value of the least work, if it was measured.
    least: Option<f64>,
    /// The nanoseconds for one call of each side.
    sides: (f64, f64),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Bound {
    /// `a` takes at most this many times as long as `b`.
    TimesAsLong(f64),
    /// `a` is at least this many times as fast as `b`.
    TimesAsFast(f64),
    /// `a` takes at most this many nanoseconds more than `b`.
    NanosecondsMore(f64),
}

impl Bound {
    fn value(self, a: f64, b: f64) -> f64 {
        match self {
            Self::TimesAsLong(_) => a / b,
            Self::TimesAsFast(_) => b / a,
            Self::NanosecondsMore(_) => a - b,
        }
    }

    fn holds(self, value: f64) -> bool {
        match self {
            Self::TimesAsLong(bound) | Self::NanosecondsMore(bound) => value <= bound,
            Self::TimesAsFast(bound) => value >= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::TimesAsLong(bound) => format!("≤ {bound:.2}"),
            Self::TimesAsFast(bound) => format!("≥ {bound:.2}"),
            Self::NanosecondsMore(bound) => format!("≤ +{bound:.0} ns"),
        }
    }

    fn value_text(self, value: f64) -> String {
        match self {
            Self::TimesAsLong(_) | Self::TimesAsFast(_) => format!("{value:.3}"),
            Self::NanosecondsMore(_) => format!("+{value:.0} ns"),
        }
    }
}

/// The output of this process: one record for each line.
pub(crate) struct Lines;

impl Lines {
    /// Measures `a` and `b` in turns.
    pub(crate) fn compare<A, B>(
        &mut self,
        bound: Bound,
        what: &str,
        mut a: impl FnMut() -> A,
        against: &str,
        mut b: impl FnMut() -> B,
    ) {
        let (count_a, count_b) = (calibrate(&mut a), calibrate(&mut b));
        let rounds = rounds(|round| in_turns(round, || time(round, count_a, &mut a), || time(round, count_b, &mut b)));
        self.line(bound, what, against, &rounds);
    }

    /// [`compare`](Self::compare) with a bound for [`Bound::TimesAsLong`] that may be out of reach of a processor. A
    /// ratio above it has to be [`NEAR`] that of the least work of both sides, which no implementation can leave out.
    /// Without a least of `b`, `b` itself stands for it.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn compare_with_least<A, B>(
        &mut self,
        bound: f64,
        what: &str,
        mut a: impl FnMut() -> A,
        against: &str,
        mut b: impl FnMut() -> B,
        least: &mut Least,
        least_a: fn(&mut Least),
        least_b: Option<fn(&mut Least)>,
    ) {
        let bound = Bound::TimesAsLong(bound);
        let (count_a, count_b) = (calibrate(&mut a), calibrate(&mut b));
        let count_least = calibrate(&mut || least_a(least));
        let rounds = rounds(|round| {
            let sides = in_turns(round, || time(round, count_a, &mut a), || time(round, count_b, &mut b));
            let a = time(round, count_least, &mut || least_a(least));
            let b = least_b.map_or(sides.1, |least_b| time(round, count_least, &mut || least_b(least)));
            (sides, bound.value(a, b))
        });
        let (sides, least): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
        print(&Line {
            least: Some(median(least.into_iter())),
            ..Line::of(bound, what, against, &sides)
        });
    }

    /// Prints a line for nanoseconds that were measured in pairs.
    pub(crate) fn line(&mut self, bound: Bound, what: &str, against: &str, rounds: &[(f64, f64)]) {
        print(&Line::of(bound, what, against, rounds));
    }
}

impl Line {
    fn of(bound: Bound, what: &str, against: &str, rounds: &[(f64, f64)]) -> Self {
        Self {
            what: what.into(),
            against: against.into(),
            bound,
            value: median(rounds.iter().map(|(a, b)| bound.value(*a, *b))),
            least: None,
            sides: (
                median(rounds.iter().map(|(a, _)| *a)),
                median(rounds.iter().map(|(_, b)| *b)),
            ),
        }
    }
}

fn print(line: &Line) {
    println!("{}", serde_json::to_string(line).expect("numbers and text"));
}

/// Measures in rounds until there are enough of them or the time is over.
fn rounds<T>(mut measure: impl FnMut(usize) -> T) -> Vec<T> {
    let mut rounds = Vec::new();
    let start = Instant::now();
    while rounds.len() < ROUNDS && (rounds.len() < 5 || start.elapsed() < ALL_ROUNDS) {
        rounds.push(measure(rounds.len()));
    }
    rounds
}

/// Runs both, in an order that changes from round to round.
pub(crate) fn in_turns<A, B>(round: usize, a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
    if round.is_multiple_of(2) {
        let a = a();
        (a, b())
    } else {
        let b = b();
        (a(), b)
    }
}

/// Measures in several processes, one after the other, and prints the table.
pub(crate) fn in_several_processes(parts: &[String]) -> ExitCode {
    let program = env::current_exe().expect("this program has a path");
    println!("{}\n", processor());
    let runs: Vec<Vec<Line>> = (0..PROCESSES).map(|_| one_process(&program, parts)).collect();
    println!("| what | against | in the middle | lowest | highest | bound | | one call | of the other |");
    println!("|---|---|---:|---:|---:|---:|---|---:|---:|");
    let mut holds = true;
    for at in 0..runs[0].len() {
        let lines = || runs.iter().map(|lines| &lines[at]);
        let Line {
            what, against, bound, ..
        } = &runs[0][at];
        let values = sorted(lines().map(|line| line.value));
        let middle = values[values.len() / 2];
        let least = runs[0][at].least.map(|_| median(lines().filter_map(|line| line.least)));
        let (verdict, well) = match least {
            _ if bound.holds(middle) => ("holds".into(), true),
            Some(least) if middle <= NEAR * least => (format!("near the least, which is {least:.3}"), true),
            Some(least) => (format!("FAILS: the least is {least:.3}"), false),
            None => ("FAILS".into(), false),
        };
        println!(
            "| {what} | {against} | {} | {} | {} | {} | {verdict} | {} | {} |",
            bound.value_text(middle),
            bound.value_text(values[0]),
            bound.value_text(values[values.len() - 1]),
            bound.text(),
            duration(median(lines().map(|line| line.sides.0))),
            duration(median(lines().map(|line| line.sides.1))),
        );
        holds &= well;
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The most that one call may take, compared with the first program, or a payload compared with the crate's cipher.
const SLOWER: f64 = 1.15;
/// The fastest of this many processes counts.
const PROCESSES_BESIDE: usize = 5;

/// Prints the time of one call in each of these programs. They are this program, built with other flags, and run in
/// turns. Fails if one is slow.
pub(crate) fn beside_one_another(programs: &[&str], parts: &[String]) -> ExitCode {
    let mut runs: Vec<Vec<Vec<Line>>> = programs.iter().map(|_| Vec::new()).collect();
    for _ in 0..PROCESSES_BESIDE {
        for (program, runs) in programs.iter().zip(&mut runs) {
            runs.push(one_process(program.as_ref(), parts));
        }
    }
    let mut holds = true;
    for at in 0..runs[0][0].len() {
        let fastest = |runs: &Vec<Vec<Line>>| runs.iter().map(|lines| lines[at].sides.0).fold(f64::MAX, f64::min);
        let value = |runs: &Vec<Vec<Line>>| median(runs.iter().map(|lines| lines[at].value));
        let first = fastest(&runs[0]);
        let Line { what, bound, .. } = &runs[0][0][at];
        print!("| {what} ");
        for runs in &runs {
            let time = fastest(runs);
            // Payloads are bounded by the speed of the cipher's crate. If a build slows the crate down, this cannot be
            // made good here.
            let as_the_crate = || matches!(bound, Bound::TimesAsFast(_)) && SLOWER * value(runs) >= 1.0;
            let verdict = if time <= SLOWER * first {
                ""
            } else if as_the_crate() {
                " (as the crate)"
            } else {
                holds = false;
                " FAILS"
            };
            print!("| {}{verdict} ", duration(time));
        }
        println!("|");
    }
    println!("\n(as the crate): AES-256-GCM of the crate alone is as slow in this build");
    println!("\n{}", processor());
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one_process(program: &Path, parts: &[String]) -> Vec<Line> {
    let mut command = Command::new(program);
    let command = command.arg(ONCE).args(parts).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it can be started again");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let lines = output
        .lines()
        .map(|line| serde_json::from_str(&line.expect("text")).expect("a record"))
        .collect();
    assert!(child.wait().expect("it was started").success(), "a process failed");
    lines
}

fn duration(nanoseconds: f64) -> String {
    if nanoseconds < 100_000.0 {
        format!("{nanoseconds:.0} ns")
    } else {
        format!("{:.0} µs", nanoseconds / 1000.0)
    }
}

/// The number of calls that take about `BATCH`.
fn calibrate<T>(f: &mut impl FnMut() -> T) -> u32 {
    let mut count = 1;
    while time(0, count, f) * f64::from(count) < BATCH.as_nanos() as f64 {
        count *= 2;
    }
    count
}

/// The nanoseconds for one call, at a place of the stack that depends on the round.
fn time<T>(round: usize, count: u32, f: &mut impl FnMut() -> T) -> f64 {
    deeper(round, &mut || {
        let start = Instant::now();
        for _ in 0..count {
            // By reference, because passing the value would copy it.
            black_box(&call(f));
        }
        start.elapsed().as_nanos() as f64 / f64::from(count)
    })
}

/// Runs `f` below as many frames of this function. Their length is 16 times an odd number, with the compilers that were
/// tried, so that the rounds are spread over all places of a page that the stack can have.
#[inline(never)]
fn deeper(frames: usize, f: &mut dyn FnMut() -> f64) -> f64 {
    let room = [0_u8; 536];
    let result = if frames == 0 { f() } else { deeper(frames - 1, f) };
    black_box(&room);
    result
}

/// Calls `f` as a service would. If a primitive were inlined into a loop, the compiler would move its constant work out
/// of the loop.
#[inline(never)]
fn call<T>(f: &mut impl FnMut() -> T) -> T {
    f()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let values = sorted(values);
    values[values.len() / 2]
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
