//! Imports go down only: the layers of docs/ARCHITECTURE.md.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the top to the bottom. A module may name those below it, and itself.
const LAYERS: [&str; 14] = [
    "api", "payload", "engine", "keyring", "trace", "cmk", "labels", "context", "blob", "dek", "key_id", "sha256",
    "secret", "error",
];

/// The crate's modules that a source text names, by `crate::name`, alone or in braces.
fn named(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut names = Vec::new();
    for after in code.split("crate::").skip(1) {
        let list = match after.strip_prefix('{') {
            Some(braced) => {
                let mut depth = 1;
                let end = braced.find(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth == 0
                });
                &braced[..end.unwrap()]
            }
            None => after,
        };
        let mut depth = 0;
        let items = list.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        let items = if after.starts_with('{') {
            items.collect::<Vec<_>>()
        } else {
            items.take(1).collect()
        };
        for item in items {
            let name: String = item
                .trim()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if !name.is_empty() {
                names.push(name);
            }
        }
    }
    names
}

/// The path of each source file below src/, and its text. Tests and the root, which names all to export it, are left out.
pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![src.clone()];
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if !path.ends_with("tests.rs") && !path.ends_with("lib.rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push((path.strip_prefix(&src).unwrap().to_owned(), text));
            }
        }
    }
    sources
}

/// The module at the root of the crate that a file belongs to.
fn module(path: &Path) -> &str {
    path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs")
}

#[test]
fn no_module_names_one_above_it() {
    let rank = |name: &str| {
        let found = LAYERS.iter().position(|layer| *layer == name);
        found.unwrap_or_else(|| panic!("{name} has no layer: name what the root exports through its module"))
    };
    let mut seen = 0;
    for (path, text) in sources() {
        for name in named(&text) {
            assert!(
                rank(&name) >= rank(module(&path)),
                "{} names {name}, which is above it",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} imports found: the search is broken");
}

#[test]
fn the_search_finds_imports_in_every_form() {
    let text = "use crate::{\n    api::{A, b::C},\n    cmk::CmkVersion, error,\n};\nuse crate::blob::X;\nfn f() { crate::engine::g(); }\n// crate::no";
    assert_eq!(named(text), ["api", "cmk", "error", "blob", "engine"]);
}

/// Whether a path in `line` begins with `dependency`, or goes through it. `string::` does not name `ring`.
fn names(line: &str, dependency: &str) -> bool {
    line.match_indices(&format!("{dependency}::"))
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

#[test]
fn each_dependency_is_named_where_it_belongs() {
    assert!(names("use ring::aead;", "ring") && names("f(::ring::x())", "ring") && !names("string::String", "ring"));
    // Of the two that have two homes, one is for DEKs and one for payloads.
    let homes: [(&str, &[&str]); 9] = [
        ("aes_gcm", &["cmk.rs", "payload"]),
        ("sha2", &["sha256.rs"]),
        ("serde", &["api", "keyring/file"]),
        ("base16ct", &["api", "keyring/file"]),
        ("arc_swap", &["keyring/memory.rs"]),
        ("fs", &["keyring/file/storage", "payload/rewrap_file.rs"]),
        ("ring", &["payload"]),
        ("rayon", &["payload"]),
        ("tracing", &["trace.rs"]),
    ];
    let mut found = std::collections::BTreeSet::new();
    for (path, text) in sources() {
        for (dependency, homes) in homes {
            let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            if code.any(|line| names(line, dependency)) {
                let home = homes.iter().find(|home| path.starts_with(home));
                let home = home.unwrap_or_else(|| panic!("{} names {dependency}", path.display()));
                found.insert((dependency, *home));
            }
        }
    }
    let all: usize = homes.iter().map(|(_, homes)| homes.len()).sum();
    assert_eq!(found.len(), all, "a home is empty or the search is broken: {found:?}");
}
