//! Each configuration keeps all properties, and meets what it is there for.

use dekseal_model::{
    configuration::all,
    document::Change,
    model::{Event, Model},
    write::Report,
};
use stateright::{Checker, HasDiscoveries, Model as _};

fn explore(name: &str, events: &[Event]) {
    let configuration = all(false).into_iter().find(|configuration| configuration.name == name);
    let model = Model::new(configuration.expect("a configuration of this name"));
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    checker.assert_properties();
    for &event in events {
        assert!(checker.model().has_seen(event), "{name} does not meet {event:?}");
    }
}

fn reported(changes: &[Change]) -> Vec<Event> {
    let reports = [Report::Done, Report::Failed, Report::Unknown];
    changes
        .iter()
        .flat_map(|&change| reports.map(|report| Event::Reported(change, report)))
        .collect()
}

const SETTLED: [Event; 3] = [Event::SettledAsDone, Event::SettledAsNotDone, Event::SentAgain];

#[test]
fn create() {
    let met = [Event::Sealed, Event::Opened];
    explore("create", &[&SETTLED[..], &met, &reported(&[Change::Create])].concat());
}

#[test]
fn rotate() {
    explore(
        "rotate",
        &[&SETTLED[..], &[Event::Dropped], &reported(&[Change::Rotate])].concat(),
    );
}

#[test]
fn change() {
    explore("change", &reported(&[Change::Rotate, Change::Disable, Change::Reseal]));
}

#[test]
fn open() {
    explore("open", &[Event::Sealed, Event::Opened, Event::Dropped]);
}

#[test]
fn disable() {
    explore("disable", &[Event::Sealed, Event::Opened, Event::Stale]);
}

#[test]
fn snapshot() {
    explore("snapshot", &[Event::Sealed, Event::Stale]);
}

#[test]
fn destroy() {
    explore(
        "destroy",
        &[Event::Sealed, Event::Reported(Change::Destroy, Report::Done)],
    );
}

#[test]
fn delete() {
    explore("delete", &[Event::Gone, Event::Reported(Change::Purge, Report::Done)]);
}

#[test]
fn roll_back() {
    let written_back = Event::Reported(Change::WriteBack, Report::Done);
    explore(
        "roll back",
        &[
            Event::RolledBack,
            Event::OpenedAfterRollback,
            Event::Healed,
            written_back,
        ],
    );
}

#[test]
fn branch() {
    explore("branch", &[Event::RolledBack, Event::OpenedAfterRollback]);
}
