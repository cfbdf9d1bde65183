//! How a keyring file is locked and replaced (FORMAT.md C4): links, owners, sizes, and writers that meet.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    process::Command,
};

use dekseal::{CmkVersion, FileKeyring};

use crate::{
    keyring_file::root,
    support::{KEY_ID, cmk, key_id},
};

const JOB: &str = "DEKSEAL_STORAGE_JOB";
const PATH: &str = "DEKSEAL_STORAGE_PATH";
pub(crate) const START: &str = "/dekseal-storage-job";

pub(crate) fn new_root() -> CmkVersion {
    cmk("00000000-0000-0000-0000-00000000root", 1, &[0x78; 32])
}

/// A keyring with one key.
pub(crate) fn with_key(path: &Path) -> FileKeyring {
    let keyring = FileKeyring::create(path, root()).unwrap();
    keyring.update(|keys| keys.create_key(key_id(KEY_ID))).unwrap();
    keyring
}

/// This test binary again, which does `job` to the keyring at `path` and nothing else.
pub(crate) fn child(job: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "keyring_storage::child_process", "--nocapture"])
        .envs([(JOB, job.as_ref()), (PATH, path.as_os_str())]);
    command
}

/// strace counts the calls of each thread. So that it can pick out a call of the job, this thread makes more of them beforehand than
/// the main thread makes at all, and then one that marks the start.
fn let_strace_count() {
    for _ in 0..40 {
        let mut null = File::options().read(true).write(true).open("/dev/null").unwrap();
        null.write_all(b"x").unwrap();
        assert_eq!(null.read(&mut [0]).unwrap(), 0);
        null.metadata().unwrap();
        assert!(fs::read_dir("/").unwrap().next().is_some());
    }
    assert!(fs::symlink_metadata(START).is_err());
}

/// What a child does; without a job, nothing.
#[test]
fn child_process() {
    let Ok(job) = std::env::var(JOB) else {
        return;
    };
    let path = std::env::var_os(PATH).unwrap();
    let_strace_count();
    let open = || FileKeyring::open(&path, root());
    let done = match job.as_str() {
        "create" => FileKeyring::create(&path, root()).map(|_| "created".to_owned()),
        "rotate" => open()
            .and_then(|keyring| keyring.update(|keys| keys.rotate(&key_id(KEY_ID))))
            .map(|version| format!("rotated {version}")),
        "change root" => open()
            .and_then(|keyring| keyring.change_root(new_root()))
            .map(|()| "changed root".to_owned()),
        other => panic!("{other}"),
    };
    match done {
        Ok(report) => println!("{report}"),
        Err(error) => println!("failed: {:?}: {error:?}", error.kind()),
    }
}
