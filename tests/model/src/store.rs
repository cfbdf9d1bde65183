//! The store, which serves one request at a time, and what a bystander who sees all of it would know.

use crate::{
    configuration::{Bound, Configuration, MAX_AGE, MAX_STALE, PUT_TIME, Rule},
    document::{Document, Moment},
    process::Process,
};

/// Everything there is. Lists are sorted, so that the order of events that do not matter to each other does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub clock: Moment,
    /// What the store has.
    pub store: Option<Document>,
    pub processes: Vec<Process>,
    /// The `put`s under way for which nobody waits.
    pub adrift: Vec<Put>,
    /// What is left of each bound of the configuration.
    pub left: Vec<u8>,
    /// The number of the next random draw.
    pub draw: u8,

    // The rest is known to the bystander alone.
    /// All documents that the store has had.
    pub history: Vec<Document>,
    /// Documents that a process tried to put for a change that it reported as failed.
    pub failed: Vec<Document>,
    /// Materials that were destroyed.
    pub destroyed: Vec<u8>,
    /// The moment since which the key has been out of use in the store.
    pub out_of_use_since: Option<Moment>,
    /// What was sealed: the number and the material of the version.
    pub blobs: Vec<(u8, u8)>,
    pub rolled_back: bool,
    /// The first rule that did not hold. Nothing happens after it.
    pub fault: Option<Fault>,
}

/// A `put`, or a `remove`, which puts nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Put {
    pub expected: Option<Document>,
    pub new: Option<Document>,
    /// When the change was applied to the document; `created` of a new version.
    pub made: Moment,
    /// Whether the host asked for `write_back`.
    pub write_back: bool,
}

/// A property that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A `put` took away a version that nobody destroyed, or gave it other material.
    VersionLost,
    /// Two materials for one version were used to seal.
    TwoMaterials,
    /// A call failed on a version that was in force all the time, while the store answered.
    CannotOpen,
    /// A key was used `max_stale` after it had been disabled.
    UsedAfterMaxStale,
    /// A key was used `max_age` after it had been disabled, although the store answered.
    UsedAfterMaxAge,
    /// A version was used to seal after it had been destroyed.
    SealedUnderDestroyed,
    /// A change was reported as done that the store never had.
    DoneButNotStored,
    /// A change was reported as failed that the store has, or has had.
    FailedButStored,
    /// A process reported a rollback, and there was none.
    FalseRollback,
    /// A process took up an older document, or one of another branch.
    RollbackNotNoticed,
    /// A process took for confirmed what the store did not have.
    FalseConfirmation,
    /// A process sealed or wrote after it had noticed a rollback.
    ActedAfterRollback,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::VersionLost,
        Self::TwoMaterials,
        Self::CannotOpen,
        Self::UsedAfterMaxStale,
        Self::UsedAfterMaxAge,
        Self::SealedUnderDestroyed,
        Self::DoneButNotStored,
        Self::FailedButStored,
        Self::FalseRollback,
        Self::RollbackNotNoticed,
        Self::FalseConfirmation,
        Self::ActedAfterRollback,
    ];

    /// The property.
    pub fn property(self) -> &'static str {
        match self {
            Self::VersionLost => "no version is lost",
            Self::TwoMaterials => "no two materials for one version are in use",
            Self::CannotOpen => "what is in force opens and seals while the store answers",
            Self::UsedAfterMaxStale => "no key is used max_stale after it was disabled",
            Self::UsedAfterMaxAge => "no key is used max_age after it was disabled if the store answers",
            Self::SealedUnderDestroyed => "no version seals after it was destroyed",
            Self::DoneButNotStored => "a change reported as done is in the store",
            Self::FailedButStored => "a change reported as failed is not made",
            Self::FalseRollback => "a rollback that is reported is one",
            Self::RollbackNotNoticed => "a rollback is noticed",
            Self::FalseConfirmation => "what is confirmed is what the store has",
            Self::ActedAfterRollback => "nothing is sealed or written after a rollback",
        }
    }
}

impl State {
    pub fn new(configuration: &Configuration) -> Self {
        let store = configuration.created.then(|| Document::new(0, 0, 0));
        Self {
            clock: 0,
            store,
            processes: vec![Process::default(); configuration.processes],
            adrift: Vec::new(),
            left: configuration.bounds.iter().map(|&(_, times)| times).collect(),
            draw: 1,
            history: store.into_iter().collect(),
            failed: Vec::new(),
            destroyed: Vec::new(),
            out_of_use_since: None,
            blobs: Vec::new(),
            rolled_back: false,
            fault: None,
        }
    }

