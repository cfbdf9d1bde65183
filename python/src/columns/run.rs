//! Works on the rows of a column on several threads.

use std::{
    num::NonZero,
    ops::Range,
    sync::{Mutex, PoisonError},
    thread,
};

use super::contexts::Refused;
use crate::errors::names;

/// The rows that a thread takes at a time.
const PIECE: usize = 512;

/// What a row that failed has in place of a value.
pub(super) struct Failure {
    pub(super) kind: String,
    pub(super) text: String,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Null(text) => Self {
                kind: "Context".into(),
                text: text.into(),
            },
            Refused::Dekseal(error) => Self {
                kind: names(error.kind()).0,
                text: error.to_string(),
            },
        }
    }
}

/// The result of a row.
pub(super) enum Outcome<T> {
    Null,
    Done(T),
    /// Boxed, because most rows do not fail.
    Failed(Box<Failure>),
}

/// The bytes that the rows result in, one after another.
pub(super) struct Output {
    /// Where each row begins, and where the last one ends.
    pub(super) offsets: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

/// A part of the rows, and where their results go.
struct Piece<'a, T> {
    rows: Range<usize>,
    bytes: &'a mut [u8],
    outcomes: &'a mut [Outcome<T>],
}

/// The number of threads that work if the caller asks for `asked`.
fn threads(asked: Option<usize>, rows: usize) -> usize {
    let threads = asked.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
    threads.clamp(1, rows.div_ceil(PIECE).max(1))
}

/// Calls `f` for each row, with room for its bytes, whose length `length` tells.
pub(super) fn run<T: Send>(
    rows: usize,
    asked: Option<usize>,
    length: impl Fn(usize) -> usize,
    f: impl Sync + Fn(usize, &mut [u8]) -> Outcome<T>,
) -> Result<(Output, Vec<Outcome<T>>), std::collections::TryReserveError> {
    let mut offsets = Vec::new();
    offsets.try_reserve_exact(rows.saturating_add(1))?;
    let mut end: usize = 0;
    offsets.push(end);
    offsets.extend((0..rows).map(|row| {
        end = end.saturating_add(length(row));
        end
    }));
    // An error if there is no memory. Then zeroed memory of the system, which is not touched before its row.
    Vec::<u8>::new().try_reserve_exact(end)?;
    let mut bytes = vec![0; end];
    let mut outcomes = Vec::new();
    outcomes.try_reserve_exact(rows)?;
    outcomes.resize_with(rows, || Outcome::Null);

    let pieces = Mutex::new(Cut {
        offsets: &offsets,
        next: 0,
        bytes: &mut bytes,
        outcomes: &mut outcomes,
    });
    let work = || {
        loop {
            let piece = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(Piece {
                rows,
                mut bytes,
                outcomes,
            }) = piece
            else {
                return;
            };
            for (row, outcome) in rows.zip(outcomes) {
                let length = offsets.get(row.saturating_add(1)).zip(offsets.get(row));
                let length = length.map_or(0, |(end, start)| end.saturating_sub(*start));
                let Some((own, rest)) = bytes.split_at_mut_checked(length) else {
                    return;
                };
                *outcome = f(row, own);
                bytes = rest;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads(asked, rows) {
            // If the system has no thread left, the others do its work.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    Ok((Output { offsets, bytes }, outcomes))
}

/// Cuts the rows into pieces.
struct Cut<'a, T> {
    offsets: &'a [usize],
    next: usize,
    bytes: &'a mut [u8],
    outcomes: &'a mut [Outcome<T>],
}

impl<'a, T> Iterator for Cut<'a, T> {
    type Item = Piece<'a, T>;

    fn next(&mut self) -> Option<Piece<'a, T>> {
        let count = self.outcomes.len().min(PIECE);
        let first = self.next;
        let end = first.saturating_add(count);
        let length = self.offsets.get(end)?.saturating_sub(*self.offsets.get(first)?);
        if count == 0 {
            return None;
        }
        let (bytes, rest) = std::mem::take(&mut self.bytes).split_at_mut_checked(length)?;
        self.bytes = rest;
        let (outcomes, rest) = std::mem::take(&mut self.outcomes).split_at_mut_checked(count)?;
        self.outcomes = rest;
        self.next = end;
        Some(Piece {
            rows: first..end,
            bytes,
            outcomes,
        })
    }
}
