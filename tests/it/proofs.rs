//! The code is what `proofs` proves: the model of Context.v makes the same contexts, and the labels are those of
//! Labels.v.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use dekseal::{ContextRule, EncryptionContext, ErrorKind};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use crate::imports::sources;

type Pairs = Vec<(String, String)>;

/// Contexts that obey the rules of A3, and contexts that break each of them. Characters at the limits of each length of
/// UTF-8, and few other ones, so that keys often begin alike.
fn contexts() -> impl Strategy<Value = Pairs> {
    let character = prop::sample::select(vec![
        '\0',
        'a',
        'b',
        '\u{7f}',
        '\u{80}',
        '\u{7ff}',
        '\u{800}',
        '\u{d7ff}',
        '\u{e000}',
        '\u{ff5e}',
        '\u{ffff}',
        '\u{10000}',
        '\u{1f511}',
        '\u{10ffff}',
    ]);
    let text = |least: usize| {
        prop_oneof![
            prop::collection::vec(character.clone(), least..4).prop_map(String::from_iter),
            prop::collection::vec(any::<char>(), least..12).prop_map(String::from_iter),
        ]
    };
    let key = prop_oneof![60 => text(1), 1 => text(0)];
    prop::collection::vec((key, text(0)), 0..6)
}

/// Contexts at the limits of A3.
fn large() -> Vec<Pairs> {
    let numbered = |count: u32| {
        let keys = (0..count).filter_map(|number| char::from_u32(0x10000 + number * 37 % 0x8000));
        keys.map(|key| (key.to_string(), String::new())).collect::<Pairs>()
    };
    let mut longest = numbered(8192);
    longest.swap(17, 4711);
    let empty_key = |mut pairs: Pairs| {
        pairs.push((String::new(), "a".to_owned()));
        pairs
    };
    vec![
        longest,
        numbered(8193),
        empty_key(numbered(8191)),
        empty_key(numbered(8192)),
        vec![("k".to_owned(), "\u{10ffff}".repeat(8191))],
        vec![("k".to_owned(), "\u{10ffff}".repeat(8192))],
        vec![("\u{10ffff}".repeat(8192), String::new())],
        vec![("\u{10ffff}".repeat(8193), String::new())],
        vec![("a".to_owned(), "b".repeat(8190)), ("b".to_owned(), String::new())],
        vec![("a".to_owned(), "b".repeat(8190)), ("a".to_owned(), String::new())],
    ]
}

/// A line of the model's input: each text as numbers, with "/" after it.
fn line(pairs: &Pairs) -> String {
    let mut line = String::new();
    for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
        for character in text.chars() {
            write!(line, "{} ", u32::from(character)).unwrap();
        }
        line.push('/');
    }
    line
}

/// What the crate makes of these pairs, as the model writes it.
fn made(pairs: &Pairs) -> String {
    match EncryptionContext::from_pairs(pairs.iter().map(|(key, value)| (key, value))) {
        Ok(context) => hex::encode(context.canonical()),
        Err(error) => match error.kind() {
            ErrorKind::Context(
                rule @ (ContextRule::EmptyKey | ContextRule::DuplicateKey | ContextRule::TooManyCharacters),
            ) => format!("{rule:?}"),
            kind => panic!("the model has no rule {kind:?}"),
        },
    }
}

/// `proofs/check` makes the program from the model of Context.v.
#[test]
fn the_model_makes_the_same_contexts() {
    let Some(model) = std::env::var_os("DEKSEAL_CONTEXT_MODEL") else {
        eprintln!("left out: proofs/check builds the model and sets DEKSEAL_CONTEXT_MODEL");
        return;
    };
    let mut runner = TestRunner::new(Config::default());
    let random = contexts();
    let mut cases = large();
    cases.extend((0..10_000).map(|_| random.new_tree(&mut runner).unwrap().current()));
    let input: String = cases.iter().map(|pairs| line(pairs) + "\n").collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, input).unwrap();
    let output = Command::new(model)
        .stdin(Stdio::from(fs::File::open(&file).unwrap()))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    let output = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.lines().count(), cases.len());
    let mut seen = BTreeMap::<_, usize>::new();
    for (pairs, model) in cases.iter().zip(output.lines()) {
        assert_eq!(made(pairs), model, "{pairs:?}");
        let is_rule = model.starts_with(|first: char| first.is_ascii_uppercase());
        *seen
            .entry(if is_rule { model } else { "a canonical form" })
            .or_default() += 1;
    }
    eprintln!("{} contexts, the model makes the same of each: {seen:?}", cases.len());
    assert!(seen.len() == 4 && seen.values().all(|count| *count > 3), "{seen:?}");
}

/// Constants and their text, from lines such as `const NAME: &[u8; 3] = b"abc";` and `Definition NAME := "abc".`
fn constants<'a>(text: &'a str, before: &str, end: &str) -> BTreeMap<&'a str, &'a str> {
    let lines = text
        .lines()
        .filter_map(|line| line.split_once(before)?.1.strip_suffix(end));
    lines
        .map(|line| {
            let (name, text) = line.split_once('"').unwrap();
            (name.split([' ', ':']).next().unwrap(), text)
        })
        .collect()
}

#[test]
fn the_labels_are_those_of_the_proof() {
    let proof = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("proofs/Labels.v")).unwrap();
    let mut proved = constants(&proof, "Definition ", "\".");
    // src/labels.rs has the states of these two, which src/sha256/tests.rs compares with the strings.
    assert_eq!(proved.remove("EXTRACT"), Some("dekseal/v2"));
    assert_eq!(proved.remove("PAYLOAD_EXTRACT"), Some("dekseal/v2 payload"));
    let sources = sources();
    let labels = |path: &Path| path == Path::new("labels.rs");
    let (_, code) = sources.iter().find(|(path, _)| labels(path)).unwrap();
    let code = constants(code, "pub(crate) const ", "\";");
    assert!(code.len() >= 6, "the search is broken: {code:?}");
    assert_eq!(code, proved, "src/labels.rs and proofs/Labels.v");
    for (path, text) in sources.iter().filter(|(path, _)| !labels(path)) {
        assert!(!text.contains("b\"dekseal/v"), "{path:?} has a label of its own");
    }
}