    pub fn is_left(&self, configuration: &Configuration, bound: Bound) -> bool {
        let mut bounds = configuration.bounds.iter().zip(&self.left);
        bounds.any(|(&(of, _), &left)| of == bound && left > 0)
    }

    pub fn spend(&mut self, configuration: &Configuration, bound: Bound) {
        let index = configuration.bounds.iter().position(|&(of, _)| of == bound);
        self.left[index.expect("an event that is in bounds")] -= 1;
    }

    pub fn draw(&mut self) -> u8 {
        self.draw += 1;
        self.draw - 1
    }

    pub fn fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Serves a `put`; returns whether it was carried out, or was a conflict.
    pub fn serve_put(&mut self, configuration: &Configuration, put: &Put) -> bool {
        let same = match (self.store, put.expected) {
            (Some(present), Some(expected)) if !configuration.keeps(Rule::RevisionIsMac) => {
                present.generation == expected.generation
            }
            (present, expected) => present == expected,
        };
        if !same && configuration.keeps(Rule::PutNamesRevision) {
            return false;
        }
        if let (Some(old), Some(new), false) = (self.store, put.new, put.write_back) {
            let newest_kept = new.versions.iter().position(Option::is_some).unwrap_or_default();
            for (number, version) in old.versions.iter().enumerate() {
                let Some(version) = version else { continue };
                match new.material(number as u8) {
                    Some(material) if material == version.material => {}
                    // What the change destroyed.
                    None if number < newest_kept && put.expected.is_some_and(|read| read == old) => {
                        insert(&mut self.destroyed, version.material);
                    }
                    _ => self.fault(Fault::VersionLost),
                }
            }
        }
        if !self.rolled_back && put.new.is_some_and(|new| self.failed.contains(&new)) {
            self.fault(Fault::FailedButStored);
        }
        self.replace(put.new);
        true
    }

    /// What follows from another document in the store.
    pub fn replace(&mut self, document: Option<Document>) {
        self.store = document;
        if let Some(document) = document {
            insert(&mut self.history, document);
        }
        self.out_of_use_since = match document.is_some_and(|document| document.is_in_use()) {
            true => None,
            false => self.out_of_use_since.or(Some(self.clock)),
        };
        for process in 0..self.processes.len() {
            if let Some(call) = self.processes[process].call {
                let in_force = call.in_force && self.is_in_force(call.blob);
                self.processes[process].call = Some(crate::process::Call { in_force, ..call });
            }
        }
    }

    /// Time passes.
    pub fn tick(&mut self) {
        self.clock += 1;
        for put in std::mem::take(&mut self.adrift) {
            self.set_adrift(Some(put));
        }
    }

    /// Whether the store would still carry a `put` out.
    pub fn can_be_served(&self, put: &Put) -> bool {
        self.clock - put.made < PUT_TIME
    }

    /// Nobody waits for this `put` any more.
    pub fn set_adrift(&mut self, put: Option<Put>) {
        if let Some(put) = put.filter(|put| self.can_be_served(put)) {
            insert(&mut self.adrift, put);
        }
    }

    /// Whether a call with this blob, or one that seals, must succeed if the store is asked.
    pub fn is_in_force(&self, blob: Option<(u8, u8)>) -> bool {
        self.store.is_some_and(|document| {
            document.is_in_use()
                && blob.is_none_or(|(number, material)| {
                    number >= document.min_version && document.material(number) == Some(material)
                })
        })
    }

    /// A process seals or opens, in a call that began at a moment.
    pub fn used(&mut self, began: Moment, store_answered: bool) {
        let Some(since) = self.out_of_use_since else {
            return;
        };
        if self.clock - since >= MAX_STALE {
            self.fault(Fault::UsedAfterMaxStale);
        } else if store_answered && began >= since + MAX_AGE {
            self.fault(Fault::UsedAfterMaxAge);
        }
    }

    /// A process seals under a version.
    pub fn sealed(&mut self, number: u8, material: u8) {
        if self.destroyed.contains(&material) {
            self.fault(Fault::SealedUnderDestroyed);
        }
        // After a rollback there can be two branches.
        if !self.rolled_back && self.blobs.iter().any(|&(of, other)| of == number && other != material) {
            self.fault(Fault::TwoMaterials);
        }
        insert(&mut self.blobs, (number, material));
    }
}

/// Inserts into a sorted list without repetition.
pub fn insert<T: Ord>(list: &mut Vec<T>, item: T) {
    if let Err(index) = list.binary_search(&item) {
        list.insert(index, item);
    }
}
