//! Power failures while a keyring file is written. The system calls of each writer are recorded, and every state that a
//! file system may be in after a failure at any of them is made and opened.
//!
//! The model of the file system promises as little as POSIX does:
//!
//! - `fsync` of a file makes its contents durable, but not its name.
//! - `fsync` of a directory makes its entries durable.
//! - Of all that was not synced, any part may be durable, in any order: each entry of a directory on its own, and any
//!   prefix of the contents of a file, with zeros or nothing behind it, or zeros in front.
//! - `rename` is atomic, as FORMAT.md C4 demands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use dekseal::FileKeyring;

use crate::{
    keyring_file::{directory, root},
    keyring_kills::{JOBS, is_done, ready_for},
    keyring_storage::{START, child, new_root},
    strace,
};

type File = usize;

/// A system call that changes the files of the directory, makes something durable, or reports.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Create(String, File),
    Write(File, Vec<u8>),
    Link(String, String),
    Rename(String, String),
    Unlink(String),
    SyncFile(File),
    SyncDirectory,
    Report,
}

/// The names of a directory, and the contents of each file.
type State = BTreeMap<String, Vec<u8>>;

struct Recording {
    /// The state at the start, which is durable.
    start: State,
    steps: Vec<Step>,
}

/// The bytes of a string that strace quotes.
fn unquoted(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'v' => 11,
                b'f' => 12,
                digit @ b'0'..=b'7' => {
                    let mut value = u32::from(digit - b'0');
                    for _ in 0..2 {
                        if let Some(digit @ b'0'..=b'7') = rest.peek().copied() {
                            value = value * 8 + u32::from(digit - b'0');
                            rest.next();
                        }
                    }
                    u8::try_from(value).unwrap()
                }
                other => other,
            },
            byte => byte,
        });
    }
    bytes
}

/// The quoted strings of a call.
fn strings(line: &str) -> Vec<&str> {
    let mut strings = Vec::new();
    let mut rest = line;
    while let Some((_, text)) = rest.split_once('"') {
        let mut escaped = false;
        let end = text.bytes().position(|byte| {
            let end = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            end
        });
        let end = end.unwrap();
        strings.push(&text[..end]);
        rest = &text[end + 1..];
    }
    strings
}

