//! All that can happen, for stateright, and the properties.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use stateright::Property;

use crate::{
    configuration::{Bound, Configuration},
    document::Change,
    process::{Purpose, Read},
    store::{Fault, State},
    write::{Report, Step},
};

/// A configuration, and what was seen in it.
#[derive(Clone, Debug)]
pub struct Model {
    pub configuration: Configuration,
    pub seen: Arc<AtomicU64>,
}

/// One step. Processes, reads and lists are named by their index in the state before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Tick,
    /// The host of a process asks for a change.
    Begin(usize, Change),
    /// The store serves a read of a process.
    ServeRead(usize, usize),
    /// The answer to a read arrives.
    ReceiveRead(usize, usize),
    /// A read or its answer gets lost.
    LoseRead(usize, usize),
    ServePut(usize),
    ReceivePut(usize),
    /// The connection breaks that a process waits on for the answer to its `put`.
    LosePut(usize),
    /// The network keeps a copy of a `put`.
    Duplicate(usize),
    /// A `put` arrives for which nobody waits.
    ServeAdrift(usize),
    /// The refresher, or a host that loads the key.
    Refresh(usize),
    Seal(usize),
    /// A process seals, and the store does not answer if it is asked. Only where other reads are answered at once.
    SealUnanswered(usize),
    /// A process opens a blob.
    Open(usize, (u8, u8)),
    Snapshot(usize),
    Crash(usize, Start),
    Evict(usize),
    /// The store is put back to a state of its history, or loses the document.
    Rollback(Option<usize>),
    Adopt(usize),
}

/// How a process starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Empty,
    FromSnapshot,
}

/// Something that an exploration must have met, or it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Sealed,
    Opened,
    OpenedAfterRollback,
    Stale,
    Dropped,
    RolledBack,
    Healed,
    Gone,
    SentAgain,
    SettledAsDone,
    SettledAsNotDone,
    Reported(Change, Report),
}

/// The events met in one step.
#[derive(Debug, Default)]
pub struct Seen(u64);

impl Event {
    fn bit(self) -> u64 {
        1 << match self {
            Self::Sealed => 0,
            Self::Opened => 1,
            Self::OpenedAfterRollback => 2,
            Self::Stale => 3,
            Self::Dropped => 4,
            Self::RolledBack => 5,
            Self::Healed => 6,
            Self::Gone => 7,
            Self::SentAgain => 8,
            Self::SettledAsDone => 9,
            Self::SettledAsNotDone => 10,
            Self::Reported(change, report) => 11 + change as u32 * 3 + report as u32,
        }
    }
}

impl Seen {
    pub fn insert(&mut self, event: Event) {
        self.0 |= event.bit();
    }
}

