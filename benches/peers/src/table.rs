//! An aligned table in Markdown.

use crate::{
    measure::Numbers,
    peer::{Binding, Facts, Row},
};

const HEAD: [&str; 11] = [
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
/// Columns of numbers, aligned to the right.
const NUMBERS: std::ops::RangeInclusive<usize> = 1..=6;

/// The table of `rows`, with ratios to the row at `base`.
pub fn render(rows: &[Row], numbers: &[Option<Numbers>], base: usize) -> String {
    let base = numbers[base].as_ref().expect("the base is measured");
    let lines = rows
        .iter()
        .zip(numbers)
        .map(|(row, numbers)| line(row, numbers.as_ref(), base));
    aligned(
        &std::iter::once(HEAD.map(str::to_owned))
            .chain(lines)
            .collect::<Vec<_>>(),
    )
}

fn line(Row { facts, job }: &Row, numbers: Option<&Numbers>, base: &Numbers) -> [String; HEAD.len()] {
    let mut cells = [const { String::new() }; HEAD.len()];
    cells[0] = peer(facts);
    match (job, numbers) {
        (Ok(job), Some(Numbers { wrap, unwrap })) => {
            cells[1] = format!("{:.0}", wrap.ns());
            cells[2] = ratio(wrap.ratio(&base.wrap));
            cells[3] = format!("{:.0}", unwrap.ns());
            cells[4] = ratio(unwrap.ratio(&base.unwrap));
            cells[5] = format!("{:.0}/{:.0}", wrap.allocs, unwrap.allocs);
            cells[6] = job.wrapped_len.to_string();
            cells[7] = facts.randomness.to_owned();
            cells[8] = facts.nonce.to_owned();
            cells[9] = facts.commitment.to_owned();
            cells[10] = match facts.binding {
                Binding::None => "none",
                Binding::Bytes => "caller's raw bytes as AAD",
                Binding::Map => "canonical map",
            }
            .to_owned();
        }
        (Err(reason), _) => cells[7] = format!("not measured: {reason}"),
        (Ok(_), None) => unreachable!("every job is measured"),
    }
    cells
}

fn ratio(ratio: f64) -> String {
    if ratio < 10.0 {
        format!("{ratio:.2}")
    } else {
        format!("{ratio:.0}")
    }
}

/// The name, with the version after the name of the package.
fn peer(
    Facts {
        name,
        package: (package, begins),
        ..
    }: &Facts,
) -> String {
    name.replacen(package, &format!("{package} {}", version(package, begins)), 1)
}

/// The version in the lock file, so that the table cannot name another than was built.
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
