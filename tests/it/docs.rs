//! What the documentation lists is whole.

use std::{collections::BTreeSet, fs, path::Path};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The variants of an enum in src/error.rs, by their names.
fn variants(name: &str) -> BTreeSet<String> {
    let source = read("src/error.rs");
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    body.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.split([',', '(']).next().unwrap().to_owned())
        .collect()
}

/// What stands in the first column of the table under this head.
fn rows(head: &str) -> Vec<String> {
    let text = read("docs/crate.md");
    let (_, table) = text
        .split_once(&format!("| {head} | means | what to do |\n|---|---|---|\n"))
        .unwrap();
    table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('`').nth(1).unwrap().to_owned())
        .collect()
}

#[test]
fn each_error_has_a_row_that_says_what_to_do() {
    for (name, head, least) in [("ErrorKind", "kind", 29), ("FileFault", "fault", 10)] {
        let (variants, rows) = (variants(name), rows(head));
        assert!(variants.len() >= least, "the search is broken: {variants:?}");
        assert_eq!(rows.len(), variants.len());
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), variants);
    }
}
