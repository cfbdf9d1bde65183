//! Modules import only from lower layers, as docs/ARCHITECTURE.md says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// From top to bottom. A module may name itself and the modules below it.
const LAYERS: [&str; 16] = [
    "api",
    "payload",
    "engine",
    "keyring",
    "trace",
    "cmk",
    "labels",
    "text",
    "context",
    "blob",
    "dek",
    "key_id",
    "unix_time",
    "sha256",
    "secret",
    "error",
];

/// The lines of a source text that are not comments.
fn code(text: &str) -> String {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

fn is_ident(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The paths in `code` that begin with `crate::`, `super::` or `self::`, with lists in braces expanded.
fn paths(code: &str) -> Vec<Vec<String>> {
    /// Appends to `found` each path that `tree`, the text after `before` and `::`, begins with. Returns the rest.
    fn expand<'a>(before: &[String], tree: &'a str, found: &mut Vec<Vec<String>>) -> &'a str {
        let tree = tree.trim_start();
        if let Some(mut list) = tree.strip_prefix('{') {
            loop {
                list = expand(before, list, found).trim_start();
                list = match list.strip_prefix(',') {
                    Some(next) => next,
                    None => return list.strip_prefix('}').unwrap_or(list),
                };
            }
        }
        let length = tree.find(|c| !is_ident(c)).unwrap_or(tree.len());
        let (name, rest) = tree.split_at(length);
        let path = [before, &[name.to_owned()]].concat();
        match rest.strip_prefix("::") {
            Some(inner) if inner.starts_with(|c| is_ident(c) || c == '{') => expand(&path, inner, found),
            _ => {
                // A list in braces may end with a comma.
                if !name.is_empty() {
                    found.push(path);
                }
                match rest.strip_prefix(" as ") {
                    Some(renamed) => renamed.trim_start_matches(is_ident),
                    None => rest,
                }
            }
        }
    }
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = ["crate::", "super::", "self::"]
        .iter()
        .filter_map(|root| rest.find(root))
        .min()
    {
        let (before, from) = rest.split_at(at);
        rest = if before.ends_with(|c| is_ident(c) || c == ':') {
            &from[1..]
        } else {
            expand(&[], from, &mut found)
        };
    }
    found
}

/// The path and the text of each source file below src/, without tests and without the root, which exports all modules.
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

/// `super::` can lead out of the module at the root as well as `crate::`.
#[test]
fn no_module_names_one_above_it() {
    let mut seen = 0;
    for (module, named) in named_at_the_root() {
        for name in named {
            assert!(
                rank(&name) >= rank(&module[0]),
                "{} names {name}, which is above it",
                module.join("::")
            );
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} imports found: the search is broken");
}

/// The position of a module at the root in [`LAYERS`].
fn rank(name: &str) -> usize {
    let found = LAYERS.iter().position(|layer| *layer == name);
    found.unwrap_or_else(|| panic!("{name} has no layer: name what the root exports through its module"))
}

/// For each module, the names at the root of the crate that its text uses.
fn named_at_the_root() -> BTreeMap<Vec<String>, BTreeSet<String>> {
    let sources = sources().into_iter();
    sources
        .map(|(path, text)| {
            let module = module_path(&path);
            let named = roots(&module, &text);
            (module, named)
        })
        .collect()
}

/// The names at the root of the crate that the text of a module uses, other than its own.
fn roots(module: &[String], text: &str) -> BTreeSet<String> {
    let paths = paths(&code(text)).into_iter();
    paths
        .filter_map(|path| absolute(module, &path).into_iter().next())
        .filter(|name| *name != module[0])
        .collect()
}

/// `keyring/file/mod.rs` is the module keyring::file.
fn module_path(path: &Path) -> Vec<String> {
    let names = path.iter().map(|name| name.to_str().unwrap().trim_end_matches(".rs"));
    names.filter(|name| *name != "mod").map(str::to_owned).collect()
}

/// The path from the root of the crate that `path` means in `module`.
fn absolute(module: &[String], path: &[String]) -> Vec<String> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    let own = if path[0] == "crate" {
        0
    } else {
        module.len().saturating_sub(supers)
    };
    let skip = if supers > 0 { supers } else { 1 };
    [&module[..own], &path[skip..]].concat()
}

