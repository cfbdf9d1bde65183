//! One batch of rows: rewraps them and replaces their values.

use std::{thread, time::Duration};

use dekseal::Engine;

use super::{
    rewrap::{Outcome, Rewrap, Sealed},
    row::{Change, Key, Problem, Row, Value},
    state::Tally,
    table::{Replaced, Table},
};
use crate::{failure::Failure, keyring::AnyKeyring};

/// What is done with each batch.
pub(crate) struct Work<'a> {
    pub(crate) engine: &'a Engine<AnyKeyring>,
    pub(crate) rewrap: Rewrap<'a, AnyKeyring>,
    /// Counts the versions that values are under, and writes nothing.
    pub(crate) dry_run: bool,
}

/// What was done with a batch.
pub(crate) struct Batch {
    pub(crate) last: Key,
    pub(crate) tally: Tally,
}

/// A row that is to get a new value.
struct Renewed {
    row: Row,
    to: Sealed,
    value: Value,
}

/// How often a row is tried that others change or hold locked, and the longest pause between two attempts. All attempts
/// together take some 10 seconds.
const ATTEMPTS: u32 = 18;
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Work<'_> {
    /// Rewraps `rows`. The failure is one of the keyring or of the database.
    pub(crate) fn batch(&self, table: &mut dyn Table, mut rows: Vec<Row>) -> Result<Batch, Failure> {
        let mut tally = Tally {
            rows: rows.len() as u64,
            ..Tally::default()
        };
        let last = rows.last().map(|row| row.key.clone()).unwrap_or_default();
        let mut pause = Duration::from_millis(1);
        for attempt in 1..=ATTEMPTS {
            let refresh = || {
                // The error of the row is the one to report.
                let _ = self.engine.keyring().refresh();
            };
            let outcomes = self.rewrap.rows(&rows, &refresh)?;
            let renewed = self.take(rows, outcomes, &mut tally);
            let lost = replace_all(table, renewed, &mut tally)?;
            if lost.is_empty() {
                break;
            }
            if attempt == ATTEMPTS {
                for key in &lost {
                    let problem = "other transactions keep the row locked, or keep changing it, or a trigger undoes \
                                   the change";
                    tally.fail(key, &Problem::new(problem));
                }
                break;
            }
            thread::sleep(pause);
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            rows = table.again(&lost)?;
            let gone = lost.len().saturating_sub(rows.len()) as u64;
            tally.gone = tally.gone.saturating_add(gone);
        }
        Ok(Batch { last, tally })
    }

    /// Counts the rows that are done, and returns the others.
    fn take(&self, rows: Vec<Row>, outcomes: Vec<Outcome>, tally: &mut Tally) -> Vec<Renewed> {
        let mut renewed = Vec::new();
        for (row, outcome) in rows.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Null => tally.null = tally.null.saturating_add(1),
                Outcome::OtherKey => tally.other_keys = tally.other_keys.saturating_add(1),
                Outcome::Current(sealed) => {
                    tally.current = tally.current.saturating_add(1);
                    tally.count(sealed);
                }
                Outcome::Renewed { from, .. } if self.dry_run => {
                    tally.rewrapped = tally.rewrapped.saturating_add(1);
                    tally.count(from);
                }
                Outcome::Renewed { to, value, .. } => renewed.push(Renewed { row, to, value }),
                Outcome::Failed(problem) => tally.fail(&row.key, &problem),
            }
        }
        renewed
    }
}

/// Replaces the values of rows. Returns the keys of those that no longer had the old value, or were locked.
///
/// If the database refuses the rows together, they are tried in halves, so that only the row that it refuses fails.
fn replace_all(table: &mut dyn Table, renewed: Vec<Renewed>, tally: &mut Tally) -> Result<Vec<Key>, Failure> {
    let mut lost = Vec::new();
    let mut parts = vec![renewed.as_slice()];
    while let Some(part) = parts.pop() {
        let Some((first, others)) = part.split_first() else {
            continue;
        };
        let changes: Vec<_> = part.iter().map(Renewed::change).collect();
        match table.replace(&changes)? {
            Replaced::Done(done) => {
                for (renewed, done) in part.iter().zip(done) {
                    if done {
                        tally.rewrapped = tally.rewrapped.saturating_add(1);
                        tally.count(renewed.to);
                    } else {
                        lost.push(renewed.row.key.clone());
                    }
                }
            }
            Replaced::Refused(message) if others.is_empty() => tally.fail(&first.row.key, &Problem::new(message)),
            Replaced::Refused(_) => {
                let (one, other) = part.split_at(part.len() / 2);
                parts.extend([other, one]);
            }
        }
    }
    Ok(lost)
}

impl Renewed {
    fn change(&self) -> Change<'_> {
        Change {
            key: &self.row.key,
            old: &self.row.value,
            new: self.value.clone(),
        }
    }
}
