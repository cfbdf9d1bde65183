//! A process: its cache, what it accepts from the store, and the calls that rely on it.

use crate::{
    configuration::{Configuration, MAX_AGE, MAX_STALE, Rule},
    document::{Document, Moment},
    model::{Event, Seen},
    store::{Fault, State},
    write::Write,
};

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    pub cached: Option<Cached>,
    /// Stands for the stamp of the newest document seen: generation, MAC, `id`, deletion date, and its newest version
    /// with a check value of the material.
    pub newest: Option<Document>,
    /// The key was purged since.
    pub gone: bool,
    pub rolled_back: bool,
    /// A miss is remembered. Only with a rule broken.
    pub missed: bool,
    pub reads: Vec<Read>,
    pub call: Option<Call>,
    pub write: Option<Write>,
    pub snapshot: Option<Cached>,
    /// What the bystander knows that this process has seen.
    pub seen: Option<Document>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cached {
    pub document: Document,
    pub confirmed: Moment,
}

/// A `get`, or a `changed` with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Read {
    pub purpose: Purpose,
    pub began: Moment,
    /// A newer document was taken up after it began.
    pub overtaken: bool,
    /// What the store answered, once it has.
    pub answer: Option<Option<Document>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The refresher.
    Refresh,
    Call,
    Write,
}

/// A call that waits for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// What it opens, or nothing if it seals.
    pub blob: Option<(u8, u8)>,
    pub began: Moment,
    /// Known to the bystander: the key, and the blob's version, have been in force since the call began.
    pub in_force: bool,
}

/// What a process makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    Dropped,
    Accepted,
    RolledBack,
}

impl Process {
    fn take_up(&mut self, document: Document, confirmed: Moment) {
        self.cached = Some(Cached { document, confirmed });
        self.newest = Some(document);
        self.gone = false;
        self.seen = Some(document);
        self.overtake();
    }

    /// The key was purged.
    fn forget(&mut self) {
        self.cached = None;
        self.gone = true;
        self.overtake();
    }

    /// What is under way was overtaken by the document that was taken up.
    pub fn overtake(&mut self) {
        self.reads.iter_mut().for_each(|read| read.overtaken = true);
        self.reads.sort_unstable();
        if let Some(write) = &mut self.write {
            write.overtaken = true;
        }
    }

    pub fn evict(&mut self, configuration: &Configuration) {
        self.cached = None;
        if !configuration.keeps(Rule::StampOutlivesEviction) {
            self.newest = None;
        }
    }

    pub fn restart(&mut self, configuration: &Configuration, from_snapshot: bool, now: Moment) {
        let snapshot = self.snapshot;
        *self = Self {
            snapshot,
            ..Self::default()
        };
        if let (Some(Cached { document, confirmed }), true) = (snapshot, from_snapshot) {
            self.take_up(
                document,
                if configuration.keeps(Rule::SnapshotKeepsAge) {
                    confirmed
                } else {
                    now
                },
            );
        }
    }
}

impl State {
    pub fn begin_read(&mut self, process: usize, purpose: Purpose) {
        let read = Read {
            purpose,
            began: self.clock,
            overtaken: false,
            answer: None,
        };
        let reads = &mut self.processes[process].reads;
        reads.push(read);
        reads.sort_unstable();
    }

    /// The answer to a read arrives.
    pub fn receive(&mut self, configuration: &Configuration, process: usize, read: usize, seen: &mut Seen) {
        let read = self.processes[process].reads.remove(read);
        let answer = read.answer.expect("an answer that was sent");
        let judged = match self.processes[process].is_writing_back() && read.purpose == Purpose::Write {
            // The host has decided.
            true => Judged::Accepted,
            false => self.judge(configuration, process, &read, answer, seen),
        };
        match read.purpose {
            Purpose::Refresh => {}
            Purpose::Write => self.write_read(configuration, process, judged, answer, seen),
            Purpose::Call if judged == Judged::Dropped && configuration.keeps(Rule::OvertakenCallFetchesAgain) => {
                self.begin_read(process, Purpose::Call);
            }
            Purpose::Call => {
                let call = self.processes[process].call.take().expect("a call that waits");
                self.decide(configuration, process, &call, true, seen);
                if !configuration.keeps(Rule::NoNegativeCache) {
                    self.processes[process].missed = self.processes[process].cached.is_none();
                }
            }
        }
    }

