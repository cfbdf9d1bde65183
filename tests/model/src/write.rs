//! How a process changes a document.

use crate::{
    configuration::{Configuration, Rule},
    document::{Applied, Change, Document, Moment},
    model::{Event, Seen},
    process::{Cached, Judged, Process, Purpose},
    store::{Fault, Put, State, insert},
};

/// A change under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Write {
    pub change: Change,
    pub step: Step,
    /// The last `put` that was sent.
    pub put: Option<Put>,
    /// When it was sent.
    pub began: Moment,
    /// A newer document was taken up after it was sent.
    pub overtaken: bool,
    pub retries: u8,
    pub resends: u8,
    /// Known to the bystander: all that was tried.
    pub tried: Vec<Document>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Reads the document that the change is applied to.
    Read,
    /// Waits for the store's answer to the `put`.
    Put,
    /// The store has answered whether it carried the `put` out.
    Answered(bool),
    /// Reads the document, to find out whether the `put` was carried out.
    Settle,
}

/// What a process reports to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    Done,
    Failed,
    Unknown,
}

/// What a document in the store says of a `put` of unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    NotDone,
    /// The old document is still there: the request can be under way.
    UnderWay,
    /// A later document that does not say.
    Unsure,
}

impl Process {
    pub fn is_writing_back(&self) -> bool {
        self.write
            .as_ref()
            .is_some_and(|write| write.change == Change::WriteBack)
    }

    fn writing(&mut self) -> &mut Write {
        self.write.as_mut().expect("a change under way")
    }
}

impl State {
    pub fn begin_write(&mut self, configuration: &Configuration, process: usize, change: Change) {
        self.processes[process].write = Some(Write {
            change,
            step: Step::Read,
            put: None,
            began: self.clock,
            overtaken: false,
            retries: configuration.retries,
            resends: configuration.resends,
            tried: Vec::new(),
        });
        self.begin_read(process, Purpose::Write);
    }

    /// The answer to a read of this change has arrived and was judged.
    pub fn write_read(
        &mut self,
        configuration: &Configuration,
        process: usize,
        judged: Judged,
        answer: Option<Document>,
        seen: &mut Seen,
    ) {
        let write = self.processes[process].writing();
        match (judged, write.step) {
            (Judged::Dropped, _) => self.begin_read(process, Purpose::Write),
            (Judged::RolledBack, Step::Settle) => self.report(process, Report::Unknown, seen),
            (Judged::RolledBack, _) => self.fail(process, seen),
            (Judged::Accepted, Step::Settle) => {
                let put = write.put.expect("a put to settle");
                match settle(configuration, &put, answer) {
                    Verdict::Done => {
                        seen.insert(Event::SettledAsDone);
                        // What was read is taken up. What was put may never have been in the store.
                        if put.write_back || !configuration.keeps(Rule::TakeUpWhatWasRead) {
                            self.confirm_put(process, &put);
                        }
                        self.report(process, Report::Done, seen);
                    }
                    Verdict::NotDone => {
                        seen.insert(Event::SettledAsNotDone);
                        self.start_over(configuration, process, answer, seen);
                    }
                    Verdict::UnderWay if !configuration.keeps(Rule::SendSameBytesAgain) => {
                        self.start_over(configuration, process, answer, seen);
                    }
                    Verdict::UnderWay if write.resends > 0 => {
                        seen.insert(Event::SentAgain);
                        write.resends -= 1;
                        write.step = Step::Put;
                        write.overtaken = false;
                        write.began = self.clock;
                    }
                    Verdict::UnderWay | Verdict::Unsure => self.report(process, Report::Unknown, seen),
                }
            }
            (Judged::Accepted, _) => self.send(configuration, process, answer, seen),
        }
    }

    /// Applies the change to what was read, and sends the `put`.
    fn send(&mut self, configuration: &Configuration, process: usize, read: Option<Document>, seen: &mut Seen) {
        let change = self.processes[process].writing().change;
        let applied = match change {
            Change::WriteBack => {
                let held = self.processes[process].cached.map(|cached| cached.document);
                held.map_or(Applied::Nothing, |mut document| {
                    let theirs = read.map_or(0, |read| read.generation);
                    document.generation = document.generation.max(theirs) + 1;
                    Applied::Write(Some(document))
                })
            }
            _ => Document::apply(read, change, self.clock, self.draw, configuration.grace()),
        };
        let Applied::Write(new) = applied else {
            return self.fail(process, seen);
        };
        if matches!(change, Change::Create | Change::Rotate) {
            self.draw();
        }
        if self.processes[process].rolled_back && change != Change::WriteBack {
            self.fault(Fault::ActedAfterRollback);
        }
        let clock = self.clock;
        let writer = &mut self.processes[process];
        let write = writer.writing();
        write.put = Some(Put {
            expected: read,
            new,
            made: clock,
            write_back: change == Change::WriteBack,
        });
        write.step = Step::Put;
        write.overtaken = false;
        write.began = clock;
        if let Some(document) = new {
            insert(&mut write.tried, document);
            if !configuration.keeps(Rule::UseAfterConfirmation) {
                writer.cached = Some(Cached {
                    document,
                    confirmed: clock,
                });
            }
        }
    }

