//! Rules that can be broken, bounds, and the configurations that are checked.

use crate::document::{Change, Moment};

/// A rule of docs/FORMAT.md, part D, each of which a configuration can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A call that misses waits for a fetch that began after it.
    FetchBeginsAfterCall,
    /// A call whose fetch was overtaken fetches again.
    OvertakenCallFetchesAgain,
    /// An answer to a request that began before the newest document was taken up is dropped.
    DropOvertaken,
    /// So is the confirmation of a `put`.
    DropOvertakenPut,
    /// After a change was settled by reading, what was read is taken up, and not what was put.
    TakeUpWhatWasRead,
    /// A revision is the MAC, not the generation.
    RevisionIsMac,
    /// A `put` names the revision that was read.
    PutNamesRevision,
    /// A `put` whose outcome is unknown is settled by reading; its failure is not the failure of the change.
    SettleByReading,
    /// While the old document is there, the same bytes are sent again, since the first `put` can still arrive.
    SendSameBytesAgain,
    /// A conflict is settled by reading too, since a copy of the same `put` can be what it conflicts with.
    SettleConflicts,
    /// A later document without a trace of the change proves nothing, unless it has the generation that was attempted.
    LaterDocumentProvesNothing,
    /// A later document is searched for the material itself, not for the bytes that it is sealed in.
    CompareMaterial,
    /// A document is used only after the store confirmed it.
    UseAfterConfirmation,
    /// After a rollback a process neither seals nor writes.
    StopAfterRollback,
    /// Generation, MAC and `id` outlive eviction.
    StampOutlivesEviction,
    /// So does the newest version, so that a branch that has grown past the generation is noticed.
    StampHasNewestVersion,
    /// A version that is gone must be older than all versions that are there.
    MissingVersionsAreOldest,
    /// Absence is believed if the newest document seen was pending deletion and due. The stamp has that date.
    StampHasDeletionDate,
    /// A miss is not remembered.
    NoNegativeCache,
    /// A call that finds a document older than `max_age` confirms it first.
    ConfirmAfterMaxAge,
    /// A call does not rely on a document that is older than `max_stale`.
    RefuseAfterMaxStale,
    /// Ages count from the start of the request, not from its answer.
    AgeCountsFromRequest,
    /// Ages in a snapshot count from the confirmation, not from the restart.
    SnapshotKeepsAge,
    /// The grace period of a version that is destroyed covers the time for which a `put` can be under way.
    GraceCoversPut,
}

/// A number of events that a configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Change(Change),
    /// A request or its answer gets lost, or arrives when nobody waits any more.
    Lose,
    /// A `put` is delivered twice.
    Duplicate,
    /// A process crashes and starts again.
    Crash,
    Snapshot,
    Evict,
    /// The store is put back to an older state.
    Rollback,
    /// A host adopts what the store has after a rollback.
    Adopt,
}

/// What is explored.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub name: &'static str,
    pub processes: usize,
    /// Whether the store has the key at the start.
    pub created: bool,
    /// The last moment of the clock.
    pub clock: Moment,
    pub bounds: Vec<(Bound, u8)>,
    /// How often a change starts over after a conflict.
    pub retries: u8,
    /// How often a `put` of unknown outcome is sent again.
    pub resends: u8,
    /// How many requests of one process are under way at once, apart from its `put`.
    pub reads: usize,
    pub prompt: Prompt,
    /// Whether calls that open are explored.
    pub opens: bool,
    /// Processes are numbered anew after each step, so that states that differ in the numbers alone are one.
    pub alike: bool,
    pub broken: Option<Rule>,
}

/// What takes one step, so that the steps of the rest can be explored further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    Nothing,
    /// Calls, and what the refresher does.
    Reads,
    /// Changes.
    Changes,
    /// Both, apart from rotations.
    AllButRotations,
    All,
}

impl Prompt {
    pub fn reads(self) -> bool {
        !matches!(self, Self::Nothing | Self::Changes)
    }

    pub fn changes(self, change: Change) -> bool {
        match self {
            Self::Nothing | Self::Reads => false,
            Self::AllButRotations => change != Change::Rotate,
            Self::Changes | Self::All => true,
        }
    }
}

/// The maximum age at which a call relies on a document without asking the store.
pub const MAX_AGE: Moment = 1;
/// The maximum age at which a call relies on a document if the store does not answer.
pub const MAX_STALE: Moment = 2;
/// The time for which a `put` can be under way before the store would no longer carry it out.
pub const PUT_TIME: Moment = 2;

