//! Measures in rounds of short batches, with every row in every round.

use std::time::{Duration, Instant};

use crate::{
    alloc,
    peer::{Job, Row},
};

/// Long enough for the clock, and short enough that the machine does not change during a round of all rows.
const BATCH: Duration = Duration::from_millis(2);

/// One direction of one row.
pub struct Direction {
    /// Nanoseconds per call, one number for each round.
    pub rounds: Vec<f64>,
    /// Allocations and reallocations per call.
    pub allocs: f64,
    batch: u64,
}

pub struct Numbers {
    pub there: Direction,
    pub back: Direction,
}

/// The numbers of each row, or `None` if the row has no job to measure. Allocations are counted over `counted` calls.
pub fn all<F>(rows: &[Row<F>], rounds: usize, counted: u64) -> Vec<Option<Numbers>> {
    let calibrated = |row: &Row<F>| row.job.as_ref().ok().map(|job| Numbers::calibrated(job, counted));
    let mut numbers: Vec<_> = rows.iter().map(calibrated).collect();
    for round in 0..rounds {
        for turn in 0..rows.len() {
            // Each round begins with another row, so that no row always follows the same one.
            let at = (round + turn) % rows.len();
            if let (Ok(job), Some(numbers)) = (&rows[at].job, &mut numbers[at]) {
                numbers.there.measure(&job.there);
                numbers.back.measure(&job.back);
            }
        }
    }
    numbers
}

/// The median of nanoseconds per call of `f` alone.
pub fn alone(rounds: usize, f: impl Fn()) -> f64 {
    let repeat = |times| (0..times).for_each(|_| f());
    let mut direction = Direction::calibrated(&repeat, 1);
    (0..rounds).for_each(|_| direction.measure(&repeat));
    median(direction.rounds)
}

impl Numbers {
    fn calibrated(job: &Job, counted: u64) -> Self {
        Self {
            there: Direction::calibrated(&job.there, counted),
            back: Direction::calibrated(&job.back, counted),
        }
    }
}

impl Direction {
    fn calibrated(repeat: &dyn Fn(u64), counted: u64) -> Self {
        let mut batch = 1;
        // The shortest of three, so that one interruption does not make the batch too short.
        while (0..3).map(|_| time(repeat, batch)).min() < Some(BATCH) {
            batch *= 2;
        }
        let allocs = alloc::calls(|| repeat(counted)) as f64 / counted as f64;
        Self {
            rounds: Vec::new(),
            allocs,
            batch,
        }
    }

    fn measure(&mut self, repeat: &dyn Fn(u64)) {
        let took = time(repeat, self.batch);
        self.rounds.push(took.as_nanos() as f64 / self.batch as f64);
    }

    pub fn ns(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// The ratio of its time to that of `base`: the median over rounds of the ratio within a round, in which both ran
    /// on the same machine state.
    pub fn ratio(&self, base: &Self) -> f64 {
        median(
            self.rounds
                .iter()
                .zip(&base.rounds)
                .map(|(own, base)| own / base)
                .collect(),
        )
    }
}

fn time(repeat: &dyn Fn(u64), times: u64) -> Duration {
    let start = Instant::now();
    repeat(times);
    start.elapsed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 {
        values[half]
    } else {
        f64::midpoint(values[half - 1], values[half])
    }
}