    /// The answer to the `put` arrives.
    pub fn put_answered(&mut self, configuration: &Configuration, process: usize, done: bool, seen: &mut Seen) {
        let write = self.processes[process].writing();
        let put = write.put.expect("a put that was answered");
        if done {
            // What was taken up since it was sent is newer.
            if !write.overtaken || !configuration.keeps(Rule::DropOvertakenPut) {
                self.confirm_put(process, &put);
            }
            self.report(process, Report::Done, seen);
        } else if configuration.keeps(Rule::SettleConflicts) {
            write.step = Step::Settle;
            self.begin_read(process, Purpose::Write);
        } else if write.retries > 0 {
            write.retries -= 1;
            write.step = Step::Read;
            self.begin_read(process, Purpose::Write);
        } else {
            self.fail(process, seen);
        }
    }

    /// No answer to the `put` will arrive. It may be carried out all the same, before or after this.
    pub fn put_lost(&mut self, configuration: &Configuration, process: usize, seen: &mut Seen) {
        let write = self.processes[process].writing();
        let put = write.put.filter(|_| write.step == Step::Put);
        self.set_adrift(put);
        let write = self.processes[process].writing();
        if configuration.keeps(Rule::SettleByReading) {
            write.step = Step::Settle;
            self.begin_read(process, Purpose::Write);
        } else {
            self.fail(process, seen);
        }
    }

    /// No answer to a read of this change will arrive.
    pub fn write_read_lost(&mut self, process: usize, seen: &mut Seen) {
        match self.processes[process].writing().step {
            Step::Settle => self.report(process, Report::Unknown, seen),
            _ => self.fail(process, seen),
        }
    }

    /// What was tried is not in the store. `answer` is, and the change is applied to it.
    fn start_over(&mut self, rules: &Configuration, process: usize, answer: Option<Document>, seen: &mut Seen) {
        let write = self.processes[process].writing();
        if write.retries > 0 {
            write.retries -= 1;
            self.send(rules, process, answer, seen);
        } else {
            self.fail(process, seen);
        }
    }

    fn fail(&mut self, process: usize, seen: &mut Seen) {
        self.report(process, Report::Failed, seen);
    }

    /// Takes up what the store has confirmed.
    fn confirm_put(&mut self, process: usize, put: &Put) {
        let began = self.processes[process].writing().began;
        if put.write_back {
            self.processes[process].rolled_back = false;
        }
        if !self.processes[process].rolled_back {
            self.take_up_put(process, put.new, began);
        }
    }

    fn report(&mut self, process: usize, report: Report, seen: &mut Seen) {
        let write = self.processes[process].write.take().expect("a change under way");
        seen.insert(Event::Reported(write.change, report));
        match report {
            Report::Done => {
                let new = write.put.and_then(|put| put.new);
                let shows = |new: &Document, old: &Document| {
                    old == new || old.generation > new.generation && old.effect() == new.effect()
                };
                if new.is_some_and(|new| !self.history.iter().any(|old| shows(&new, old))) {
                    self.fault(Fault::DoneButNotStored);
                }
            }
            Report::Failed => {
                for document in write.tried {
                    // A rollback of the store can undo what was made.
                    if !self.rolled_back && self.history.contains(&document) {
                        self.fault(Fault::FailedButStored);
                    }
                    insert(&mut self.failed, document);
                }
            }
            Report::Unknown => {}
        }
    }
}

/// What a document in the store says of a `put` of unknown outcome.
fn settle(configuration: &Configuration, put: &Put, read: Option<Document>) -> Verdict {
    if read == put.expected {
        return Verdict::UnderWay;
    }
    if read == put.new {
        return Verdict::Done;
    }
    let (new, read) = match (put.new, read) {
        (Some(new), Some(read)) => (new, read),
        (Some(_), None) => return Verdict::Unsure,
        // Another document of the same key shows that it was not purged, and a document of a new key that it was.
        (None, read) => {
            let same = read.map(|read| read.id) == put.expected.map(|expected| expected.id);
            return if same { Verdict::NotDone } else { Verdict::Done };
        }
    };
    if read.id != new.id {
        // Another process made the key first, or the changed key was purged since.
        return if put.expected.is_some() {
            Verdict::Unsure
        } else {
            Verdict::NotDone
        };
    }
    if read.generation <= new.generation {
        return Verdict::NotDone;
    }
    let version = new.newest();
    if put.expected.is_some_and(|old| old.newest() >= version) {
        // No version was made. The effect is there, or the document does not tell.
        return match configuration.keeps(Rule::LaterDocumentProvesNothing) {
            _ if read.effect() == new.effect() => Verdict::Done,
            true => Verdict::Unsure,
            false => Verdict::NotDone,
        };
    }
    let same_seal = configuration.keeps(Rule::CompareMaterial) || read.root == new.root;
    match read.material(version) {
        Some(_) if same_seal && read.material(version) == new.material(version) => Verdict::Done,
        Some(_) => Verdict::NotDone,
        // It was destroyed, or never was there.
        None => Verdict::Unsure,
    }
}
