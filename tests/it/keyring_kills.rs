//! Writers of a keyring file that strace stops, kills or makes fail at each of their system calls.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
};

use dekseal::{FileKeyring, UnixTime};
use tempfile::TempDir;

use crate::{
    keyring_file::{directory, root},
    keyring_storage::{START, child, new_root, with_key},
    strace::{self, Call},
    support::{KEY_ID, key_id},
};

/// The system calls on files that a job makes, from its start to its report.
fn calls(job: &str) -> Vec<Call> {
    let (_directory, path) = ready_for(job);
    let calls = strace::calls(&child(job, &path));
    let start = calls.iter().position(|call| call.line.contains(START)).unwrap();
    let (_, job) = calls.split_at(start + 1);
    let thread = &calls[start].thread;
    let left_out = [
        "brk",
        "exit",
        "futex",
        "getrandom",
        "madvise",
        "mmap",
        "mprotect",
        "munmap",
        "rt_sigprocmask",
        "sigaltstack",
    ];
    let job = job
        .iter()
        .filter(|call| &call.thread == thread && !left_out.contains(&&*call.name));
    let job: Vec<_> = job.cloned().collect();
    for Call { name, nth, .. } in &job {
        let others = calls.iter().filter(|call| &call.name == name && &call.thread != thread);
        let of_others = others.count();
        assert!(of_others < *nth, "{name}: the main thread makes {of_others} calls");
    }
    // An adoption finds, opens, reads and closes the file, and reports.
    assert!(job.len() >= 5, "{job:?}");
    job
}

/// A directory that is prepared for `job`.
pub(crate) fn ready_for(job: &str) -> (TempDir, PathBuf) {
    let (directory, path) = directory();
    if job == "create" {
        return (directory, path);
    }
    let keyring = with_key(&path);
    let id = key_id(KEY_ID);
    let prepared = match job {
        "destroy versions" => keyring.update(|keys| {
            keys.rotate(&id)?;
            keys.set_min_version(&id, 1)
        }),
        "purge" => {
            let past = UnixTime::from_secs(1_700_000_000).unwrap();
            keyring.update(|keys| keys.schedule_deletion_at(&id, 7, past).map(drop))
        }
        _ => Ok(()),
    };
    prepared.unwrap();
    (directory, path)
}

/// The version of the key, or 0 if there is no key.
fn version(keyring: &FileKeyring) -> u32 {
    keyring
        .keys()
        .info(&key_id(KEY_ID))
        .map_or(0, |info| info.current_version)
}

/// Whether the job was done. Asserts that it was done completely or not at all, and that the next writer works and
/// leaves no stale files.
pub(crate) fn is_done(job: &str, path: &Path, what: &str) -> bool {
    let open = |root| FileKeyring::open(path, root);
    let (keyring, done) = match job {
        "create" if !path.exists() => (FileKeyring::create(path, root()).unwrap(), false),
        "create" => (open(root()).expect(what), true),
        "rotate" | "write back" => {
            let keyring = open(root()).expect(what);
            let done = version(&keyring) == 1;
            (keyring, done)
        }
        "destroy versions" => {
            let keyring = open(root()).expect(what);
            let left = keyring.keys().versions(&key_id(KEY_ID)).unwrap().len();
            (keyring, left == 1)
        }
        "purge" => {
            let keyring = open(root()).expect(what);
            let gone = keyring.keys().info(&key_id(KEY_ID)).is_err();
            (keyring, gone)
        }
        _ => match open(root()) {
            Ok(keyring) => (keyring, false),
            Err(_) => (open(new_root()).expect(what), true),
        },
    };
    let id = key_id("43e243b5-0095-1b21-67b2-58370386cc4a");
    keyring.update(|keys| keys.create_key(id)).expect(what);
    let litter = fs::read_dir(path.parent().unwrap()).unwrap().count() - 2;
    assert_eq!(litter, 0, "{what}");
    done
}

pub(crate) const JOBS: [(&str, &str); 6] = [
    ("create", "created"),
    ("rotate", "rotated 1"),
    ("destroy versions", "destroyed 1"),
    ("purge", "purged"),
    ("write back", "written back"),
    ("change root", "changed root"),
];

#[test]
fn a_writer_that_is_killed_at_any_call_leaves_the_old_state_or_the_new_one() {
    if !strace::works() {
        return;
    }
    for (job, report) in JOBS {
        for call in calls(job) {
            let (_directory, path) = ready_for(job);
            let output = call.kill_before(&child(job, &path));
            let what = format!("{job}, killed before {}", call.line);
            let reported = String::from_utf8_lossy(&output.stdout).contains(report);
            let done = is_done(job, &path, &what);
            assert!(done || !reported, "{what}: it had reported");
        }
    }
}

