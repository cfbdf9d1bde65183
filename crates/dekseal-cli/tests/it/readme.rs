//! Runs the commands of the README and of a guide, in order, and compares what they print with what the page shows.

use std::{env, fmt::Write, process::Command};

use crate::support::dekseal;

/// A command of the page, and the lines that it shows below.
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The commands of all blocks of the kind `console`: `$ ` begins a command, and `> ` continues it.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let blocks = page
        .split("```console\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap());
    for line in blocks.flat_map(str::lines) {
        if let Some(command) = line.strip_prefix("$ ") {
            let (command, shown) = (command.to_owned(), Vec::new());
            steps.push(Step { command, shown });
        } else if let Some(more) = line.strip_prefix("> ") {
            write!(steps.last_mut().unwrap().command, "\n{more}").unwrap();
        } else {
            steps.last_mut().unwrap().shown.push(line.to_owned());
        }
    }
    steps
}

/// A line with each digit of a date and a time replaced.
fn without_dates(line: &str) -> String {
    let mut line = line.to_owned();
    for pattern in ["dddd-dd-dd", "Tdd:dd:ddZ"] {
        for at in 0..line.len() {
            let found = line.get(at..at + pattern.len()).is_some_and(|text| {
                let mut pairs = text.bytes().zip(pattern.bytes());
                pairs.all(|(byte, wanted)| byte == wanted || (wanted == b'd' && byte.is_ascii_digit()))
            });
            if found {
                line.replace_range(at..at + pattern.len(), pattern);
            }
        }
    }
    line
}

/// Whether a printed line is the one that the page shows, where `…` stands for any text.
fn is_shown(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (without_dates(shown), without_dates(printed));
    let mut parts = shown.split('…');
    let Some(mut rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut end = rest.is_empty();
    for part in parts {
        let Some(at) = rest.rfind(part).filter(|_| part.is_empty()).or_else(|| rest.find(part)) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        end = part.is_empty() || rest.is_empty();
    }
    end
}

#[test]
fn each_command_prints_what_the_page_shows() {
    prints_what_it_shows(include_str!("../../README.md"));
}

/// Losing and restoring a keyring file, in docs/guide/restore.md.
#[test]
fn the_drill_prints_what_the_guide_shows() {
    let guide = include_str!("../../../../docs/guide/restore.md");
    prints_what_it_shows(guide.split_once("## A drill").unwrap().1);
}

fn prints_what_it_shows(page: &str) {
    let steps = steps(page);
    assert!(steps.len() > 15, "only {} commands", steps.len());
    let mut script = String::new();
    for step in &steps {
        write!(script, "{}\necho '== end =='\n", step.command).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let mut path = std::path::Path::new(dekseal().get_program())
        .parent()
        .unwrap()
        .as_os_str()
        .to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("exec 2>&1\n{script}")])
        .current_dir(directory.path())
        .env("PATH", path);
    bash.env_remove("DEKSEAL_KEYRING").env_remove("DEKSEAL_ROOT");
    // The sweep keeps its place in the home of the user.
    bash.env("HOME", directory.path()).env_remove("XDG_STATE_HOME");
    let printed = String::from_utf8(bash.output().unwrap().stdout).unwrap();
    let mut outputs = printed.split("== end ==\n");
    for step in steps {
        let printed: Vec<_> = outputs.next().unwrap().lines().collect();
        let same = printed.len() == step.shown.len()
            && step
                .shown
                .iter()
                .zip(&printed)
                .all(|(shown, printed)| is_shown(shown, printed));
        assert!(
            same,
            "{}\nshows\n{:#?}\nbut prints\n{printed:#?}",
            step.command, step.shown
        );
    }
}

#[test]
fn a_line_is_compared_with_what_the_page_shows() {
    assert!(is_shown(
        "made on 2026-11-29T00:22:58Z, see …",
        "made on 2031-01-02T03:04:05Z, see there"
    ));
    assert!(is_shown("0200…9DD9", "020012349DD9"));
    for (shown, printed) in [
        ("a", "ab"),
        ("ab", "a"),
        ("a…c", "abcd"),
        ("a…", "b"),
        ("2026-11-29T00:22:58Z", "2026"),
    ] {
        assert!(!is_shown(shown, printed), "{shown} {printed}");
    }
}
