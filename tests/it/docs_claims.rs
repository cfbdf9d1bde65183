//! docs/CLAIMS.md has a line for each claim of README.md and SECURITY.md, and no line for anything else.

use std::{collections::BTreeSet, fs, path::Path};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Text on one line, with single spaces, and with the text of each link in its place.
fn on_one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = text.split("](");
    let mut line = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let start = line.rfind('[').unwrap();
        line.remove(start);
        line.push_str(part.split_once(')').unwrap().1);
    }
    line
}

/// The section of a document under this heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, after) = text.split_once(&format!("\n{heading}\n")).unwrap();
    after.split("\n## ").next().unwrap()
}

/// The items of all lists in a text. An item of an inner list is an item of its own.
fn items(text: &str) -> Vec<String> {
    let mut items = Vec::<String>::new();
    let mut open = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(item) = trimmed.strip_prefix("- ") {
            items.push(item.to_owned());
            open = true;
        } else if line.starts_with(' ') && open {
            let item = items.last_mut().unwrap();
            item.push(' ');
            item.push_str(trimmed);
        } else {
            open = false;
        }
    }
    items
}

/// The claims of README.md and SECURITY.md.
fn claims() -> BTreeSet<String> {
    let readme = read("README.md");
    let mut claims: BTreeSet<_> = ["## Guarantees", "## Limitations"]
        .iter()
        .flat_map(|heading| items(section(&readme, heading)))
        .collect();
    // In SECURITY.md those that are promised: an item, or the inner items of one.
    let security = read("SECURITY.md");
    let mut inside = false;
    for item in items(section(&security, "## Threat model")) {
        match item.strip_prefix("*Promised*:") {
            Some(promised) => {
                inside = promised.is_empty();
                if !inside {
                    claims.insert(promised.trim().to_owned());
                }
            }
            None => {
                inside &= !item.starts_with('*');
                if inside {
                    claims.insert(item);
                }
            }
        }
    }
    claims.iter().map(|claim| on_one_line(claim)).collect()
}

/// The rows of the tables of docs/CLAIMS.md, as their cells.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = read("docs/CLAIMS.md");
    section(&text, heading)
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
        .skip(1)
        .map(|line| {
            let cells = line.trim_matches('|').split(" | ");
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// The words that follow a claim's own words: the levels.
const LEVELS: [&str; 6] = [
    "proved by machine",
    "proved on paper",
    "model-checked to a bound",
    "exhaustively tested",
    "tested",
    "argued",
];

#[test]
fn each_claim_has_a_line() {
    let claims = claims();
    assert!(claims.len() >= 25, "the search is broken: {claims:#?}");
    let rows = [rows("## README.md"), rows("## SECURITY.md")].concat();
    let lines: BTreeSet<_> = rows.iter().map(|cells| cells[0].clone()).collect();
    let without: Vec<_> = claims.difference(&lines).collect();
    assert!(without.is_empty(), "docs/CLAIMS.md has no line for {without:#?}");
    let stale: Vec<_> = lines.difference(&claims).collect();
    assert!(stale.is_empty(), "README.md and SECURITY.md do not claim {stale:#?}");
}

#[test]
fn each_line_has_a_level_a_command_and_what_would_make_it_false() {
    let commands: BTreeSet<_> = rows("## Commands").iter().map(|cells| cells[0].clone()).collect();
    assert!(commands.len() >= 10, "the search is broken: {commands:#?}");
    let mut used = BTreeSet::new();
    for heading in [
        "## README.md",
        "## SECURITY.md",
        "## Formats",
        "## Supply chain",
        "## Portability",
    ] {
        for cells in rows(heading) {
            let [claim, level, command, falsified] = &cells[..] else {
                panic!("{heading}: {cells:?} has not four cells");
            };
            assert!(
                level.split(", ").all(|level| LEVELS.contains(&level)),
                "{claim}: no level {level:?}"
            );
            // The commands of the second table, in backticks.
            let named: Vec<_> = command
                .split('`')
                .skip(1)
                .step_by(2)
                .map(|name| format!("`{name}`"))
                .collect();
            assert!(level == "argued" || !named.is_empty(), "{claim}: no command");
            for name in named {
                assert!(
                    commands.contains(&name),
                    "{claim}: {name} is not in the table of commands"
                );
                used.insert(name);
            }
            assert!(falsified.len() > 10, "{claim}: what would make it false?");
        }
    }
    let unused: Vec<_> = commands.difference(&used).collect();
    assert!(unused.is_empty(), "no claim rests on {unused:?}");
}