/// `adopt` accepts the file, and writes nothing.
#[test]
fn an_adoption_that_is_killed_or_fails_at_any_call_leaves_the_file_as_it_is() {
    if !strace::works() {
        return;
    }
    for call in calls("adopt") {
        let (_directory, path) = ready_for("adopt");
        let before = fs::read(&path).unwrap();
        call.kill_before(&child("adopt", &path));
        assert_eq!(fs::read(&path).unwrap(), before, "killed before {}", call.line);
        // These are the calls that find, open and read the file.
        if ["statx", "openat", "read"].contains(&&*call.name) {
            let output = call.inject(&child("adopt", &path), "error=EIO");
            let output = String::from_utf8(output.stdout).unwrap();
            assert!(output.contains("failed: File(Io)"), "{}: {output}", call.line);
            assert_eq!(fs::read(&path).unwrap(), before, "an error of {}", call.line);
        }
    }
}

#[test]
fn a_writer_that_fails_at_any_call_says_so_and_leaves_the_old_state() {
    if !strace::works() {
        return;
    }
    for (job, report) in JOBS {
        let mut not_synced = 0;
        // std panics if closing a directory fails, which does not happen on any system.
        for call in calls(job).iter().filter(|call| call.name != "close") {
            let (_directory, path) = ready_for(job);
            let output = call.inject(&child(job, &path), "error=EIO");
            let what = format!("{job}, with an error of {}", call.line);
            let output = String::from_utf8(output.stdout).unwrap();
            let done = is_done(job, &path, &what);
            if call.line.contains(report) {
                continue;
            }
            if output.contains(report) {
                // A temporary file that stays does no harm; and if links fail, `create` renames.
                let harmless = ["fcntl", "unlink", "linkat"].contains(&&*call.name);
                assert!(done && harmless, "{what}: {output}");
            } else if output.contains("failed: File(NotSynced)") {
                assert!(done && call.name == "fsync", "{what}: {output}");
                // What is in force is in use: later callers see the file as it is now.
                assert!(
                    job != "rotate" || output.contains("holds version 1"),
                    "{what}: {output}"
                );
                not_synced += 1;
            } else {
                assert!(!done && output.contains("failed: File(Io)"), "{what}: {output}");
                assert!(
                    output.contains(path.parent().unwrap().to_str().unwrap()),
                    "{what}: the path is missing: {output}"
                );
            }
        }
        assert_eq!(not_synced, 1, "{job}");
    }
}

/// The file was known to be what is in memory when its reading began, not when it ended.
#[test]
fn the_age_counts_from_before_the_file_was_read() {
    if !strace::works() {
        return;
    }
    let calls = calls("refresh");
    let read = calls.iter().rfind(|call| call.is("read", "/keyring.json>"));
    let (_directory, path) = ready_for("refresh");
    let output = read.unwrap().inject(&child("refresh", &path), "delay_enter=300000");
    let output = String::from_utf8(output.stdout).unwrap();
    let (_, age) = output.split_once("refreshed ").unwrap();
    let (age, _) = age.split_once(" ms ago").unwrap();
    assert!(age.parse::<u32>().unwrap() >= 300, "{output}");
}

/// A file that grows while it is read takes no more memory than the longest keyring.
#[test]
fn a_file_that_grows_while_it_is_read_is_refused_at_the_limit() {
    const MAX_LEN: u64 = 64 * 1024 * 1024;
    if !strace::works() {
        return;
    }
    let calls = calls("refresh");
    let read = calls.iter().find(|call| call.is("read", "/keyring.json>")).unwrap();
    let (_directory, path) = ready_for("refresh");
    let stopped = Stopped::after(read, "refresh", &path);
    let length = fs::metadata(&path).unwrap().len();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(MAX_LEN + (1 << 20)).unwrap();
    let log = stopped.resume_with_log();
    assert!(log.0.contains("failed: File(TooLarge)"), "{}", log.0);
    // `[pid  1234] read(3, ""..., 67108864) = 67108864`
    let reads = log
        .1
        .lines()
        .filter(|line| line.contains("read("))
        .filter_map(|line| line.rsplit_once(" = "));
    let later: u64 = reads.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum();
    assert_eq!(length + later, MAX_LEN + 1, "{}", log.1);
}

