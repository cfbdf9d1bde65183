//! What the documentation lists is whole, and nothing public is without an example.

use std::{collections::BTreeSet, fs, path::Path};

use crate::imports::sources;

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

/// The lines of a source file's examples, and the names of what it makes public: of each, whether it is a function, and whether an
/// example stands in its own documentation.
fn examples_and_items(text: &str) -> (Vec<&str>, Vec<(&str, bool, bool)>) {
    let (mut examples, mut items) = (Vec::new(), Vec::new());
    let (mut open, mut runs, mut own) = (false, false, false);
    for line in text.lines().map(str::trim_start) {
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        if line.contains("doc = \"```\"") || doc.is_some_and(|doc| doc.trim_start().starts_with("```")) {
            open = !open;
            // One that does not compile shows what cannot be done.
            runs = open && !line.contains("compile_fail");
            own |= runs;
        } else if let Some(doc) = doc {
            if runs {
                examples.push(doc);
            }
        } else if !line.starts_with("#[") && !line.starts_with("#!") {
            let words: Vec<_> = line
                .split([' ', '(', '<', ';', ':'])
                .filter(|word| *word != "const")
                .collect();
            if let ["pub", kind @ ("fn" | "struct" | "enum" | "trait"), name, ..] = words.as_slice() {
                items.push((*name, *kind == "fn", own));
            }
            own = false;
        }
    }
    (examples, items)
}

#[test]
fn each_public_type_has_an_example_and_each_public_function_is_in_one() {
    let mut seen = 0;
    for (path, text) in sources() {
        let (examples, items) = examples_and_items(&text);
        let examples = examples.join("\n");
        for (name, is_function, own) in items {
            // One that takes a generator does what the one beside it does; `Dek::generate_with_rng` shows a generator.
            let beside = name.strip_suffix("_with_rng").unwrap_or(name);
            let called = is_function
                && examples
                    .match_indices(&format!("{beside}("))
                    .any(|(at, _)| !examples[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
            assert!(own || called, "{}: {name} has no example", path.display());
            seen += 1;
        }
    }
    assert!(seen > 140, "only {seen} items found: the search is broken");
}