/// For each module, the modules that its text names, with re-exports resolved.
fn dependencies() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let sources: BTreeMap<_, _> = sources()
        .into_iter()
        .map(|(path, text)| (module_path(&path), code(&text)))
        .collect();
    // The names that a module re-exports.
    let mut exported: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for (module, code) in &sources {
        for statement in code.split(';') {
            let Some((visibility, list)) = statement.trim_start().rsplit_once("use ") else {
                continue;
            };
            if visibility
                .lines()
                .last()
                .is_some_and(|line| line.trim_start().starts_with("pub"))
            {
                let list = list.trim();
                let roots = ["crate::", "super::", "self::"];
                let list = if roots.iter().any(|root| list.starts_with(root)) {
                    list.to_owned()
                } else {
                    format!("self::{list}")
                };
                for path in paths(&list) {
                    let name = [module.as_slice(), &path[path.len() - 1..]].concat();
                    exported.insert(name, absolute(module, &path));
                }
            }
        }
    }
    let resolve = |mut path: Vec<String>| {
        for _ in 0..8 {
            let through = (1..=path.len()).find_map(|length| Some((length, exported.get(&path[..length])?)));
            match through {
                Some((length, target)) => path = [target, &path[length..]].concat(),
                None => break,
            }
        }
        let length = (1..=path.len())
            .rev()
            .find(|length| sources.contains_key(&path[..*length]));
        length.map(|length| path[..length].to_vec())
    };
    let named = |module: &[String], code: &str| {
        let paths = paths(code).into_iter();
        paths.filter_map(|path| resolve(absolute(module, &path))).collect()
    };
    sources
        .iter()
        .map(|(module, code)| (module.clone(), named(module, code)))
        .collect()
}

/// The modules of a folder do not import one another in a cycle. The `mod.rs` of the folder may import all of them.
#[test]
fn modules_of_a_folder_do_not_import_each_other_in_a_cycle() {
    let dependencies = dependencies();
    // The parts of each folder, and for each part the other parts that it names.
    let mut names: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (module, targets) in &dependencies {
        for target in targets {
            let common = module.iter().zip(target).take_while(|(a, b)| a == b).count();
            if common > 0 && common < module.len() && common < target.len() {
                let part = names.entry(module[..=common].to_vec()).or_default();
                part.insert(target[..=common].to_vec());
            }
        }
    }
    assert!(names.len() > 10, "only {names:?} found: the search is broken");
    let reached = |from: &Vec<String>| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(part) = open.pop() {
            for next in names.get(part).into_iter().flatten() {
                if reached.insert(next) {
                    open.push(next);
                }
            }
        }
        reached
    };
    let mut circles = BTreeSet::new();
    for part in names.keys().filter(|part| reached(part).contains(part)) {
        let circle = reached(part).into_iter().filter(|other| reached(other).contains(part));
        circles.insert(circle.map(|part| part.join("::")).collect::<Vec<_>>());
    }
    assert_eq!(circles, BTreeSet::new());
}

#[test]
fn the_search_finds_imports_in_every_form() {
    let text = "use crate::{\n    api::{A, b::C},\n    cmk::CmkVersion, error,\n};\nuse crate::blob::X;\n\
        fn f() { crate::engine::g(); }\n// crate::no";
    let module = ["keyring", "file"].map(str::to_owned);
    let found: Vec<_> = roots(&module, text).into_iter().collect();
    assert_eq!(found, ["api", "blob", "cmk", "engine", "error"]);
    let text = "use super::super::api::A; use super::{b::B, super::blob::C}; fn f() { super::super::engine::g() }";
    let found: Vec<_> = roots(&module, text).into_iter().collect();
    assert_eq!(found, ["api", "blob", "engine"]);
    let text = "use super::{super::{A as B, c::{D, self},}, e::F};\npub use self::g::*; super::h::i(|| self::j)";
    let found: Vec<_> = paths(&code(text)).iter().map(|path| path.join("::")).collect();
    let expected = [
        "super::super::A",
        "super::super::c::D",
        "super::super::c::self",
        "super::e::F",
        "self::g",
        "super::h::i",
        "self::j",
    ];
    assert_eq!(found, expected);
}

/// Whether a path in `line` begins with `dependency` or contains it as a segment. `string::` does not name `ring`.
fn names(line: &str, dependency: &str) -> bool {
    line.match_indices(&format!("{dependency}::"))
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

#[test]
fn each_dependency_is_named_where_it_belongs() {
    assert!(names("use ring::aead;", "ring") && names("f(::ring::x())", "ring") && !names("string::String", "ring"));
    // `aes_gcm` has two homes: one for DEKs and one for payloads.
    let homes: [(&str, &[&str]); 12] = [
        ("aes_gcm", &["cmk.rs", "payload"]),
        ("sha2", &["sha256.rs"]),
        ("serde", &["api", "keyring/document", "text.rs"]),
        ("base16ct", &["api", "keyring/document"]),
        ("arc_swap", &["keyring/memory.rs", "keyring/fleet/shared.rs"]),
        ("hashlink", &["keyring/fleet/remembered.rs"]),
        ("papaya", &["keyring/fleet/cache.rs"]),
        ("rustix", &["keyring/fleet/clock.rs"]),
        ("fs", &["keyring/file/storage", "payload/rewrap_file.rs"]),
        ("ring", &["payload"]),
        ("rayon", &["payload"]),
        ("tracing", &["trace.rs"]),
    ];
    let mut found = BTreeSet::new();
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
