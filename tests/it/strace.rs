//! Runs a program under strace, which records its system calls, or kills it just before one of them.

use std::{
    collections::HashMap,
    process::{Command, Output},
};

/// Whether strace works here. A test that needs it returns early when it does not; with `REQUIRE_TOOLS=1` in the
/// environment that is a failure.
pub(crate) fn works() -> bool {
    let output = Command::new("strace").args(["-f", "-e", "trace=none", "true"]).output();
    let works = output.as_ref().is_ok_and(|output| output.status.success());
    if !works {
        let required = std::env::var_os("REQUIRE_TOOLS").is_some_and(|value| value == "1");
        assert!(!required, "strace is missing or may not trace: {output:?}");
        eprintln!("skipped: strace is missing or may not trace");
    }
    works
}

/// `command` under strace with these options.
pub(crate) fn traced(options: &[&str], command: &Command) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq"]).args(options);
    traced.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        traced.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced
}

/// A system call of a recorded run.
pub(crate) struct Call {
    pub(crate) name: String,
    /// It is the `nth` call of that name in the run, counted from 1.
    pub(crate) nth: usize,
    /// Name, arguments and result, as strace writes them. Each file descriptor has its path: `3</tmp/sealed>`.
    pub(crate) line: String,
}

impl Call {
    /// Runs `command` until just before this call, and kills it there. It must be killed: the run must repeat the
    /// recorded one.
    pub(crate) fn kill_before(&self, command: &Command) {
        let output = inject(command, &self.name, &format!("signal=SIGKILL:when={}", self.nth));
        assert!(!output.status.success(), "it ended before {}", self.line);
    }
}

/// Runs `command` with a fault that strace injects into the system call `name`.
pub(crate) fn inject(command: &Command, name: &str, fault: &str) -> Output {
    let (trace, inject) = (format!("trace={name}"), format!("inject={name}:{fault}"));
    let options = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
    traced(&options, command).output().unwrap()
}

/// The system calls of a run of `command`, which must succeed.
pub(crate) fn calls(command: &Command) -> Vec<Call> {
    let output = traced(&["-y", "-s", "1024"], command).output().unwrap();
    let trace = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{trace}");
    let mut seen = HashMap::<_, usize>::new();
    let calls = trace.lines().filter_map(|line| {
        // Another thread's call begins with `[pid 1234] `.
        let line = line
            .strip_prefix("[pid")
            .map_or(line, |rest| rest.split_once("] ").unwrap().1);
        let (name, _) = line.split_once('(')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (is_name && !name.is_empty()).then(|| {
            let nth = seen.entry(name.to_owned()).and_modify(|nth| *nth += 1).or_insert(1);
            Call {
                name: name.to_owned(),
                nth: *nth,
                line: line.to_owned(),
            }
        })
    });
    calls.collect()
}