/// Records a job.
fn record(job: &str, report: &str) -> Recording {
    let (directory, path) = ready_for(job);
    let start = fs::read_dir(directory.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    let start: State = start.collect();
    let prefix = format!("{}/", directory.path().to_str().unwrap());
    let here = |path: &str| path.strip_prefix(&prefix).map(str::to_owned);

    let calls = strace::calls_with_strings_of(1 << 20, &child(job, &path));
    let begin = calls.iter().position(|call| call.line.contains(START)).unwrap();
    let thread = &calls[begin].thread;
    let mut steps = Vec::new();
    // Open files: `None` is the directory.
    let mut open = BTreeMap::<String, Option<File>>::new();
    let mut files = 0;
    for call in calls[begin..].iter().filter(|call| &call.thread == thread) {
        let Some((arguments, result)) = call.line.rsplit_once(" = ") else {
            assert!(!call.line.contains(&prefix), "no result: {}", call.line);
            continue;
        };
        if result.starts_with('-') {
            continue;
        }
        let descriptor = |text: &str| text.split('<').next().unwrap().to_owned();
        let first = || descriptor(arguments.split_once('(').unwrap().1);
        let strings = strings(arguments);
        let names = || strings.iter().filter_map(|path| here(path)).collect::<Vec<_>>();
        match &*call.name {
            "openat" => {
                let opened = match names().first() {
                    Some(name) if arguments.contains("O_CREAT|O_EXCL") => {
                        files += 1;
                        steps.push(Step::Create(name.clone(), files));
                        Some(files)
                    }
                    Some(_) => {
                        assert!(
                            !arguments.contains("O_CREAT") && !arguments.contains("O_TRUNC"),
                            "{arguments}"
                        );
                        // The lock, and the keyring that is read: nothing is written to them.
                        continue;
                    }
                    None if Path::new(strings[0]) == directory.path() => None,
                    None => continue,
                };
                open.insert(descriptor(result), opened);
            }
            "close" => drop(open.remove(&first())),
            "write" => match open.get(&first()) {
                Some(Some(file)) => {
                    let written = unquoted(strings[0]);
                    assert_eq!(written.len(), result.parse::<usize>().unwrap(), "{}", call.line);
                    steps.push(Step::Write(*file, written));
                }
                Some(None) => panic!("{}", call.line),
                None if arguments.contains(report) => steps.push(Step::Report),
                None => assert!(!call.line.contains(&prefix), "{}", call.line),
            },
            "fsync" => steps.push(open[&first()].map_or(Step::SyncDirectory, Step::SyncFile)),
            "linkat" => match &names()[..] {
                [from, to] => steps.push(Step::Link(from.clone(), to.clone())),
                _ => panic!("{}", call.line),
            },
            "rename" => match &names()[..] {
                [from, to] => steps.push(Step::Rename(from.clone(), to.clone())),
                _ => panic!("{}", call.line),
            },
            "unlink" => steps.extend(names().into_iter().map(Step::Unlink)),
            // They change nothing, or not what a reader sees.
            "statx" | "read" | "lseek" | "flock" | "getdents64" | "fchmod" | "fchown" | "fcntl" | "readlink"
            | "fstat" | "newfstatat" => {}
            _ => assert!(!call.line.contains(&prefix), "not modelled: {}", call.line),
        }
    }
    assert_eq!(
        steps.iter().filter(|step| **step == Step::Report).count(),
        1,
        "{steps:?}"
    );
    Recording { start, steps }
}

/// What may be left of contents that were written but not synced.
fn torn(written: &[u8]) -> Vec<Vec<u8>> {
    let length = written.len();
    let mut states = vec![written.to_vec(), Vec::new(), vec![0; length]];
    for end in [1, length / 2, length.saturating_sub(1)] {
        let end = end.min(length);
        let (front, back) = written.split_at(end);
        states.push(front.to_vec());
        states.push([front, &vec![0; back.len()]].concat());
        states.push([&vec![0; front.len()], back].concat());
    }
    states
}

/// All states after a power failure after these steps.
fn states(start: &State, steps: &[Step]) -> BTreeSet<State> {
    let contents = contents(steps);
    let durable = steps.iter().rposition(|step| *step == Step::SyncDirectory).unwrap_or(0);
    let is_entry = |step: &Step| {
        matches!(
            step,
            Step::Create(..) | Step::Link(..) | Step::Rename(..) | Step::Unlink(_)
        )
    };
    let open: Vec<_> = (durable..steps.len()).filter(|at| is_entry(&steps[*at])).collect();

    let mut states = BTreeSet::new();
    for subset in 0..1_u32 << open.len() {
        let persists = |at: usize| match open.iter().position(|open| *open == at) {
            Some(bit) => subset >> bit & 1 == 1,
            None => true,
        };
        let names = names(start, steps, persists);
        // The contents of all files go through their choices together: only one file is ever written.
        let most = names
            .values()
            .filter_map(|file| Some(contents[file.as_ref().ok()?].len()))
            .max()
            .unwrap_or(1);
        for choice in 0..most {
            let state = names.iter().map(|(name, file)| {
                let bytes = match file {
                    Ok(file) => contents[file].get(choice).unwrap_or(&contents[file][0]),
                    Err(bytes) => bytes,
                };
                (name.clone(), bytes.clone())
            });
            states.insert(state.collect());
        }
    }
    states
}

/// The possible contents of each file that was created.
fn contents(steps: &[Step]) -> BTreeMap<File, Vec<Vec<u8>>> {
    let files = steps.iter().filter_map(|step| match step {
        Step::Create(_, file) => Some(*file),
        _ => None,
    });
    let contents = files.map(|file| {
        let written = |steps: &[Step]| {
            let writes = steps.iter().filter_map(|step| match step {
                Step::Write(of, bytes) if *of == file => Some(&bytes[..]),
                _ => None,
            });
            writes.collect::<Vec<_>>().concat()
        };
        let synced = steps
            .iter()
            .rposition(|step| *step == Step::SyncFile(file))
            .unwrap_or(0);
        let (durable, later) = steps.split_at(synced);
        let (durable, later) = (written(durable), written(later));
        let later = if later.is_empty() { vec![later] } else { torn(&later) };
        (file, later.iter().map(|later| [&durable[..], later].concat()).collect())
    });
    contents.collect()
}

/// The names in the directory if these entries persist: each leads to a file that was created, or to contents of the
/// start.
fn names(start: &State, steps: &[Step], persists: impl Fn(usize) -> bool) -> BTreeMap<String, Result<File, Vec<u8>>> {
    let mut durable: BTreeMap<_, _> = start
        .iter()
        .map(|(name, bytes)| (name.clone(), Err(bytes.clone())))
        .collect();
    // An entry can be durable without the one that its file had before.
    let mut volatile = durable.clone();
    for (at, step) in steps.iter().enumerate() {
        let persists = persists(at);
        let file = match step {
            Step::Create(_, file) => Some(Ok(*file)),
            Step::Link(from, _) | Step::Rename(from, _) => Some(volatile[from].clone()),
            _ => None,
        };
        let mut set = |name: &String, file: Option<Result<File, Vec<u8>>>| {
            for names in [Some(&mut volatile), persists.then_some(&mut durable)]
                .into_iter()
                .flatten()
            {
                match file.clone() {
                    Some(file) => names.insert(name.clone(), file),
                    None => names.remove(name),
                };
            }
        };
        match step {
            Step::Create(name, _) | Step::Link(_, name) => set(name, file),
            Step::Rename(from, to) => {
                set(to, file);
                set(from, None);
            }
            Step::Unlink(name) => set(name, None),
            Step::Write(..) | Step::SyncFile(_) | Step::SyncDirectory | Step::Report => {}
        }
    }
    durable
}

/// Opens a state, and lets a writer continue. `Err` says what is wrong.
fn check(job: &str, state: &State, reported: bool) -> Result<(), &'static str> {
    let (_directory, path) = directory();
    for (name, bytes) in state {
        fs::write(path.with_file_name(name), bytes).unwrap();
    }
    if path.exists() || job != "create" {
        let opened = FileKeyring::open(&path, root()).or_else(|_| FileKeyring::open(&path, new_root()));
        opened.map_err(|_| "no whole keyring")?;
    }
    let done = catch_unwind(AssertUnwindSafe(|| is_done(job, &path, "after a power failure")));
    match done {
        Err(_) => Err("the next writer failed"),
        Ok(false) if reported => Err("a change that was reported is lost"),
        Ok(_) => Ok(()),
    }
}

