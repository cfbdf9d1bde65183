//! What no document of a test is long enough for.

use std::{fs, vec};

use super::*;

#[test]
fn nothing_is_written_that_could_not_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::new(&directory.path().join("keyring.json")).unwrap();
    let longest = vec![b' '; 64 * 1024 * 1024];
    let longer = vec![b' '; 64 * 1024 * 1024 + 1];
    let too_large = |written: Result<(), Error>| {
        let error = written.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File(FileFault::TooLarge));
        assert_eq!(error.path(), Some(storage.path()));
    };
    too_large(storage.create(&longer));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    storage.create(b"{}").unwrap();
    let (writer, present) = storage.lock().unwrap().read().unwrap();
    assert_eq!(present.text, b"{}");
    too_large(writer.write(&longer));
    assert_eq!(fs::read(storage.path()).unwrap(), b"{}");
    let (writer, _) = storage.lock().unwrap().read().unwrap();
    writer.write(&longest).unwrap();
    assert_eq!(storage.read().unwrap().text.len(), longest.len());
}