/// The configurations, each with a small bound or a large one.
pub fn all(large: bool) -> Vec<Configuration> {
    use Bound::{Adopt, Crash, Duplicate, Evict, Lose, Rollback, Snapshot};
    use Change::{Create, Destroy, Disable, Enable, Purge, Reseal, Rotate, ScheduleDeletion, SetMin, WriteBack};
    let change = Bound::Change;
    let more = u8::from(large);
    vec![
        // Two processes create the same key.
        Configuration {
            created: false,
            prompt: Prompt::Reads,
            ..Configuration::new(
                "create",
                &[(change(Create), 2), (Lose, 1 + more), (Duplicate, 1), (Crash, more)],
            )
        },
        // Two processes rotate a key, which must not lose a version.
        Configuration {
            prompt: Prompt::Reads,
            ..Configuration::new(
                "rotate",
                &[(change(Rotate), 2), (Lose, 1 + more), (Duplicate, 1), (Crash, more)],
            )
        },
        // A third process, which only large bounds allow.
        Configuration {
            processes: 2 + usize::from(large),
            opens: false,
            prompt: Prompt::Reads,
            ..Configuration::new("three", &[(change(Rotate), 2), (change(Disable), more), (Lose, 1)])
        },
        // Changes that add no version, and one that seals all versions again.
        Configuration {
            prompt: Prompt::Reads,
            ..Configuration::new(
                "change",
                &[
                    (change(Rotate), 1),
                    (change(Disable), 1),
                    (change(Enable), more),
                    (change(Reseal), 1),
                    (Lose, 1),
                ],
            )
        },
        // Calls, whose fetches take their time, while another process rotates.
        Configuration {
            reads: 2,
            ..Configuration::new("open", &[(change(Rotate), 1), (Lose, 1), (Evict, more), (Crash, more)])
        },
        // The age of what a call relies on.
        Configuration {
            clock: 3 + more,
            prompt: Prompt::Changes,
            ..Configuration::new("disable", &[(change(Disable), 1), (change(Enable), more), (Lose, 1)])
        },
        Configuration {
            clock: 3,
            opens: large,
            prompt: if large { Prompt::Changes } else { Prompt::All },
            ..Configuration::new(
                "snapshot",
                &[(change(Disable), 1), (Lose, 1), (Snapshot, 1), (Crash, 1)],
            )
        },
        // A version is destroyed, and processes seal under it until they know its successor.
        Configuration {
            clock: 4,
            opens: false,
            retries: 0,
            resends: more,
            prompt: if large { Prompt::Reads } else { Prompt::AllButRotations },
            ..Configuration::new(
                "destroy",
                &[
                    (change(Rotate), 1),
                    (change(SetMin), more),
                    (change(Destroy), 1),
                    (Lose, 1),
                ],
            )
        },
        // The key is deleted.
        Configuration {
            clock: 2,
            opens: false,
            prompt: if large { Prompt::Reads } else { Prompt::All },
            ..Configuration::new(
                "delete",
                &[(change(ScheduleDeletion), 1), (change(Purge), 1), (Lose, 1), (Evict, 1)],
            )
        },
        // The store is put back, and grows another branch.
        Configuration {
            prompt: Prompt::Reads,
            ..Configuration::new(
                "roll back",
                &[
                    (change(Rotate), 2),
                    (Rollback, 1),
                    (Evict, more),
                    (Adopt, 1),
                    (change(WriteBack), 1),
                    (Lose, more),
                ],
            )
        },
        // The branch grows past the generation that a process has seen.
        Configuration {
            prompt: Prompt::All,
            ..Configuration::new(
                "branch",
                &[
                    (change(Rotate), 2),
                    (change(Disable), 1),
                    (change(Enable), 1),
                    (Rollback, 1),
                    (Evict, 1),
                ],
            )
        },
    ]
}

impl Configuration {
    fn new(name: &'static str, bounds: &[(Bound, u8)]) -> Self {
        Self {
            name,
            processes: 2,
            created: true,
            clock: 0,
            bounds: bounds.to_vec(),
            retries: 1,
            resends: 1,
            reads: 1,
            prompt: Prompt::Nothing,
            opens: true,
            alike: true,
            broken: None,
        }
    }

    pub fn keeps(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    /// The same, with a rule broken.
    #[must_use]
    pub fn breaking(self, rule: Rule) -> Self {
        Self {
            broken: Some(rule),
            alike: false,
            ..self
        }
    }

    pub fn grace(&self) -> Moment {
        if self.keeps(Rule::GraceCoversPut) {
            MAX_STALE + PUT_TIME
        } else {
            MAX_STALE
        }
    }
}
