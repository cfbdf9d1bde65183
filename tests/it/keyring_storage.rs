//! Locking and replacing a keyring file (FORMAT.md C4): links, owners, sizes, and concurrent writers.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use dekseal::{CmkVersion, ErrorKind, FileFault, FileKeyring, Keyset};
use tempfile::TempDir;

use crate::{
    keyring_file::{directory, root},
    support::{KEY_ID, cmk, key_id, this_test},
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

/// This test binary, run again to do only `job` with the keyring at `path`.
pub(crate) fn child(job: &str, path: &Path) -> Command {
    let mut command = this_test();
    command
        .args(["--exact", "keyring_storage::child_process", "--nocapture"])
        .envs([(JOB, job.as_ref()), (PATH, path.as_os_str())])
        // cargo sets this variable. The child needs no library from there, and would make a system call for each
        // directory.
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::null());
    command
}

/// strace counts the calls of each thread. To let it pick out a call of the job, this thread first makes more calls
/// than the main thread makes at all, and then one that marks the start.
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

/// The jobs of the child process. Without a job, it does nothing.
#[test]
fn child_process() {
    let Ok(job) = std::env::var(JOB) else {
        return;
    };
    let path = std::env::var_os(PATH).unwrap();
    let open = || FileKeyring::open(&path, root());
    // The file is restored from a copy that lacks a rotation.
    let rolled_back = ["adopt", "write back"].contains(&job.as_str()).then(|| {
        let keyring = open().unwrap();
        let copy = fs::read(&path).unwrap();
        keyring.update(|keys| keys.rotate(&key_id(KEY_ID))).unwrap();
        fs::write(&path, copy).unwrap();
        assert_eq!(kind(keyring.refresh()), ErrorKind::File(FileFault::RolledBack));
        keyring
    });
    let_strace_count();
    let done = match job.as_str() {
        "create" => FileKeyring::create(&path, root()).map(|_| "created".to_owned()),
        "create key" => open()
            .and_then(|keyring| keyring.update(|keys| keys.create_key(key_id(KEY_ID))))
            .map(|()| "created".to_owned()),
        "rotate" => open().and_then(|keyring| {
            let rotated = keyring.update(|keys| keys.rotate(&key_id(KEY_ID)));
            let rotated = rotated.inspect_err(|_| {
                let held = keyring.keys().info(&key_id(KEY_ID)).unwrap();
                println!("holds version {}", held.current_version);
            });
            Ok(format!("rotated {}", rotated?))
        }),
        "refresh" => open().and_then(|keyring| {
            keyring.refresh()?;
            Ok(format!("refreshed {} ms ago", keyring.age().as_millis()))
        }),
        "destroy versions" => open()
            .and_then(|keyring| keyring.update(|keys| keys.force_destroy_versions(&key_id(KEY_ID), 1)))
            .map(|count| format!("destroyed {count}")),
        "purge" => open()
            .and_then(|keyring| keyring.update(|keys| keys.purge(&key_id(KEY_ID))))
            .map(|()| "purged".to_owned()),
        "adopt" => rolled_back.unwrap().adopt().map(|()| "adopted".to_owned()),
        "write back" => rolled_back.unwrap().write_back().map(|()| "written back".to_owned()),
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

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn kind<T: std::fmt::Debug>(result: Result<T, dekseal::Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

const CONFLICT: ErrorKind = ErrorKind::File(FileFault::Conflict);
const EXISTS: ErrorKind = ErrorKind::File(FileFault::Exists);
const IO: ErrorKind = ErrorKind::File(FileFault::Io);
const TOO_LARGE: ErrorKind = ErrorKind::File(FileFault::TooLarge);
const LOCK: &str = ".keyring.json.lock";
const TEMPORARY: &str = ".keyring.json.tmp-0123456789abcdef";

/// A temporary file has the name of the keyring and 22 more characters. Names end at 255 bytes on most systems.
#[test]
fn create_leaves_no_lock_file_if_no_temporary_file_can_be_made() {
    let (directory, _) = directory();
    for length in [234, 249, 250, 255, 256] {
        let path = directory.path().join("n".repeat(length));
        assert_eq!(kind(FileKeyring::create(path, root())), IO, "{length}");
        assert_eq!(names(directory.path()), [""; 0], "{length}");
    }
    FileKeyring::create(directory.path().join("n".repeat(233)), root()).unwrap();
}

/// The closure of an update runs while the lock is held, between reading and writing.
#[test]
fn a_change_in_the_middle_of_an_update_is_a_conflict() {
    let (directory, path) = directory();
    let keyring = with_key(&path);
    let theirs = FileKeyring::open(&path, root()).unwrap();
    let (lock, aside) = (path.with_file_name(LOCK), path.with_file_name("aside"));
    let replace = |from: &Path, to: &Path| {
        fs::copy(from, &aside).unwrap();
        fs::rename(&aside, to).unwrap();
    };
    let rotate = |keys: &mut Keyset| keys.rotate(&key_id(KEY_ID));
    let changes: [(&str, &dyn Fn()); 7] = [
        ("the lock file is removed", &|| fs::remove_file(&lock).unwrap()),
        ("the lock file is removed and another process rotates", &|| {
            fs::remove_file(&lock).unwrap();
            theirs.update(rotate).unwrap();
        }),
        ("the lock file is replaced", &|| replace(&lock, &lock)),
        ("the lock file becomes a directory", &|| {
            fs::remove_file(&lock).unwrap();
            fs::create_dir(&lock).unwrap();
        }),
        ("the keyring is replaced by a copy", &|| replace(&path, &path)),
        ("the keyring is written to", &|| {
            let same = fs::read(&path).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            fs::write(&path, same).unwrap();
        }),
        ("the keyring is removed", &|| fs::remove_file(&path).unwrap()),
    ];
    for (what, change) in changes {
        let before = FileKeyring::open(&path, root()).unwrap().generation();
        let rotated = keyring.update(|keys| {
            change();
            keys.rotate(&key_id(KEY_ID))
        });
        let error = rotated.expect_err(what);
        assert_eq!((error.kind(), error.path()), (CONFLICT, Some(&*path)), "{what}");
        if lock.is_dir() {
            fs::remove_dir(&lock).unwrap();
        }
        if !path.exists() {
            assert_eq!(names(directory.path()), [LOCK]);
            continue;
        }
        let after = FileKeyring::open(&path, root()).unwrap().generation();
        assert_eq!(after, before + u64::from(what.ends_with("rotates")), "{what}");
        // The second attempt works.
        keyring.update(rotate).expect(what);
        assert_eq!(names(directory.path()), [LOCK, "keyring.json"], "{what}");
    }
}

/// Otherwise the writer would hold a lock that no other writer asks for.
#[test]
fn a_lock_file_that_is_removed_while_a_writer_waits_is_made_again() {
    let (_directory, path) = directory();
    let keyring = with_key(&path);
    let lock = File::open(path.with_file_name(LOCK)).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| keyring.update(|keys| keys.rotate(&key_id(KEY_ID))));
        std::thread::sleep(std::time::Duration::from_millis(100));
        fs::remove_file(path.with_file_name(LOCK)).unwrap();
        lock.unlock().unwrap();
        assert_eq!(writer.join().unwrap().unwrap(), 1);
    });
    assert!(path.with_file_name(LOCK).exists());
}