impl Model {
    pub fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            seen: Arc::default(),
        }
    }

    pub fn has_seen(&self, event: Event) -> bool {
        self.seen.load(Ordering::Relaxed) & event.bit() != 0
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.configuration)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fault.is_some() {
            return;
        }
        let left = |bound| state.is_left(&self.configuration, bound);
        if state.clock < self.configuration.clock {
            actions.push(Action::Tick);
        }
        for (index, process) in state.processes.iter().enumerate() {
            if process.write.is_none() {
                for &(bound, _) in &self.configuration.bounds {
                    if let Bound::Change(change) = bound
                        && left(bound)
                        && process.rolled_back == (change == Change::WriteBack)
                    {
                        actions.push(Action::Begin(index, change));
                    }
                }
            }
            for (number, read) in process.reads.iter().enumerate() {
                actions.push(match read.answer {
                    None => Action::ServeRead(index, number),
                    Some(_) => Action::ReceiveRead(index, number),
                });
                // What nobody waits for can as well wait for ever.
                if left(Bound::Lose) && read.purpose != Purpose::Refresh {
                    actions.push(Action::LoseRead(index, number));
                }
            }
            if let Some(write) = &process.write
                && let Some(put) = &write.put
            {
                match write.step {
                    Step::Put => {
                        // It is sent again only while the store would still carry it out.
                        if state.can_be_served(put) {
                            actions.push(Action::ServePut(index));
                            if left(Bound::Duplicate) {
                                actions.push(Action::Duplicate(index));
                            }
                        }
                        if left(Bound::Lose) || !state.can_be_served(put) {
                            actions.push(Action::LosePut(index));
                        }
                    }
                    Step::Answered(_) => {
                        actions.push(Action::ReceivePut(index));
                        if left(Bound::Lose) {
                            actions.push(Action::LosePut(index));
                        }
                    }
                    Step::Read | Step::Settle => {}
                }
            }
            let refreshes = process.reads.iter().any(|read| read.purpose == Purpose::Refresh);
            let reads = process
                .reads
                .iter()
                .filter(|read| read.purpose != Purpose::Write)
                .count();
            let prompt = self.configuration.prompt.reads();
            let reads_left = prompt || reads < self.configuration.reads;
            if reads_left && !refreshes {
                actions.push(Action::Refresh(index));
            }
            if process.call.is_none() && reads_left {
                actions.push(Action::Seal(index));
                if prompt && left(Bound::Lose) {
                    actions.push(Action::SealUnanswered(index));
                }
                if self.configuration.opens {
                    actions.extend(state.blobs.iter().map(|&blob| Action::Open(index, blob)));
                }
            }
            if left(Bound::Crash) {
                actions.push(Action::Crash(index, Start::Empty));
                if process.snapshot.is_some() {
                    actions.push(Action::Crash(index, Start::FromSnapshot));
                }
            }
            if left(Bound::Snapshot) && process.cached.is_some() {
                actions.push(Action::Snapshot(index));
            }
            // A key that a call holds is not evicted, and neither is one that was rolled back.
            if left(Bound::Evict)
                && process.cached.is_some()
                && !process.rolled_back
                && process.call.is_none()
                && process.write.is_none()
            {
                actions.push(Action::Evict(index));
            }
            if left(Bound::Adopt) && process.rolled_back && process.write.is_none() {
                actions.push(Action::Adopt(index));
            }
        }
        actions.extend((0..state.adrift.len()).map(Action::ServeAdrift));
        if left(Bound::Rollback) {
            let other = |index: &usize| Some(state.history[*index]) != state.store;
            actions.extend(
                (0..state.history.len())
                    .filter(other)
                    .map(|index| Action::Rollback(Some(index))),
            );
            actions.extend(state.store.map(|_| Action::Rollback(None)));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let configuration = &self.configuration;
        let mut next = state.clone();
        let mut seen = Seen::default();
        match action {
            Action::Tick => next.tick(),
            Action::Begin(process, change) => {
                next.spend(configuration, Bound::Change(change));
                next.begin_write(configuration, process, change);
            }
            Action::ServeRead(process, read) => {
                let store = next.store;
                let reads = &mut next.processes[process].reads;
                reads[read].answer = Some(store);
                reads.sort_unstable();
            }
            Action::ReceiveRead(process, read) => next.receive(configuration, process, read, &mut seen),
            Action::LoseRead(process, read) => {
                next.spend(configuration, Bound::Lose);
                next.read_lost(configuration, process, read, &mut seen);
            }
            Action::ServePut(process) => {
                let put = next.processes[process].write.as_ref()?.put?;
                let done = next.serve_put(configuration, &put);
                next.processes[process].write.as_mut()?.step = Step::Answered(done);
            }
            Action::ReceivePut(process) => {
                let Step::Answered(done) = next.processes[process].write.as_ref()?.step else {
                    return None;
                };
                next.put_answered(configuration, process, done, &mut seen);
            }
            Action::LosePut(process) => {
                if next.is_left(configuration, Bound::Lose) {
                    next.spend(configuration, Bound::Lose);
                }
                next.put_lost(configuration, process, &mut seen);
            }
            Action::Duplicate(process) => {
                next.spend(configuration, Bound::Duplicate);
                let put = next.processes[process].write.as_ref()?.put?;
                next.set_adrift(Some(put));
            }
            Action::ServeAdrift(index) => {
                let put = next.adrift.remove(index);
                next.serve_put(configuration, &put);
            }
            Action::Refresh(process) => next.begin_read(process, Purpose::Refresh),
            Action::Seal(process) => next.call(configuration, process, None, &mut seen),
            Action::SealUnanswered(process) => {
                next.call(configuration, process, None, &mut seen);
                let read = next.processes[process]
                    .reads
                    .iter()
                    .position(|read| read.purpose == Purpose::Call)?;
                next.spend(configuration, Bound::Lose);
                next.read_lost(configuration, process, read, &mut seen);
            }
            Action::Open(process, blob) => next.call(configuration, process, Some(blob), &mut seen),
            Action::Snapshot(process) => {
                next.spend(configuration, Bound::Snapshot);
                next.processes[process].snapshot = next.processes[process].cached;
            }
            Action::Crash(index, start) => {
                next.spend(configuration, Bound::Crash);
                let process = &mut next.processes[index];
                let put = process
                    .write
                    .as_ref()
                    .filter(|write| write.step == Step::Put)
                    .and_then(|write| write.put);
                process.restart(configuration, start == Start::FromSnapshot, state.clock);
                next.set_adrift(put);
            }
            Action::Evict(process) => {
                next.spend(configuration, Bound::Evict);
                next.processes[process].evict(configuration);
            }
            Action::Rollback(to) => {
                next.spend(configuration, Bound::Rollback);
                next.rolled_back = true;
                next.replace(to.map(|index| state.history[index]));
            }
            Action::Adopt(process) => {
                next.spend(configuration, Bound::Adopt);
                let process = &mut next.processes[process];
                process.overtake();
                (process.cached, process.newest, process.seen) = (None, None, None);
                (process.gone, process.rolled_back) = (false, false);
            }
        }
        next.serve_promptly(configuration, &mut seen);
        if self.seen.load(Ordering::Relaxed) & seen.0 != seen.0 {
            self.seen.fetch_or(seen.0, Ordering::Relaxed);
        }
        if configuration.alike {
            next.processes.sort_unstable();
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            property::<0>(),
            property::<1>(),
            property::<2>(),
            property::<3>(),
            property::<4>(),
            property::<5>(),
            property::<6>(),
            property::<7>(),
            property::<8>(),
            property::<9>(),
            property::<10>(),
            property::<11>(),
        ]
    }
}

impl State {
    /// Serves what takes one step, in the step in which it began.
    fn serve_promptly(&mut self, configuration: &Configuration, seen: &mut Seen) {
        let prompt = configuration.prompt;
        for index in 0..self.processes.len() {
            loop {
                let process = &self.processes[index];
                let changes = process.write.as_ref().is_some_and(|write| prompt.changes(write.change));
                let is_prompt = |read: &Read| {
                    if read.purpose == Purpose::Write {
                        changes
                    } else {
                        prompt.reads()
                    }
                };
                let Some(read) = process.reads.iter().position(is_prompt) else {
                    break;
                };
                self.processes[index].reads[read].answer = Some(self.store);
                self.receive(configuration, index, read, seen);
                let write = self.processes[index].write.as_ref();
                if let Some(write) = write.filter(|write| write.step == Step::Put && prompt.changes(write.change)) {
                    let put = write.put.expect("a put that was sent");
                    let done = self.serve_put(configuration, &put);
                    self.put_answered(configuration, index, done, seen);
                }
            }
        }
    }
}

fn property<const INDEX: usize>() -> Property<Model> {
    Property::always(Fault::ALL[INDEX].property(), |_, state: &State| {
        state.fault != Some(Fault::ALL[INDEX])
    })
}