    /// No answer to a read will arrive.
    pub fn read_lost(&mut self, configuration: &Configuration, process: usize, read: usize, seen: &mut Seen) {
        match self.processes[process].reads.remove(read).purpose {
            Purpose::Refresh => {}
            Purpose::Write => self.write_read_lost(process, seen),
            Purpose::Call => {
                let call = self.processes[process].call.take().expect("a call that waits");
                self.decide(configuration, process, &call, false, seen);
            }
        }
    }

    /// Takes up what the store answered, or refuses it.
    fn judge(
        &mut self,
        configuration: &Configuration,
        index: usize,
        read: &Read,
        answer: Option<Document>,
        seen: &mut Seen,
    ) -> Judged {
        let process = &mut self.processes[index];
        if read.overtaken && configuration.keeps(Rule::DropOvertaken) {
            seen.insert(Event::Dropped);
            return Judged::Dropped;
        }
        let confirmed = if configuration.keeps(Rule::AgeCountsFromRequest) {
            read.began
        } else {
            self.clock
        };
        let held = process.cached.map(|cached| cached.document);
        let Some(newest) = process.newest else {
            if let Some(document) = answer {
                self.take_up(index, document, confirmed);
            }
            return Judged::Accepted;
        };
        // Without a date in the stamp, what is left of an evicted document does not have it.
        let dated = if configuration.keeps(Rule::StampHasDeletionDate) {
            Some(newest)
        } else {
            held
        };
        let due = dated.is_some_and(|document| document.is_due(self.clock));
        let stopped = process.rolled_back && configuration.keeps(Rule::StopAfterRollback);
        let accepted = match answer {
            None if process.gone => return Judged::Accepted,
            None if due && !stopped => {
                seen.insert(Event::Gone);
                process.forget();
                return Judged::Accepted;
            }
            None => None,
            Some(document) if is_same(configuration, &document, &newest) && !process.gone => {
                if process.rolled_back {
                    seen.insert(Event::Healed);
                }
                process.rolled_back = false;
                let document = held.unwrap_or(document);
                process.cached = Some(Cached { document, confirmed });
                if Some(document) != answer {
                    self.fault(Fault::FalseConfirmation);
                }
                return Judged::Accepted;
            }
            Some(document) => {
                // A purged key can be created again, with another `id`.
                let new = document.id != newest.id && process.gone;
                let follows = new || !process.gone && follows(configuration, &document, &newest, held.as_ref());
                Some(document).filter(|_| follows && !stopped)
            }
        };
        if let Some(document) = accepted {
            self.take_up(index, document, confirmed);
            return Judged::Accepted;
        }
        seen.insert(Event::RolledBack);
        if process.rolled_back {
            return Judged::RolledBack;
        }
        process.rolled_back = true;
        // Who has not seen that the key was to be deleted cannot tell its deletion from a rollback.
        let other = answer.is_none_or(|document| document.id != newest.id);
        let unseen_deletion = other && process.seen.is_some_and(|seen| seen.deletion.is_none());
        if !self.rolled_back && !unseen_deletion {
            self.fault(Fault::FalseRollback);
        }
        Judged::RolledBack
    }

    /// A process takes up a document, in place of what it holds.
    fn take_up(&mut self, index: usize, document: Document, confirmed: Moment) {
        let process = &mut self.processes[index];
        let follows = process.seen.is_none_or(|seen| {
            let recreated = document.id != seen.id && seen.is_due(self.clock);
            let later = document.id == seen.id && document.generation > seen.generation;
            document == seen || recreated || later && document.keeps_all(&seen, true)
        });
        process.take_up(document, confirmed);
        if !follows {
            self.fault(Fault::RollbackNotNoticed);
        }
        if !self.history.contains(&document) {
            self.fault(Fault::FalseConfirmation);
        }
    }