#[test]
fn a_writer_removes_what_killed_writers_left_and_nothing_else() {
    let (directory, path) = directory();
    let keyring = with_key(&path);
    let others = [
        ".keyring.json.tmp",
        ".keyring.json.tmp-0123456789abcde",
        ".keyring.json.tmp-0123456789abcdef0",
        ".keyring.json.tmp-0123456789abcdeg",
        ".keyring.jsonx.tmp-0123456789abcdef",
        "keyring.json.tmp-0123456789abcdef",
    ];
    for name in others.into_iter().chain([TEMPORARY]) {
        fs::write(path.with_file_name(name), "left").unwrap();
    }
    keyring.update(|keys| keys.rotate(&key_id(KEY_ID))).unwrap();
    let mut expected: Vec<_> = others.into_iter().chain([LOCK, "keyring.json"]).collect();
    expected.sort_unstable();
    assert_eq!(names(directory.path()), expected);
}

#[test]
fn one_of_many_concurrent_creations_succeeds() {
    for _ in 0..5 {
        let (directory, path) = directory();
        let spawn = |_| child("create", &path).stdout(Stdio::piped()).spawn().unwrap();
        let children: Vec<_> = (0..6).map(spawn).collect();
        let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap());
        let reports: Vec<_> = outputs
            .map(|output| String::from_utf8(output.stdout).unwrap())
            .collect();
        let count = |text: &str| reports.iter().filter(|report| report.contains(text)).count();
        assert_eq!((count("created"), count("failed: File(Exists)")), (1, 5), "{reports:?}");
        assert_eq!(names(directory.path()), [LOCK, "keyring.json"]);
        assert!(FileKeyring::open(&path, root()).unwrap().keys().list().is_empty());
    }
}

