//! A rotation that is killed or fails at each of its system calls, and two at once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use dekseal_parquet::{KeyMaterial, rotate_master_keys};

use crate::{
    strace::{self, Call},
    support::{FOOTER, Form, Setup, id, read, write},
};

/// A file with key material beside it under version 0 of keys that have version 1.
fn ready() -> (Setup, PathBuf) {
    let setup = Setup::new();
    let form = Form::all(&[128]).into_iter().find(|form| form.external && !form.double);
    let form = form.unwrap();
    let path = setup.file(&form.name());
    write(&setup.kms(), form, &path);
    setup.rotate();
    (setup, path)
}

/// This process, as one that rotates.
fn child(setup: &Setup, path: &PathBuf) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "kills::rotate_in_a_child", "--ignored", "--test-threads=1"]);
    child.env("DIRECTORY", setup.directory.path()).env("FILE", path);
    child
}

#[test]
#[ignore = "the other tests run it as a process"]
fn rotate_in_a_child() {
    let [directory, file] = ["DIRECTORY", "FILE"].map(|name| PathBuf::from(std::env::var_os(name).unwrap()));
    let kms = Setup::kms_in(&directory, "orders");
    rotate_master_keys(&kms, file).unwrap();
}

/// The version that all keys of a file are under.
fn version(path: &Path) -> u32 {
    let material = KeyMaterial::read(path).unwrap();
    let sealed = material.sealed_deks().unwrap();
    let versions: Vec<_> = sealed.values().map(dekseal::SealedDek::key_version).collect();
    assert!(versions.len() == 2 && versions[0] == versions[1], "{versions:?}");
    versions[0]
}

/// Processors differ in which of its three forms they have.
fn is_rename(call: &Call) -> bool {
    ["rename", "renameat", "renameat2"].contains(&call.name.as_str())
}

/// The calls of a rotation that name the directory or a file in it.
fn calls() -> Vec<Call> {
    let (setup, path) = ready();
    let directory = setup.directory.path().to_str().unwrap().to_owned();
    let mut calls = strace::calls(&child(&setup, &path));
    assert_eq!(version(&path), 1);
    calls.retain(|call| call.line.contains(&directory) && call.name != "execve");
    assert!(
        calls
            .iter()
            .any(|call| is_rename(call) && call.line.contains("_KEY_MATERIAL_FOR_")),
        "{calls:#?}"
    );
    assert!(
        calls.iter().filter(|call| call.name == "fsync").count() >= 2,
        "the file and its directory"
    );
    calls
}

#[test]
fn a_rotation_that_is_killed_at_any_call_leaves_the_old_keys_or_the_new_ones() {
    if !strace::works() {
        return;
    }
    let mut seen = [0; 2];
    for call in calls() {
        let (setup, path) = ready();
        call.kill_before(&child(&setup, &path));
        seen[usize::try_from(version(&path)).unwrap()] += 1;
        read(&setup.kms(), &path).unwrap();
        // What is left behind is in nobody's way.
        rotate_master_keys(&setup.kms(), &path).unwrap();
        assert_eq!(version(&path), 1);
        read(&setup.kms(), &path).unwrap();
    }
    assert!(seen[0] > 3 && seen[1] > 0, "{seen:?}");
}

#[test]
fn a_rotation_that_fails_at_any_call_says_so_and_leaves_the_old_keys_or_the_new_ones() {
    if !strace::works() {
        return;
    }
    for call in calls() {
        let (setup, path) = ready();
        let output = call.inject(&child(&setup, &path), "error=EIO");
        let (succeeded, version) = (output.status.success(), version(&path));
        // The calls that matter have an effect on the outcome, and a success is one.
        assert!(!succeeded || version == 1, "{}", call.line);
        if is_rename(&call) || ["openat", "write", "fsync"].contains(&call.name.as_str()) {
            assert!(!succeeded, "{}", call.line);
        }
        read(&setup.kms(), &path).unwrap();
    }
}

#[test]
fn readers_beside_two_rotations_always_find_whole_key_material() {
    let (setup, path) = ready();
    thread::scope(|scope| {
        let (setup, path) = (&setup, &path);
        let rotations: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let kms = setup.kms();
                    for _ in 0..50 {
                        kms.engine().keyring().update(|keys| keys.rotate(&id(FOOTER))).unwrap();
                        rotate_master_keys(&kms, path).unwrap();
                    }
                })
            })
            .collect();
        while rotations.iter().any(|rotation| !rotation.is_finished()) {
            read(&setup.kms(), path).unwrap();
        }
    });
    let names = fs::read_dir(setup.directory.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        names.into_iter().all(|name| !name.ends_with(".tmp")),
        "a temporary file is left"
    );
}
