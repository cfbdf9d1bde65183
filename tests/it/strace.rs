//! Runs a program under strace, which records its system calls, or interferes with one of them: it kills or stops the
//! program, or makes the call fail.

use std::{
    collections::HashMap,
    fs,
    process::{Command, Output},
};

/// Whether strace works here. A test that needs it returns early if it does not. With `REQUIRE_TOOLS=1` in the
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

/// Runs `command` under strace with these options.
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
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) thread: String,
    pub(crate) name: String,
    /// This is the `nth` call of that name in its thread, counted from 1, as strace counts.
    pub(crate) nth: usize,
    /// Name, arguments and result, in strace's format. Each file descriptor has its path: `3</tmp/sealed>`.
    pub(crate) line: String,
}

impl Call {
    pub(crate) fn is(&self, name: &str, argument: &str) -> bool {
        self.name == name && self.line.contains(argument)
    }

    /// Runs `command`, which must repeat the recorded run, and lets strace inject `fault` into this call.
    pub(crate) fn inject(&self, command: &Command, fault: &str) -> Output {
        let (trace, inject) = self.options(fault);
        traced(&["-o", "/dev/null", "-e", &trace, "-e", &inject], command)
            .output()
            .unwrap()
    }

    /// Kills `command` just before this call.
    pub(crate) fn kill_before(&self, command: &Command) -> Output {
        let output = self.inject(command, "signal=SIGKILL");
        assert!(!output.status.success(), "it ended before {}", self.line);
        output
    }

    /// The values of the two options `-e`.
    pub(crate) fn options(&self, fault: &str) -> (String, String) {
        let Self { name, nth, .. } = self;
        (format!("trace={name}"), format!("inject={name}:{fault}:when={nth}"))
    }
}

/// The system calls of a run of `command`, which must succeed.
pub(crate) fn calls(command: &Command) -> Vec<Call> {
    calls_with_strings_of(32, command)
}

/// The same, with this many bytes of each string.
pub(crate) fn calls_with_strings_of(length: usize, command: &Command) -> Vec<Call> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let length = length.to_string();
    let output = traced(&["-y", "-s", &length, "-o", log.path().to_str().unwrap()], command)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut seen = HashMap::<_, usize>::new();
    let log = fs::read_to_string(log.path()).unwrap();
    let calls = log.lines().filter_map(|line| {
        let (thread, line) = line.split_once(' ')?;
        let line = line.trim_start();
        let (name, _) = line.split_once('(')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (is_name && !name.is_empty()).then(|| {
            let (thread, name) = (thread.to_owned(), name.to_owned());
            let count = seen.entry((thread.clone(), name.clone())).or_insert(0);
            *count += 1;
            Call {
                thread,
                name,
                nth: *count,
                line: line.to_owned(),
            }
        })
    });
    calls.collect()
}
