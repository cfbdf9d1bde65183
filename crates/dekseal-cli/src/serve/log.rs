//! The log, on standard error. A reader that stops reading it does not stop the server: events that find no room are
//! left out.

use std::{
    io::{self, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
    time::Duration,
};

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use crate::failure::Failure;

/// The events that wait to be written.
const ROOM: usize = 4096;

/// How long the end of the process waits for the last events.
const LAST: Duration = Duration::from_secs(1);

/// Sends events to the thread that writes them.
#[derive(Clone)]
pub(crate) struct Log(SyncSender<Message>);

enum Message {
    Event(Vec<u8>),
    /// Everything before this was written once the sender is dropped.
    Flush(SyncSender<()>),
}

impl Log {
    /// Starts the thread, and sends the events of this process to it.
    pub(crate) fn start(json: bool) -> Result<Self, Failure> {
        let (sender, receiver) = sync_channel(ROOM);
        let writer = thread::Builder::new().name("log".into()).spawn(move || {
            for message in receiver {
                match message {
                    // There is nobody to tell if it fails.
                    Message::Event(event) => drop(io::stderr().write_all(&event)),
                    Message::Flush(done) => drop(done),
                }
            }
        });
        writer.map_err(|error| Failure::of_io("the thread of the log", &error))?;
        let log = Self(sender);
        let builder = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false);
        let builder = builder.with_max_level(Level::INFO).log_internal_errors(false);
        // There is no other subscriber in this process.
        let _ = match json {
            true => builder.json().try_init(),
            false => builder.try_init(),
        };
        Ok(log)
    }

    /// Waits until the events so far are written.
    pub(crate) fn flush(&self) {
        let (done, written) = sync_channel(0);
        if self.0.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST);
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Log {
    /// Takes a whole event, as the subscriber writes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let _ = self.0.try_send(Message::Event(event.to_vec()));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