/// FORMAT.md C4: lock, read, write the new file, sync it, check everything, rename, sync the directory, unlock.
#[test]
fn a_writer_does_all_steps_in_their_order() {
    if !strace::works() {
        return;
    }
    for (job, replace) in [("create", "linkat"), ("rotate", "rename"), ("change root", "rename")] {
        let calls = calls(job);
        let mut at = 0;
        let mut next = |name: &str, argument: &str| {
            let rest = calls[at..].iter().position(|call| call.is(name, argument));
            at += rest.unwrap_or_else(|| panic!("{job}: no {name}({argument}) after {:#?}", &calls[..at])) + 1;
            calls[at - 1].line.clone()
        };
        let made = |text: String| text.rsplit(" = ").next().unwrap().to_owned();
        let lock = made(next("openat", ".keyring.json.lock\", O_WRONLY"));
        next("flock", &format!("flock({lock}, LOCK_EX)"));
        next("statx", "/.keyring.json.lock");
        if job != "create" {
            next("openat", "/keyring.json\", O_RDONLY");
        }
        let directory = made(next("openat", "O_RDONLY|O_CLOEXEC) "));
        let temporary = made(next("openat", "O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) "));
        next("write", &format!("write({temporary}, "));
        next("fsync", &format!("fsync({temporary})"));
        next("statx", "/.keyring.json.lock");
        next(replace, "/keyring.json\"");
        next("fsync", &format!("fsync({directory})"));
        next("close", &format!("close({lock})"));
    }
}

/// A child process that is stopped after one of its system calls.
struct Stopped {
    strace: Child,
    lines: BufReader<ChildStderr>,
    thread: String,
}

impl Stopped {
    fn after(call: &Call, job: &str, path: &Path) -> Self {
        let (trace, inject) = call.options("signal=SIGSTOP");
        let mut strace = strace::traced(&["-e", &trace, "-e", &inject], &child(job, path));
        strace.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut strace = strace.spawn().unwrap();
        let mut lines = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("--- stopped by SIGSTOP ---") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "not stopped: {call:?}");
        }
        // `[pid  1234] --- stopped by SIGSTOP ---`
        let thread = line.split(['[', ']']).nth(1).unwrap();
        let thread = thread.trim_start_matches("pid").trim().to_owned();
        Self { strace, lines, thread }
    }

    /// Continues the process, and returns its report.
    fn resume(self) -> String {
        self.resume_with_log().0
    }

    /// Lets it go on, and returns what it reports, and what strace shows: later calls of the same name.
    fn resume_with_log(mut self) -> (String, String) {
        let script = format!("kill -CONT {}", self.thread);
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        let output = self.strace.wait_with_output().unwrap();
        assert!(output.status.success(), "{rest}");
        (String::from_utf8(output.stdout).unwrap(), rest)
    }
}

/// The calls of a rotation after which the process is stopped: those that change something, and the last check. With
/// `DEKSEAL_EVERY_CALL=1`, all calls.
fn stops() -> Vec<Call> {
    let all = std::env::var("DEKSEAL_EVERY_CALL").as_deref() == Ok("1");
    let mut calls = calls("rotate");
    let last_check = before_rename(&calls).clone();
    let changes = ["flock", "fchmod", "write", "fsync", "rename"];
    let opens = |call: &Call| call.is("openat", "O_WRONLY") || call.is("openat", "/keyring.json\"");
    calls.retain(|call| {
        let stop = all || changes.contains(&&*call.name) || opens(call) || call.line == last_check.line;
        stop && !call.line.contains("rotated")
    });
    calls
}

fn before_rename(calls: &[Call]) -> &Call {
    let at = calls.iter().position(|call| call.name == "rename").unwrap();
    &calls[at - 1]
}

/// Writer A has written its temporary file, or has even checked everything. Its lock file is removed or replaced,
/// writer B starts and is killed, and A continues.
#[test]
fn two_writers_without_a_common_lock_leave_a_whole_file() {
    if !strace::works() {
        return;
    }
    let calls = calls("rotate");
    let call = |name: &str| calls.iter().find(|call| call.name == name).unwrap();
    for (stop, replaced) in [
        (call("fsync"), false),
        (before_rename(&calls), false),
        (before_rename(&calls), true),
    ] {
        let (_directory, path) = ready_for("rotate");
        let a = Stopped::after(stop, "rotate", &path);
        let lock = path.with_file_name(".keyring.json.lock");
        fs::remove_file(&lock).unwrap();
        if replaced {
            fs::write(lock, "").unwrap();
        }
        call("write").kill_before(&child("rotate", &path));
        let reported = a.resume();
        let done = is_done("rotate", &path, &stop.line);
        assert_eq!(done, reported.contains("rotated 1"), "{}: {reported}", stop.line);
    }
}

