//! What happens while a pass runs: the progress bar, the state file, and newer keys.

use std::{
    fmt,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

use super::{
    pass::Watch,
    state::{State, StateFile},
};
use crate::{failure::Failure, keyring::AnyKeyring};

pub(crate) struct Progress<'a> {
    bar: ProgressBar,
    file: Option<&'a StateFile>,
    saved: Instant,
    /// The time between two saves.
    pause: Duration,
    keyring: &'a AnyKeyring,
    refreshed: Instant,
}

/// A keyring file is read again this often, so that a rotation during the pass is noticed.
const REFRESH: Duration = Duration::from_secs(10);

/// The shortest time between two saves of the state. A killed sweep repeats what it did since the last one, which
/// changes nothing.
const SAVE: Duration = Duration::from_millis(500);

impl<'a> Progress<'a> {
    /// The bar is shown on a terminal only.
    pub(crate) fn new(json: bool, file: Option<&'a StateFile>, keyring: &'a AnyKeyring) -> Self {
        let shown = !json && io::stderr().is_terminal();
        Self {
            bar: if shown {
                ProgressBar::no_length()
            } else {
                ProgressBar::hidden()
            },
            file,
            saved: Instant::now(),
            pause: SAVE,
            keyring,
            refreshed: Instant::now(),
        }
    }

    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    pub(crate) fn begin(&mut self, total: u64, state: &State) {
        let template = "{bar:30} {human_pos} of {human_len} rows, {rate} rows/s, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, output: &mut dyn fmt::Write| {
                // There is nobody to tell if it fails.
                let _ = write!(output, "{}", HumanCount(state.per_sec() as u64));
            };
            self.bar.set_style(style.with_key("rate", rate));
        }
        // The number of rows is an estimate.
        self.bar.set_length(total.max(state.tally.rows));
        self.bar.set_position(state.tally.rows);
        self.bar.reset_eta();
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Progress<'_> {
    fn done(&mut self, state: &State) -> Result<(), Failure> {
        let rows = state.tally.rows;
        if self.bar.length().is_some_and(|length| length < rows) {
            self.bar.set_length(rows);
        }
        self.bar.set_position(rows);
        if let Some(file) = self.file
            && self.saved.elapsed() >= self.pause
        {
            let begun = Instant::now();
            file.save(state)?;
            self.saved = Instant::now();
            // With many keys a state is long. Saving it takes at most a twentieth of the time.
            self.pause = begun.elapsed().saturating_mul(20).max(SAVE);
        }
        if self.refreshed.elapsed() >= REFRESH {
            // The keys stay as they were if this fails. A call that needs a newer key reports it.
            let _ = self.keyring.refresh();
            self.refreshed = Instant::now();
        }
        Ok(())
    }
}