    /// Takes up what this process has put, after the store has confirmed it.
    pub fn take_up_put(&mut self, index: usize, document: Option<Document>, began: Moment) {
        match document {
            Some(document) => self.take_up(index, document, began),
            None => self.processes[index].forget(),
        }
    }

    /// A host seals, or opens a blob.
    pub fn call(&mut self, configuration: &Configuration, index: usize, blob: Option<(u8, u8)>, seen: &mut Seen) {
        let call = Call {
            blob,
            began: self.clock,
            in_force: self.is_in_force(blob),
        };
        let process = &self.processes[index];
        let stopped = process.rolled_back && configuration.keeps(Rule::StopAfterRollback);
        let needs_fetch = match process.cached {
            None => !process.missed,
            Some(Cached { document, confirmed }) => {
                let old = configuration.keeps(Rule::ConfirmAfterMaxAge) && self.clock - confirmed >= MAX_AGE;
                old || self.clock - confirmed >= MAX_STALE || blob.is_some_and(|(number, _)| number > document.newest())
            }
        };
        if stopped || !needs_fetch {
            return self.decide(configuration, index, &call, true, seen);
        }
        let process = &mut self.processes[index];
        process.call = Some(call);
        match process.reads.iter_mut().find(|read| read.purpose == Purpose::Refresh) {
            Some(read) if !configuration.keeps(Rule::FetchBeginsAfterCall) => read.purpose = Purpose::Call,
            _ => self.begin_read(index, Purpose::Call),
        }
        self.processes[index].reads.sort_unstable();
    }

    /// Decides a call by what the cache has.
    pub fn decide(&mut self, rules: &Configuration, index: usize, call: &Call, answered: bool, seen: &mut Seen) {
        let process = &self.processes[index];
        let stopped = process.rolled_back && rules.keeps(Rule::StopAfterRollback);
        let rolled_back = process.rolled_back;
        let must_succeed = call.in_force && answered && !self.rolled_back;
        let Some(Cached { document, confirmed }) = process.cached else {
            if must_succeed {
                self.fault(Fault::CannotOpen);
            }
            return;
        };
        // After a rollback nothing is confirmed, and what is held opens until the host decides.
        if !stopped && rules.keeps(Rule::RefuseAfterMaxStale) && self.clock - confirmed >= MAX_STALE {
            seen.insert(Event::Stale);
            return;
        }
        // A change is seen within `max_age`, not at once.
        if !document.is_in_use() || call.blob.is_some_and(|(number, _)| number < document.min_version) {
            return;
        }
        match call.blob {
            None if stopped => {}
            None => {
                let newest = document.newest();
                let material = document.material(newest).expect("the newest version is there");
                seen.insert(Event::Sealed);
                if rolled_back {
                    self.fault(Fault::ActedAfterRollback);
                }
                self.used(call.began, answered);
                self.sealed(newest, material);
            }
            Some((number, material)) if document.material(number) == Some(material) => {
                seen.insert(if rolled_back {
                    Event::OpenedAfterRollback
                } else {
                    Event::Opened
                });
                self.used(call.began, answered);
            }
            Some(_) if must_succeed => self.fault(Fault::CannotOpen),
            Some(_) => {}
        }
    }
}

/// Whether two documents are one, by their revisions.
fn is_same(configuration: &Configuration, document: &Document, newest: &Document) -> bool {
    match configuration.keeps(Rule::RevisionIsMac) {
        true => document == newest,
        false => document.generation == newest.generation,
    }
}

/// Whether a document can follow the newest one seen, and the one that is held.
fn follows(configuration: &Configuration, document: &Document, newest: &Document, held: Option<&Document>) -> bool {
    let missing_are_oldest = configuration.keeps(Rule::MissingVersionsAreOldest);
    let (number, stamp) = (newest.newest(), configuration.keeps(Rule::StampHasNewestVersion));
    let material = newest.material(number).expect("the newest version is there");
    document.id == newest.id
        && document.generation > newest.generation
        && held.is_none_or(|held| document.keeps_all(held, missing_are_oldest))
        && (!stamp || document.keeps(number, material, missing_are_oldest))
}
