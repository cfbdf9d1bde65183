//! Lists the panics that can be reached from the library's operations, and the crate that each belongs to.
//!
//! `panics PROGRAM SOURCE` disassembles the program `entry_points`, follows the calls from each of its entry points,
//! and lists the calls of panicking functions. The debug information gives the owner of a call: the innermost function
//! around it, including inlined ones, that is not in the standard library. The standard library owns a call if more of
//! its functions are between than those of an index or an `unwrap`.
//!
//! SOURCE is the directory of dekseal. No panic may be in its src/, except those that `ALLOWED` names. If SOURCE is the
//! directory of the program instead, it finds the panic in `entry_control`.
//!
//! A function whose address is taken counts as called, so the list may contain calls that cannot be reached. Functions
//! that the standard library calls when memory runs out are counted separately. Functions that it calls during another
//! panic are left out.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    error::Error,
    process::ExitCode,
};

use dekseal_assurance::disassembly::{Frame, frames, functions};

/// Functions of dekseal with a panic that no input can reach.
const ALLOWED: [(&str, &str); 4] = [
    // Documented at `CmkVersion::seal`.
    ("seal_beside", "core::option::expect_failed"),
    // Every message fits: its parts have constant lengths, or lengths that were checked.
    ("Padded<_>::push", "core::option::expect_failed"),
    // Derived code: serde_json reaches this arm only for a raw value, and none is written.
    (">::serialize", "core::panicking::panic"),
    // A `UnixTime` is between the years 2020 and 9999, and every `SystemTime` can hold these dates.
    ("std::time::SystemTime>::from", "core::option::expect_failed"),
];

/// The prefixes of the names of panicking functions.
const PANICS: [&str; 9] = [
    "core::panicking::",
    "core::option::expect_failed",
    "core::option::unwrap_failed",
    "core::result::unwrap_failed",
    "core::slice::index::slice_",
    "core::slice::copy_from_slice_impl::",
    "core::str::slice_error_fail",
    "core::cell::panic_",
    "std::panicking::",
];

/// Tells whether the thread is panicking, and does not panic itself. A mutex asks it.
const ASKS: &str = "std::panicking::panic_count::is_zero_slow_path";

/// Functions that are called when memory runs out or a requested size is too large.
const MEMORY: [&str; 3] = [
    "alloc::alloc::handle_alloc_error",
    "alloc::raw_vec::handle_error",
    "alloc::raw_vec::capacity_overflow",
];

/// Functions that are called for a panic during a panic, or where no panic may pass.
const SECOND: [&str; 3] = [
    "core::panicking::panic_in_cleanup",
    "core::panicking::panic_cannot_unwind",
    "core::panicking::panic_nounwind",
];

/// The places of indexing, `unwrap` and the like: their callers own the panic.
const DIRECT: [&str; 9] = [
    "slice/index.rs",
    "slice/mod.rs",
    "option.rs",
    "result.rs",
    "str/traits.rs",
    "str/mod.rs",
    "vec/mod.rs",
    "array/mod.rs",
    "index_range.rs",
];

