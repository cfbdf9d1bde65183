//! Durations on the command line.

use std::time::Duration;

/// With at most this many digits a duration is below 2^63 seconds. A longer one overflows: humantime panics on a few of
/// them, and so does the sum of now and such a duration.
const DIGITS: usize = 11;

/// Reads a text like `1h 30m`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if text.chars().filter(char::is_ascii_digit).count() > DIGITS {
        return Err(format!("a time has at most {DIGITS} digits"));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
#[test]
fn no_duration_overflows() {
    assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(90 * 60)));
    assert!(parse("1 hour, or two").is_err());
    assert!(parse("99999999999y").unwrap() < Duration::from_secs(1 << 63));
    assert!(parse("100000000000y").is_err());
    // The seconds are the largest of 64 bits, and the nanoseconds are one more second.
    assert!(parse("18446744073709551615s 1000000000ns").is_err());
}
