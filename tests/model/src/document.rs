//! A key document, and the changes that a host can make to it.

/// A moment of the model's clock.
pub type Moment = u8;

/// The highest number of versions that a document can have.
const VERSIONS: usize = 5;

/// A key document. Two documents are equal if and only if their MACs are: the MAC covers every field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Document {
    /// Drawn when the document is created.
    pub id: u8,
    pub generation: u8,
    /// The root under which the versions are sealed.
    pub root: u8,
    pub disabled: bool,
    /// The date from which the key can be deleted.
    pub deletion: Option<Moment>,
    pub min_version: u8,
    /// By number; a version that is destroyed is missing.
    pub versions: [Option<Version>; VERSIONS],
}

/// A version of the CMK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Stands for 64 random bytes.
    pub material: u8,
    pub created: Moment,
}

/// What a host can ask a process to do to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    Create,
    Rotate,
    Disable,
    Enable,
    SetMin,
    /// Destroys all versions but the newest.
    Destroy,
    /// Seals the document under another root.
    Reseal,
    ScheduleDeletion,
    Purge,
    /// Restores what the process holds, after a rollback.
    WriteBack,
}

/// What a change makes of the document that was read.
#[derive(Debug)]
pub enum Applied {
    /// `put` this, or `remove` the document if there is nothing.
    Write(Option<Document>),
    /// The change is refused, or there is nothing to do.
    Nothing,
}

impl Document {
    pub fn new(id: u8, material: u8, created: Moment) -> Self {
        let mut versions = [None; VERSIONS];
        versions[0] = Some(Version { material, created });
        Self {
            id,
            generation: 1,
            root: 0,
            disabled: false,
            deletion: None,
            min_version: 0,
            versions,
        }
    }

    /// The number of the version that seals.
    pub fn newest(&self) -> u8 {
        let newest = self.versions.iter().rposition(Option::is_some);
        newest.expect("the newest version is never destroyed") as u8
    }

    pub fn material(&self, number: u8) -> Option<u8> {
        self.versions[usize::from(number)].map(|version| version.material)
    }

    /// What a change can have changed, apart from a new version.
    pub fn effect(&self) -> (u8, bool, Option<Moment>, u8, Option<usize>) {
        let oldest = self.versions.iter().position(Option::is_some);
        (self.root, self.disabled, self.deletion, self.min_version, oldest)
    }

    /// Whether it could have been purged by now.
    pub fn is_due(&self, now: Moment) -> bool {
        self.deletion.is_some_and(|date| date <= now)
    }

    /// Whether it seals and opens at all.
    pub fn is_in_use(&self) -> bool {
        !self.disabled && self.deletion.is_none()
    }

    /// Whether this document still has a version of an older one, or can have destroyed it: only the oldest are.
    pub fn keeps(&self, number: u8, material: u8, missing_are_oldest: bool) -> bool {
        match self.material(number) {
            Some(present) => present == material,
            None => !missing_are_oldest || self.versions[..usize::from(number)].iter().all(Option::is_none),
        }
    }

    /// Whether this document keeps all versions of an older one.
    pub fn keeps_all(&self, older: &Self, missing_are_oldest: bool) -> bool {
        let versions = older
            .versions
            .iter()
            .zip(0..)
            .filter_map(|(version, number)| Some((number, (*version)?.material)));
        versions
            .into_iter()
            .all(|(number, material)| self.keeps(number, material, missing_are_oldest))
    }

    /// Applies a change to what was read. `new` is random: a material, or the ID of a new document.
    pub fn apply(read: Option<Self>, change: Change, now: Moment, new: u8, grace: Moment) -> Applied {
        let Some(read) = read else {
            return match change {
                Change::Create => Applied::Write(Some(Self::new(new, new, now))),
                _ => Applied::Nothing,
            };
        };
        let mut next = read;
        next.generation += 1;
        let newest = usize::from(read.newest());
        match change {
            Change::Rotate if newest + 1 < VERSIONS => {
                next.versions[newest + 1] = Some(Version {
                    material: new,
                    created: now,
                });
            }
            Change::Disable => next.disabled = true,
            Change::Enable => next.disabled = false,
            Change::SetMin => next.min_version = read.newest(),
            Change::Destroy => {
                for number in 0..newest {
                    let successor = read.versions[number + 1].map(|version| version.created);
                    if successor.is_some_and(|created| now - created >= grace) {
                        next.versions[number] = None;
                    }
                }
            }
            Change::Reseal => next.root = 1,
            Change::ScheduleDeletion => next.deletion = read.deletion.or(Some(now + 1)),
            Change::Purge if read.is_due(now) => return Applied::Write(None),
            Change::Create | Change::Rotate | Change::Purge | Change::WriteBack => {
                return Applied::Nothing;
            }
        }
        match (Self {
            generation: read.generation,
            ..next
        }) == read
        {
            true => Applied::Nothing,
            false => Applied::Write(Some(next)),
        }
    }
}