/// The owner of a source file: `dekseal`, the program, or a crate as `NAME-VERSION`.
fn owner(place: &str, source: &str) -> Option<String> {
    if place.starts_with(source) {
        return Some("dekseal".to_owned());
    }
    if place.contains("/entry_points.rs:") {
        return Some("the program".to_owned());
    }
    let (_, in_registry) = place.split_once("/registry/src/")?;
    Some(in_registry.split('/').nth(1)?.to_owned())
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [program, source] = &arguments[..] else {
        eprintln!("panics PROGRAM SOURCE");
        return Ok(ExitCode::from(2));
    };
    let source = format!("{}/src/", std::fs::canonicalize(source)?.display());
    let functions = functions(program)?;
    let panics = |address: &u64| {
        let name = &functions.get(address)?.name;
        let begins = |names: &[&str]| names.iter().any(|begin| name.starts_with(begin));
        (begins(&PANICS) || begins(&MEMORY))
            .then_some(name)
            .filter(|name| !name.starts_with(ASKS))
    };

    // For each entry point, the calls of panicking functions, which are not followed further.
    let mut calls = BTreeSet::new();
    let mut reached_by: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (start, function) in &functions {
        let Some(entry) = function.name.strip_prefix("entry_points::entry_") else {
            continue;
        };
        let (mut seen, mut open) = (HashSet::from([*start]), vec![*start]);
        let reached = reached_by.entry(entry).or_default();
        while let Some(address) = open.pop() {
            let refers = functions
                .get(&address)
                .map_or(&[][..], |function| &function.instructions);
            for (at, to) in refers
                .iter()
                .filter_map(|instruction| Some((instruction.at, instruction.to?)))
            {
                if panics(&to).is_some() {
                    reached.insert(at);
                    calls.insert((at, to));
                } else if functions.contains_key(&to) && seen.insert(to) {
                    open.push(to);
                }
            }
        }
    }
    if reached_by.is_empty() {
        return Err("no entry points in this program".into());
    }

    let frames = frames(program, &calls.iter().map(|(at, _)| *at).collect())?;
    let mut rows: BTreeMap<(String, String), BTreeSet<&str>> = BTreeMap::new();
    let (mut allowed, mut forbidden, mut memory, mut std) = (0, 0, 0, BTreeMap::<String, usize>::new());
    for (at, to) in &calls {
        let panic = panics(to).map_or("", |name| name.split("::<").next().unwrap_or(name));
        if SECOND.iter().any(|second| panic.starts_with(second)) {
            continue;
        }
        if MEMORY.iter().any(|memory| panic.starts_with(memory)) {
            memory += 1;
            continue;
        }
        let around = frames.get(at).map_or(&[][..], Vec::as_slice);
        let of = |(_, place): &Frame| owner(place, &source);
        let library = around.iter().take_while(|frame| of(frame).is_none());
        let direct = |(_, place): &Frame| DIRECT.iter().any(|file| place.contains(file));
        let deep = library.clone().find(|frame| !direct(frame));
        let Some(frame) = around
            .iter()
            .find(|frame| of(frame).is_some())
            .filter(|_| deep.is_none())
        else {
            let (function, _) = deep.or(around.first()).cloned().unwrap_or_default();
            let module: Vec<_> = function.trim_start_matches('<').split("::").take(3).collect();
            *std.entry(module.join("::")).or_default() += 1;
            continue;
        };
        let (who, (function, place)) = (of(frame).unwrap_or_default(), frame);
        // The compiler decides anew with each change whether it inlines a closure.
        let named = function.trim_end_matches("::{{closure}}");
        let mark = match who.as_str() {
            "dekseal"
                if ALLOWED
                    .iter()
                    .any(|allowed| named.ends_with(allowed.0) && panic == allowed.1) =>
            {
                allowed += 1;
                " (allowed)"
            }
            "dekseal" => {
                forbidden += 1;
                " (FORBIDDEN)"
            }
            _ => "",
        };
        let place = place
            .rsplit('/')
            .next()
            .and_then(|file| file.split(" (").next())
            .unwrap_or_default();
        let entries = reached_by.iter().filter(|(_, reached)| reached.contains(at));
        let row = rows.entry((who, format!("{function} {place}: {panic}{mark}")));
        row.or_default().extend(entries.map(|(entry, _)| *entry));
    }
    for ((who, call), entries) in &rows {
        let entries: Vec<_> = entries.iter().copied().collect();
        println!("{who:<16} {call}\n{:<16}   from {}", "", entries.join(", "));
    }
    let std: Vec<_> = std.iter().map(|(module, calls)| format!("{module} {calls}")).collect();
    println!("standard library, by module: {}", std.join(", "));
    println!("where memory runs out: {memory}");
    let dependencies = rows.keys().filter(|(who, _)| who.contains('-')).count();
    println!(
        "{} entry points; calls of what panics: {dependencies} in dependencies, {forbidden} in dekseal, \
         and {allowed} in dekseal that no input reaches",
        reached_by.len(),
    );
    Ok(if forbidden == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