/// Checks all states. Returns their number and the faults.
fn explore(job: &str, recording: &Recording) -> (usize, BTreeSet<&'static str>) {
    let mut checked = BTreeSet::new();
    let mut faults = BTreeSet::new();
    for end in 0..=recording.steps.len() {
        let steps = &recording.steps[..end];
        let reported = steps.contains(&Step::Report);
        for state in states(&recording.start, steps) {
            if checked.insert((reported, state.clone())) {
                faults.extend(check(job, &state, reported).err());
            }
        }
    }
    (checked.len(), faults)
}

#[test]
fn after_a_power_failure_the_keyring_is_whole_and_no_reported_change_is_lost() {
    if !strace::works() {
        return;
    }
    let mut all = 0;
    for (job, report) in JOBS {
        let recording = record(job, report);
        let (count, faults) = explore(job, &recording);
        assert!(faults.is_empty(), "{job}: {faults:?} in {:?}", recording.steps);
        println!(
            "{job}: {} steps, {count} states after a power failure",
            recording.steps.len()
        );
        all += count;

        // Without one of the two syncs, faults are found.
        let without = |left_out: fn(&Step) -> bool| {
            let steps = recording
                .steps
                .iter()
                .filter(|step| !left_out(step))
                .cloned()
                .collect::<Vec<_>>();
            assert!(steps.len() < recording.steps.len());
            let start = recording.start.clone();
            explore(job, &Recording { start, steps }).1
        };
        let faults = without(|step| matches!(step, Step::SyncFile(_)));
        assert!(
            faults.contains("no whole keyring"),
            "{job} without fsync of the file: {faults:?}"
        );
        let faults = without(|step| *step == Step::SyncDirectory);
        assert!(
            faults.contains("a change that was reported is lost"),
            "{job} without fsync of the directory: {faults:?}"
        );
    }
    assert!(all > 100, "only {all} states");
}
