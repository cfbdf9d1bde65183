//! The help, the man pages and the completions.

use std::{collections::BTreeSet, fs, process::Command};

use crate::support::{Place, dekseal, succeeds};

fn help(words: &[String]) -> String {
    help_within(words, "80")
}

fn help_within(words: &[String], columns: &str) -> String {
    let mut command = dekseal();
    command.args(words).arg("--help").env("COLUMNS", columns);
    String::from_utf8(succeeds(&mut command)).unwrap()
}

/// The names in the list of subcommands.
fn subcommands(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("\nCommands:\n").unwrap_or(("", ""));
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// All subcommands, those with subcommands of their own first.
fn all() -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut at = 0;
    while at < all.len() {
        let parent = all[at].clone();
        all.extend(
            subcommands(&help(&parent))
                .into_iter()
                .map(|name| [&parent[..], &[name]].concat()),
        );
        at += 1;
    }
    all
}

#[test]
fn each_subcommand_has_an_example_and_fits_a_terminal() {
    let all = all();
    assert!(all.len() > 35, "{all:#?}");
    for words in all {
        let help = help(&words);
        assert!(help.contains("\nExample"), "{words:?} has no example");
        // Tables stand from here on, and clap would break their lines.
        let end = |help: &str| help.split_once("\nExample").map(|(_, end)| end.to_owned());
        assert_eq!(end(&help), end(&help_within(&words, "100")), "{words:?} is wrapped");
        // Clap does not wrap the usage.
        for line in help.lines().filter(|line| !line.starts_with("Usage: ")) {
            assert!(line.chars().count() <= 80, "{words:?}: {line}");
        }
        assert!(!help.contains('\x1b'), "{words:?} has colours in a pipe");
    }
}

#[test]
fn the_man_pages_list_the_exit_codes() {
    let place = Place::new();
    place.does(&["man", "man1"]);
    let page = fs::read_to_string(place.path("man1/dekseal.1")).unwrap();
    for text in [
        "Exit codes",
        "the data was refused",
        "DEKSEAL_KEYRING",
        "dekseal\\-key(1)",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let pages: BTreeSet<_> = fs::read_dir(place.path("man1"))
        .unwrap()
        .map(|page| page.unwrap().file_name())
        .collect();
    for words in all() {
        let name = [&["dekseal".to_owned()], &words[..]].concat().join("-") + ".1";
        assert!(pages.contains(std::ffi::OsStr::new(&name)), "{name}");
    }
}

#[test]
fn the_completions_are_scripts() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(place.does(&["completions", shell]).contains("change-root"), "{shell}");
    }
    fs::write(place.path("script"), place.does(&["completions", "bash"])).unwrap();
    succeeds(Command::new("bash").arg("-n").arg(place.path("script")));
}
