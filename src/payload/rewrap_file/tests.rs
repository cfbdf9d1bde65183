//! A disk that fails while a header is replaced.

use alloc::vec;
use std::io::{Cursor, SeekFrom};

use super::*;
use crate::blob::SealedDek;

const OLD: HeaderBytes = [1; PayloadHeader::LEN];

/// A header that differs from `OLD` in the sealed DEK.
fn new() -> HeaderBytes {
    let mut new = OLD;
    new[SEALED_DEK..COMMITMENT].fill(2);
    new
}

#[derive(Clone, Copy)]
enum Fault {
    None,
    /// One write fails after this many bytes.
    WriteOnce(usize),
    /// Writes fail from this many bytes on.
    WriteEver(usize),
    /// The first sync fails.
    SyncOnce,
    /// The first write is reported as done, and not done.
    Lost,
}

/// A disk that takes 7 bytes at a time, and interrupts every other call.
struct Faulty {
    file: Cursor<Vec<u8>>,
    synced: Vec<u8>,
    fault: Fault,
    written: usize,
    interrupt: bool,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        let bytes = [&OLD[..], b"segments"].concat();
        Self {
            file: Cursor::new(bytes.clone()),
            synced: bytes,
            fault,
            written: 0,
            interrupt: false,
        }
    }

    fn interrupt(&mut self) -> io::Result<()> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    /// Asserts that the file has this header, in memory and on disk, and that the rest is unchanged.
    fn has(&self, header: &HeaderBytes) {
        let expected = [&header[..], b"segments"].concat();
        assert!(*self.file.get_ref() == expected, "in the file");
        assert!(self.synced == expected, "on disk");
    }
}

impl Read for Faulty {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.interrupt()?;
        let most = room.len().min(7);
        self.file.read(&mut room[..most])
    }
}

impl Write for Faulty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupt()?;
        let mut most = bytes.len().min(7);
        match self.fault {
            Fault::WriteOnce(after) if self.written >= after => {
                self.fault = Fault::None;
                return Err(io::ErrorKind::StorageFull.into());
            }
            Fault::WriteEver(after) if self.written >= after => return Err(io::ErrorKind::StorageFull.into()),
            Fault::WriteOnce(after) | Fault::WriteEver(after) => {
                most = most.min(after.saturating_sub(self.written));
            }
            Fault::Lost => {
                self.fault = Fault::None;
                self.file.seek(SeekFrom::Current(most.try_into().unwrap()))?;
                return Ok(most);
            }
            Fault::None | Fault::SyncOnce => {}
        }
        self.written = self.written.saturating_add(most);
        self.file.write(&bytes[..most])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Faulty {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Disk for Faulty {
    fn sync(&mut self) -> io::Result<()> {
        if let Fault::SyncOnce = self.fault {
            self.fault = Fault::None;
            return Err(io::Error::other("input/output error"));
        }
        self.synced = self.file.get_ref().clone();
        Ok(())
    }
}

#[test]
fn short_writes_and_interruptions_do_no_harm() {
    let mut disk = Faulty::new(Fault::None);
    exchange(&mut disk, &OLD, &new()).unwrap();
    disk.has(&new());
    assert_eq!(disk.written, SealedDek::LEN);
}

#[test]
fn the_old_header_is_written_back_when_the_new_one_cannot_be_written() {
    let faults = (0..SealedDek::LEN).map(Fault::WriteOnce);
    for fault in faults.chain([Fault::SyncOnce, Fault::Lost]) {
        let mut disk = Faulty::new(fault);
        let failed = exchange(&mut disk, &OLD, &new()).unwrap_err();
        assert!(failed.restored);
        disk.has(&OLD);
    }
}

#[test]
fn it_is_told_when_the_old_header_cannot_be_written_back() {
    for after in 0..SealedDek::LEN {
        let failed = exchange(&mut Faulty::new(Fault::WriteEver(after)), &OLD, &new()).unwrap_err();
        assert!(!failed.restored);
        assert_eq!(failed.error.kind(), io::ErrorKind::StorageFull);
    }
}

#[test]
fn a_header_that_changed_meanwhile_is_left_alone() {
    let mut disk = Faulty::new(Fault::None);
    let other = vec![3; 300];
    disk.file = Cursor::new(other.clone());
    let failed = exchange(&mut disk, &OLD, &new()).unwrap_err();
    assert_eq!(failed.error.kind(), io::ErrorKind::ResourceBusy);
    assert!(*disk.file.get_ref() == other && disk.written == 0);
}
