//! Streams of any length need constant memory.

use std::io::{self, Read, Write};

use super::buffers::payload_cipher;
use crate::support::this_test;

/// The number of bytes of the stream, set in the child process. Set `DEKSEAL_STREAM=5368709120` for the test to use 5
/// GiB.
const BYTES: &str = "DEKSEAL_STREAM";
const CHILD: &str = "DEKSEAL_STREAM_CHILD";

/// Measured in a separate process, because the other tests of this process use memory too.
#[test]
fn a_stream_takes_less_than_2_mib() {
    let bytes: u64 = std::env::var(BYTES)
        .ok()
        .map_or_else(default_bytes, |text| text.parse().unwrap());
    if std::env::var_os(CHILD).is_some() {
        return measure(bytes);
    }
    let child = this_test()
        .args([
            "--exact",
            "payload::memory::a_stream_takes_less_than_2_mib",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .env(BYTES, bytes.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    print!("{text}");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    assert!(
        text.contains("1 passed") && text.contains("KiB for"),
        "the child measured nothing:\n{text}"
    );
}

/// Without optimization, a stream is slow.
fn default_bytes() -> u64 {
    if cfg!(debug_assertions) { 8 << 20 } else { 256 << 20 }
}

/// The writer writes into the reader through a pipe, so the payload is never in memory as a whole.
fn measure(bytes: u64) {
    let payload_cipher = payload_cipher();
    // Code is memory too, and is loaded when it first runs. An empty payload runs all code without filling buffers.
    go_through(&payload_cipher, 0);
    let before = peak();
    go_through(&payload_cipher, bytes);
    let grown = peak() - before;
    println!("{grown} KiB for {bytes} bytes, both ways");
    assert!(grown < 2048, "{grown} KiB more for {bytes} bytes");
}

fn go_through(payload_cipher: &dekseal::payload::PayloadCipher, bytes: u64) {
    let (reader, writer) = io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = payload_cipher.encrypt_writer(writer).unwrap();
            io::copy(&mut io::repeat(0x5a).take(bytes), &mut writer).unwrap();
            writer.finish().unwrap();
        });
        let mut reader = payload_cipher.decrypt_reader(reader).unwrap();
        let mut sink = Sink(0);
        io::copy(&mut reader, &mut sink).unwrap();
        assert_eq!(sink.0, bytes);
    });
}

/// Counts the bytes, and checks each of them.
struct Sink(u64);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(bytes.iter().all(|byte| *byte == 0x5a));
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The peak memory of this process in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