/// Both processes open the keyring first, so each starts from a state that the other replaces.
#[test]
fn one_of_two_concurrent_changes_of_root_succeeds() {
    let (_directory, path) = directory();
    with_key(&path);
    let spawn = |_| child("change root", &path).stdout(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = (0..4).map(spawn).collect();
    let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap());
    let reports: Vec<_> = outputs
        .map(|output| String::from_utf8(output.stdout).unwrap())
        .collect();
    let count = |text: &str| reports.iter().filter(|report| report.contains(text)).count();
    assert_eq!(
        (count("changed root"), count("failed: File(WrongRoot)")),
        (1, 3),
        "{reports:?}"
    );
    let keyring = FileKeyring::open(&path, new_root()).unwrap();
    assert_eq!(keyring.generation(), 3);
}

#[test]
fn a_change_of_root_starts_from_what_the_file_holds() {
    let (_directory, path) = directory();
    let ours = with_key(&path);
    let theirs = FileKeyring::open(&path, root()).unwrap();
    theirs.update(|keys| keys.rotate(&key_id(KEY_ID))).unwrap();
    // Without a refresh before.
    ours.change_root(new_root()).unwrap();
    let read = FileKeyring::open(&path, new_root()).unwrap();
    assert_eq!(read.keys().info(&key_id(KEY_ID)).unwrap().current_version, 1);
    assert_eq!(read.generation(), 4);
    assert_eq!(
        kind(theirs.change_root(new_root())),
        ErrorKind::File(FileFault::WrongRoot)
    );
}

/// A test with a mebibyte more or less would not show whether the limit is exact.
#[test]
fn a_file_of_64_mib_is_read_and_one_of_a_byte_more_is_not() {
    let (_directory, path) = directory();
    with_key(&path);
    let mut bytes = fs::read(&path).unwrap();
    bytes.resize(64 * 1024 * 1024, b' ');
    fs::write(&path, &bytes).unwrap();
    FileKeyring::open(&path, root()).unwrap();
    bytes.push(b' ');
    fs::write(&path, &bytes).unwrap();
    let error = FileKeyring::open(&path, root()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (TOO_LARGE, Some(&*path)));
}

