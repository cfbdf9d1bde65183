//! Makes an aligned table in Markdown.

use crate::{
    measure::{Direction, Numbers},
    payload::{PLAINTEXT_LEN, PayloadFacts, Truncation},
    peer::{Binding, Facts, Row},
};

const KEYS: [&str; 11] = [
    "peer",
    "create+wrap ns",
    "ratio",
    "unwrap ns",
    "ratio",
    "allocs (wrap/unwrap)",
    "bytes",
    "randomness",
    "nonce",
    "commitment",
    "context binding",
];
const RECORDS: [&str; 11] = [
    "peer",
    "encrypt ns",
    "ratio",
    "decrypt ns",
    "ratio",
    "allocs (encrypt/decrypt)",
    "bytes",
    "randomness",
    "nonce",
    "commitment",
    "context binding",
];
const PAYLOADS: [&str; 13] = [
    "peer",
    "encrypt MB/s",
    "ratio",
    "decrypt MB/s",
    "ratio",
    "allocs (encrypt/decrypt)",
    "bytes added",
    "AEAD",
    "segment",
    "truncation detected",
    "random access",
    "key commitment",
    "context binding",
];
/// The columns of numbers in both tables, which are aligned to the right.
const NUMBERS: std::ops::RangeInclusive<usize> = 1..=6;

/// The table of keys, with ratios to the row at `base`.
pub fn keys(rows: &[Row<Facts>], numbers: &[Option<Numbers>], base: usize) -> String {
    small(KEYS, rows, numbers, base)
}

/// The table of records, with ratios to the row at `base`.
pub fn records(rows: &[Row<Facts>], numbers: &[Option<Numbers>], base: usize) -> String {
    small(RECORDS, rows, numbers, base)
}

fn small(head: [&str; 11], rows: &[Row<Facts>], numbers: &[Option<Numbers>], base: usize) -> String {
    render(head, rows, numbers, base, |facts, measured| {
        let mut cells = named(facts.name, facts.package);
        match measured {
            Ok(Measured { len, own, base }) => {
                cells[1] = format!("{:.0}", own.there.ns());
                cells[2] = ratio(own.there.ratio(&base.there));
                cells[3] = format!("{:.0}", own.back.ns());
                cells[4] = ratio(own.back.ratio(&base.back));
                cells[5] = allocs(own);
                cells[6] = len.to_string();
                cells[7] = facts.randomness.to_owned();
                cells[8] = facts.nonce.to_owned();
                cells[9] = facts.commitment.to_owned();
                cells[10] = binding(facts.binding);
            }
            Err(reason) => cells[7] = not_measured(reason),
        }
        cells
    })
}

/// The table of payloads, with ratios to the row at `base`.
pub fn payloads(rows: &[Row<PayloadFacts>], numbers: &[Option<Numbers>], base: usize) -> String {
    render(PAYLOADS, rows, numbers, base, |facts, measured| {
        let mut cells = named(facts.name, facts.package);
        match measured {
            Ok(Measured { len, own, base }) => {
                cells[1] = rate(&own.there);
                cells[2] = ratio(own.there.ratio(&base.there));
                cells[3] = rate(&own.back);
                cells[4] = ratio(own.back.ratio(&base.back));
                cells[5] = allocs(own);
                cells[6] = (len - PLAINTEXT_LEN).to_string();
                cells[7] = facts.aead.to_owned();
                cells[8] = facts.segment.to_owned();
                cells[9] = match facts.truncation {
                    Truncation::Detected => "yes".to_owned(),
                    Truncation::Missed(place) => format!("yes, except {place}"),
                };
                cells[10] = facts.random_access.to_owned();
                cells[11] = facts.commitment.to_owned();
                cells[12] = binding(facts.binding);
            }
            Err(reason) => cells[7] = not_measured(reason),
        }
        cells
    })
}

struct Measured<'a> {
    len: usize,
    own: &'a Numbers,
    base: &'a Numbers,
}

fn render<F, const N: usize>(
    head: [&str; N],
    rows: &[Row<F>],
    numbers: &[Option<Numbers>],
    base: usize,
    line: impl Fn(&F, Result<Measured, &str>) -> [String; N],
) -> String {
    let base = numbers[base].as_ref().expect("the base is measured");
    let lines = rows.iter().zip(numbers).map(|(Row { facts, job }, own)| {
        let measured = job.as_ref().map_err(|reason| *reason).map(|job| Measured {
            len: job.len,
            own: own.as_ref().expect("every job is measured"),
            base,
        });
        line(facts, measured)
    });
    aligned(
        &std::iter::once(head.map(str::to_owned))
            .chain(lines)
            .collect::<Vec<_>>(),
    )
}

/// A line that contains only the name.
fn named<const N: usize>(name: &str, package: (&str, &str)) -> [String; N] {
    let mut cells = [const { String::new() }; N];
    cells[0] = peer(name, package);
    cells
}

fn not_measured(reason: &str) -> String {
    format!("not measured: {reason}")
}

fn allocs(Numbers { there, back }: &Numbers) -> String {
    format!("{:.0}/{:.0}", there.allocs, back.allocs)
}

/// Megabytes of 10^6 bytes per second.
fn rate(direction: &Direction) -> String {
    format!("{:.0}", PLAINTEXT_LEN as f64 / direction.ns() * 1e3)
}

fn binding(binding: Binding) -> String {
    match binding {
        Binding::None => "none",
        Binding::Bytes => "caller's raw bytes as AAD",
        Binding::Map => "canonical map",
    }
    .to_owned()
}

fn ratio(ratio: f64) -> String {
    if ratio < 10.0 {
        format!("{ratio:.2}")
    } else {
        format!("{ratio:.0}")
    }
}

/// The name, with the version after the name of the package.
fn peer(name: &str, (package, begins): (&str, &str)) -> String {
    name.replacen(package, &format!("{package} {}", version(package, begins)), 1)
}

/// The version in the lock file, so that the table names the version that was built.
fn version(package: &str, begins: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    lock.split("[[package]]")
        .filter_map(|entry| {
            let mut lines = entry.trim_start().lines();
            let name = lines.next()?.strip_prefix("name = \"")?.strip_suffix('"')?;
            let version = lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')?;
            (name == package && version.starts_with(begins)).then(|| version.to_owned())
        })
        .next()
        .unwrap_or_default()
}

fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or_default()
            .max(3)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut table = String::new();
    for (at, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            table += &if NUMBERS.contains(&column) {
                format!("| {cell:>width$} ")
            } else {
                format!("| {cell:width$} ")
            };
        }
        table += "|\n";
        if at == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                table += &if NUMBERS.contains(&column) {
                    format!("|{dashes}:")
                } else {
                    format!("|-{dashes}")
                };
            }
            table += "|\n";
        }
    }
    table
}
