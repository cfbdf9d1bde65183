//! Progress bars on standard error, if it is a terminal.

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// Shorter work is done before a bar is of use.
const LARGE: u64 = 16 << 20;

/// A bar for `total` bytes, or a count of bytes if the total is not known.
pub(crate) fn bytes(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) if total < LARGE => return ProgressBar::hidden(),
        Some(total) => (
            ProgressBar::new(total),
            "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::no_length(), "{spinner} {bytes}, {bytes_per_sec}"),
    };
    // The templates are correct, and a wrong one would only look different.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_finish(ProgressFinish::AndClear)
}