#[test]
fn a_huge_file_is_refused_before_it_is_read() {
    let (_directory, path) = directory();
    with_key(&path);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let used = allocation_counter::measure(|| {
        assert_eq!(kind(FileKeyring::open(&path, root())), TOO_LARGE);
    });
    assert!(used.bytes_max < 64 * 1024, "{used:?}");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        process::CommandExt,
    };

    use super::*;

    fn rotate(keyring: &FileKeyring) -> Result<u32, dekseal::Error> {
        keyring.update(|keys| keys.rotate(&key_id(KEY_ID)))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    /// A directory with the keyring, beside a directory with links to it.
    fn with_target() -> (TempDir, PathBuf, PathBuf) {
        let (directory, link) = directory();
        let target = directory.path().join("elsewhere");
        fs::create_dir(&target).unwrap();
        (directory, link, target.join("target.json"))
    }

    #[test]
    fn a_write_through_a_link_replaces_the_file_it_leads_to() {
        let (directory, link, target) = with_target();
        with_key(&target);
        symlink(&target, &link).unwrap();
        let keyring = FileKeyring::open(&link, root()).unwrap();
        rotate(&keyring).unwrap();
        keyring.change_root(new_root()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(FileKeyring::open(&target, new_root()).unwrap().generation(), 4);
        // The lock and the temporary files are beside the target.
        assert_eq!(names(directory.path()), ["elsewhere", "keyring.json"]);
        assert_eq!(names(target.parent().unwrap()), [".target.json.lock", "target.json"]);
    }

    /// `keyring.json -> ..data/keyring.json`, `..data -> first`, and `..data` is replaced. Kubernetes updates volumes
    /// in this way.
    #[test]
    fn a_link_that_is_swapped_is_followed_by_the_next_read_and_the_next_write() {
        let (directory, path) = directory();
        let at = |name: &str| directory.path().join(name);
        let (first, second) = (at("first/keyring.json"), at("second/keyring.json"));
        fs::create_dir(at("first")).unwrap();
        fs::create_dir(at("second")).unwrap();
        with_key(&first);
        symlink("first", at("..data")).unwrap();
        symlink("..data/keyring.json", &path).unwrap();
        let keyring = FileKeyring::open(&path, root()).unwrap();
        fs::copy(&first, &second).unwrap();
        rotate(&FileKeyring::open(&second, root()).unwrap()).unwrap();

        symlink("second", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert!(keyring.refresh().unwrap());
        assert_eq!(keyring.generation(), 3);
        assert_eq!(rotate(&keyring).unwrap(), 2);
        assert_eq!(FileKeyring::open(&first, root()).unwrap().generation(), 2);
        assert_eq!(FileKeyring::open(&second, root()).unwrap().generation(), 4);
    }

    #[test]
    fn a_link_that_is_swapped_while_a_writer_waits_is_followed() {
        let (directory, link, target) = with_target();
        with_key(&target);
        symlink(&target, &link).unwrap();
        let keyring = FileKeyring::open(&link, root()).unwrap();
        let moved = directory.path().join("moved.json");
        let lock = File::open(target.with_file_name(".target.json.lock")).unwrap();
        lock.lock().unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| rotate(&keyring));
            std::thread::sleep(std::time::Duration::from_millis(100));
            fs::copy(&target, &moved).unwrap();
            fs::remove_file(&link).unwrap();
            symlink(&moved, &link).unwrap();
            lock.unlock().unwrap();
            assert_eq!(writer.join().unwrap().unwrap(), 1);
        });
        assert_eq!(FileKeyring::open(&target, root()).unwrap().generation(), 2);
        assert_eq!(FileKeyring::open(&moved, root()).unwrap().generation(), 3);
    }

    #[test]
    fn a_link_that_is_swapped_in_the_middle_of_an_update_is_a_conflict() {
        let (directory, link, target) = with_target();
        with_key(&target);
        symlink(&target, &link).unwrap();
        let keyring = FileKeyring::open(&link, root()).unwrap();
        let moved = directory.path().join("moved.json");
        for gone in [false, true] {
            let rotated = keyring.update(|keys| {
                fs::copy(&target, &moved).unwrap();
                fs::remove_file(&link).unwrap();
                if !gone {
                    symlink(&moved, &link).unwrap();
                }
                keys.rotate(&key_id(KEY_ID))
            });
            assert_eq!(kind(rotated), CONFLICT);
            assert_eq!(FileKeyring::open(&target, root()).unwrap().generation(), 2);
            let _ = fs::remove_file(&link);
            symlink(&target, &link).unwrap();
        }
    }

    #[test]
    fn create_follows_no_link() {
        let (directory, link, target) = with_target();
        for leads_to in [&target, &link, &directory.path().join("no/such/file")] {
            symlink(leads_to, &link).unwrap();
            let error = FileKeyring::create(&link, root()).unwrap_err();
            assert_eq!((error.kind(), error.path()), (EXISTS, Some(&*link)));
            assert_eq!(names(directory.path()), ["elsewhere", "keyring.json"]);
            assert!(names(target.parent().unwrap()).is_empty());
            fs::remove_file(&link).unwrap();
        }
        // Links in the path of the directory are followed.
        symlink(target.parent().unwrap(), &link).unwrap();
        FileKeyring::create(link.join("target.json"), root()).unwrap();
        assert_eq!(FileKeyring::open(&target, root()).unwrap().generation(), 1);
    }

    #[test]
    fn a_link_in_the_place_of_a_file_beside_the_keyring_is_not_followed() {
        let (directory, path) = directory();
        let keyring = with_key(&path);
        let (lock, temporary) = (path.with_file_name(LOCK), path.with_file_name(TEMPORARY));
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &temporary).unwrap();
        rotate(&keyring).unwrap();
        assert!(fs::symlink_metadata(&temporary).is_err());

        fs::remove_file(&lock).unwrap();
        for leads_to in [victim.clone(), directory.path().join("nothing")] {
            symlink(&leads_to, &lock).unwrap();
            let error = rotate(&keyring).unwrap_err();
            assert_eq!((error.kind(), error.path()), (IO, Some(&*lock)));
            fs::remove_file(&lock).unwrap();
        }
        assert_eq!(names(directory.path()), ["keyring.json", "victim"]);
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
        assert_eq!(rotate(&keyring).unwrap(), 2);
    }

    /// Opening a pipe would wait for its other end.
    #[test]
    fn only_a_regular_file_is_opened() {
        let (_directory, path) = directory();
        let keyring = with_key(&path);
        let refused = |at: &Path| {
            let results = [
                FileKeyring::open(&path, root()).map(drop),
                keyring.refresh().map(drop),
                rotate(&keyring).map(drop),
            ];
            // Only writers use the lock file.
            for error in results.into_iter().filter_map(Result::err) {
                assert_eq!((error.kind(), error.path()), (IO, Some(at)));
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert_eq!(source, "not a regular file");
            }
            assert!(rotate(&keyring).is_err());
        };
        for at in [path.clone(), path.with_file_name(LOCK)] {
            let aside = path.with_file_name("aside");
            fs::rename(&at, &aside).unwrap();
            assert!(Command::new("mkfifo").arg(&at).status().unwrap().success());
            refused(&at);
            fs::remove_file(&at).unwrap();
            fs::create_dir(&at).unwrap();
            refused(&at);
            fs::remove_dir(&at).unwrap();
            fs::rename(&aside, &at).unwrap();
        }
        assert_eq!(rotate(&keyring).unwrap(), 1);
    }

    #[test]
    fn a_keyring_keeps_its_permissions_and_nobody_else_may_lock() {
        let (_directory, path) = directory();
        let keyring = with_key(&path);
        let lock = path.with_file_name(LOCK);
        assert_eq!((mode(&path), mode(&lock)), (0o600, 0o600));
        for permissions in [0o640, 0o400, 0o664, 0o600] {
            fs::set_permissions(&path, fs::Permissions::from_mode(permissions)).unwrap();
            fs::remove_file(&lock).unwrap();
            rotate(&keyring).unwrap();
            assert_eq!((mode(&path), mode(&lock)), (permissions, 0o600));
        }
    }

    /// Another user of the system.
    const USER: u32 = 12_345;

    /// A directory with a keyring that `USER` made. `None` if this process cannot act as other users, as root can.
    fn of_another_user() -> Option<(TempDir, PathBuf)> {
        let (directory, path) = directory();
        if chown(directory.path(), Some(USER), Some(USER)).is_err() {
            eprintln!("left out: takes root");
            return None;
        }
        assert!(as_user("create", &path).contains("created"));
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.uid(), made.gid()), (USER, USER));
        assert!(as_user("create key", &path).contains("created"));
        Some((directory, path))
    }

    /// The report of a process of `USER`.
    fn as_user(job: &str, path: &Path) -> String {
        let child = child(job, path);
        // The path of the binary may lead through directories that are closed to other users.
        let output = Command::new("/proc/self/exe")
            .args(child.get_args())
            .envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir("/")
            .uid(USER)
            .gid(USER)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn an_update_by_another_user_is_refused_and_leaves_nothing_behind() {
        let Some((directory, path)) = of_another_user() else {
            return;
        };
        let lock = path.with_file_name(LOCK);
        let keyring = FileKeyring::open(&path, root()).unwrap();
        for locked in [true, false] {
            if !locked {
                fs::remove_file(&lock).unwrap();
            }
            let before = names(directory.path());
            for refused in [rotate(&keyring).map(drop), keyring.change_root(new_root())] {
                let error = refused.unwrap_err();
                assert_eq!((error.kind(), error.path()), (IO, Some(&*path)));
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert_eq!(source, "the keyring file belongs to another user");
            }
            assert_eq!(names(directory.path()), before);
            assert!(as_user("rotate", &path).contains("rotated"));
        }
        assert_eq!(fs::metadata(&path).unwrap().uid(), USER);
    }

    /// Files of a process of root that was killed, or of a keyring that was given away.
    #[test]
    fn the_files_of_another_user_do_not_lock_the_owner_out() {
        let Some((directory, path)) = of_another_user() else {
            return;
        };
        let lock = path.with_file_name(LOCK);
        fs::remove_file(&lock).unwrap();
        let owner_only = |path: &Path| {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        owner_only(&lock);
        assert!(as_user("rotate", &path).contains("rotated 1"));
        assert_eq!(fs::metadata(&lock).unwrap().uid(), USER);
        // In a directory where only the owner of a file may remove it.
        chown(directory.path(), Some(0), Some(0)).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        owner_only(&path.with_file_name(TEMPORARY));
        assert!(as_user("rotate", &path).contains("rotated 2"));
    }

    #[test]
    fn a_keyring_keeps_its_group_or_its_group_loses_its_rights() {
        let Some((_directory, path)) = of_another_user() else {
            return;
        };
        let give = |user, group, permissions| {
            chown(&path, Some(user), Some(group)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(permissions)).unwrap();
        };
        let group_and_mode = || (fs::metadata(&path).unwrap().gid(), mode(&path));
        // The user is in no other group.
        give(USER, 54_321, 0o644);
        assert!(as_user("rotate", &path).contains("rotated 1"));
        assert_eq!(group_and_mode(), (USER, 0o604));
        // Root may give a file to any group.
        give(0, 54_321, 0o640);
        fs::remove_file(path.with_file_name(LOCK)).unwrap();
        rotate(&FileKeyring::open(&path, root()).unwrap()).unwrap();
        assert_eq!(group_and_mode(), (54_321, 0o640));
    }
}
