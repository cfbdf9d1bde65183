//! One pass over a table: one thread reads, others rewrap and write, and this one records the progress.

use std::{
    collections::BTreeMap,
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    batch::{Batch, Work},
    row::{Key, Row},
    state::State,
    table::{Source, Table},
};
use crate::failure::Failure;

/// How a pass goes over the table.
pub(crate) struct Pace {
    /// Rows in one transaction.
    pub(crate) batch: NonZero<u32>,
    /// Threads that rewrap and write.
    pub(crate) jobs: NonZero<u32>,
    /// The most rows in a second.
    pub(crate) rate: Option<NonZero<u32>>,
}

/// What is told while the pass runs.
pub(crate) trait Watch {
    /// Some more rows are done. Returning an error ends the pass.
    fn done(&mut self, state: &State) -> Result<(), Failure>;
}

/// Whether the pass went over all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Complete,
    Stopped,
}

/// A message to the thread that records the progress: a batch and its number.
type Report = Result<(u64, Batch), Failure>;

/// Goes over the table from where `state` says, until the end or until `stop`.
///
/// `state` always says what is done up to its key: batches that end before an earlier one are held back. On an error
/// it is still right.
pub(crate) fn run(
    source: &Source,
    work: &Work<'_>,
    pace: &Pace,
    state: &mut State,
    stop: &AtomicBool,
    watch: &mut dyn Watch,
) -> Result<Ended, Failure> {
    let halt = AtomicBool::new(false);
    let stopped = || stop.load(Ordering::Relaxed) || halt.load(Ordering::Relaxed);
    let (reports, reported) = channel();
    // Few batches wait, so that little time passes between reading a row and replacing its value.
    let (batches, waiting) = sync_channel(1);
    // It is gone when the last writer is, so that the reader never waits for nobody.
    let waiting = Arc::new(Mutex::new(waiting));
    let after = state.after.clone();
    thread::scope(|scope| {
        for _ in 0..pace.jobs.get() {
            let reports = reports.clone();
            let waiting = waiting.clone();
            scope.spawn(move || write(source, work, &waiting, &reports));
        }
        let reader_reports = reports.clone();
        let stopped = &stopped;
        let reader = scope.spawn(move || {
            let read = source
                .connect()
                .and_then(|table| read(table, pace, after, &batches, stopped));
            // Without the receiver the pass has failed already.
            read.unwrap_or_else(|failure| {
                let _ = reader_reports.send(Err(failure));
                Ended::Stopped
            })
        });
        drop((reports, waiting));
        let recorded = record(&reported, state, &halt, watch);
        let ended = reader.join().unwrap_or(Ended::Stopped);
        recorded.map(|()| ended)
    })
}

/// Reads the rows in the order of their keys.
fn read(
    mut table: Box<dyn Table>,
    pace: &Pace,
    mut after: Option<Key>,
    batches: &SyncSender<(u64, Vec<Row>)>,
    stopped: &dyn Fn() -> bool,
) -> Result<Ended, Failure> {
    let batch = pace.rate.map_or(pace.batch, |rate| pace.batch.min(rate)).get();
    let begun = Instant::now();
    let mut rows_read: u64 = 0;
    for number in 0.. {
        if let Some(rate) = pace.rate {
            let due = Duration::from_secs_f64(rows_read as f64 / f64::from(rate.get()));
            while !stopped() && begun.elapsed() < due {
                thread::sleep(due.saturating_sub(begun.elapsed()).min(Duration::from_millis(100)));
            }
        }
        if stopped() {
            return Ok(Ended::Stopped);
        }
        let rows = table.page(after.as_ref(), batch)?;
        let Some(last) = rows.last() else {
            break;
        };
        after = Some(last.key.clone());
        rows_read = rows_read.saturating_add(rows.len() as u64);
        if batches.send((number, rows)).is_err() {
            return Ok(Ended::Stopped);
        }
    }
    Ok(Ended::Complete)
}

/// Rewraps and writes batches until there are no more.
fn write(source: &Source, work: &Work<'_>, waiting: &Mutex<Receiver<(u64, Vec<Row>)>>, reports: &Sender<Report>) {
    let mut table = match source.connect() {
        Ok(table) => table,
        Err(failure) => {
            let _ = reports.send(Err(failure));
            return;
        }
    };
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, rows)) = next else { return };
        let done = work.batch(table.as_mut(), rows).map(|batch| (number, batch));
        let failed = done.is_err();
        if reports.send(done).is_err() || failed {
            return;
        }
    }
}

/// Records the batches that are done, in order. After a failure the other threads come to an end, and their last
/// batches are recorded too.
fn record(
    reported: &Receiver<Report>,
    state: &mut State,
    halt: &AtomicBool,
    watch: &mut dyn Watch,
) -> Result<(), Failure> {
    let mut failed = None;
    let mut early = BTreeMap::new();
    let mut next: u64 = 0;
    for report in reported {
        let recorded = report.and_then(|(number, batch)| {
            early.insert(number, batch);
            while let Some(batch) = early.remove(&next) {
                next = next.saturating_add(1);
                state.after = Some(batch.last);
                state.tally.add(batch.tally);
            }
            watch.done(state)
        });
        if let Err(failure) = recorded {
            halt.store(true, Ordering::Relaxed);
            failed.get_or_insert(failure);
        }
    }
    failed.map_or(Ok(()), Err)
}