/// At each call of writer A, its lock file is removed and writer B rotates. Every rotation that either of them reports
/// is in the file.
#[test]
fn two_writers_without_a_common_lock_lose_no_rotation() {
    if !strace::works() {
        return;
    }
    let (_directory, path) = ready_for("rotate");
    let mut conflicts = 0;
    for call in stops() {
        let before = version(&FileKeyring::open(&path, root()).unwrap());
        let a = Stopped::after(&call, "rotate", &path);
        let _ = fs::remove_file(path.with_file_name(".keyring.json.lock"));
        let b = child("rotate", &path).output().unwrap();
        let reported = a.resume() + &String::from_utf8(b.stdout).unwrap();
        let after = version(&FileKeyring::open(&path, root()).unwrap());
        let rotations = reported.matches("rotated ").count();
        assert_eq!((after - before) as usize, rotations, "after {}: {reported}", call.line);
        conflicts += reported.matches("failed: File(Conflict)").count();
        assert_eq!(
            reported.matches("failed: ").count() + rotations,
            2,
            "after {}: {reported}",
            call.line
        );
    }
    assert!(conflicts >= 3, "only {conflicts} conflicts");
}

/// The effect of another program, which holds no lock, on a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Made {
    Nothing,
    Copy,
    Link,
    Directory,
}

impl Made {
    fn of(self, path: &Path, copy: &Path) {
        fs::copy(path, copy).unwrap();
        fs::remove_file(path).unwrap();
        match self {
            Self::Nothing => {}
            Self::Copy => drop(fs::copy(copy, path).unwrap()),
            Self::Link => std::os::unix::fs::symlink(copy, path).unwrap(),
            Self::Directory => fs::create_dir(path).unwrap(),
        }
    }
}

/// At each call of a writer, another program removes or replaces a file. The report of the writer is true, and the next
/// writer works.
#[test]
fn a_file_that_is_removed_or_replaced_between_any_two_calls_makes_no_report_false() {
    if !strace::works() {
        return;
    }
    let mut conflicts = 0;
    for call in stops() {
        for made in [Made::Nothing, Made::Copy, Made::Link, Made::Directory] {
            for which in ["lock", "temporary", "keyring"] {
                let (_directory, path) = ready_for("rotate");
                let copies = tempfile::tempdir().unwrap();
                let stopped = Stopped::after(&call, "rotate", &path);
                let was_renamed = version(&FileKeyring::open(&path, root()).unwrap()) == 1;
                let file = beside(&path, which);
                if let Some(file) = &file {
                    made.of(file, &copies.path().join("copy"));
                }
                let reported = stopped.resume();
                let what = format!("{which} made {made:?} after {}: {reported}", call.line);
                let rotated = reported.contains("rotated 1");
                let refused = ["Conflict", "Io"].map(|kind| reported.contains(&format!("failed: File({kind})")));
                assert!(rotated || refused.contains(&true), "{what}");
                let unlinked = which == "temporary" && made == Made::Nothing && file.is_some();
                assert!(!unlinked || refused[0], "{what}");
                conflicts += u32::from(refused[0]);
                match FileKeyring::open(&path, root()) {
                    Ok(keyring) => assert_eq!(version(&keyring) == 1, rotated, "{what}"),
                    Err(_) => assert!(which == "keyring" && (was_renamed || !rotated), "{what}"),
                }
                // The other program restores all files.
                for file in file.into_iter().filter(|file| made == Made::Directory && file.is_dir()) {
                    fs::remove_dir(file).unwrap();
                }
                if which == "lock" && made == Made::Link {
                    let _ = fs::remove_file(path.with_file_name(".keyring.json.lock"));
                }
                if !path.exists() {
                    fs::copy(copies.path().join("copy"), &path).unwrap();
                }
                is_done("rotate", &path, &what);
            }
        }
    }
    assert!(conflicts > 50, "only {conflicts} conflicts");
}

/// A file of the keyring, if it exists.
fn beside(path: &Path, which: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    match which {
        "keyring" => Some(path.to_owned()),
        "lock" => paths.find(|path| path.ends_with(".keyring.json.lock")),
        _ => paths.find(|path| path.to_str().unwrap().contains(".tmp-")),
    }
}

/// Other programs create the keyring, or remove the lock file, while `create` has its own file ready.
#[test]
fn create_replaces_nothing_and_keeps_its_lock() {
    if !strace::works() {
        return;
    }
    let calls = calls("create");
    let written = calls.iter().find(|call| call.name == "fsync").unwrap();

    let (directory, path) = ready_for("create");
    let stopped = Stopped::after(written, "create", &path);
    fs::write(&path, "precious").unwrap();
    let reported = stopped.resume();
    assert!(reported.contains("failed: File(Exists)"), "{reported}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        2,
        "the file and its lock"
    );

    let (directory, path) = ready_for("create");
    let stopped = Stopped::after(written, "create", &path);
    fs::remove_file(path.with_file_name(".keyring.json.lock")).unwrap();
    let reported = stopped.resume();
    assert!(reported.contains("failed: File(Conflict)"), "{reported}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
