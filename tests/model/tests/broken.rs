//! Each rule is needed: with it broken, a property falls.

use dekseal_model::{
    configuration::{Rule, all},
    model::Model,
    store::Fault,
};
use stateright::{Checker, HasDiscoveries, Model as _};

#[track_caller]
fn falls(rule: Rule, name: &str, fault: Fault) {
    let configuration = all(false).into_iter().find(|configuration| configuration.name == name);
    let configuration = configuration.expect("a configuration of this name").breaking(rule);
    let found = HasDiscoveries::AllOf([fault.property()].into());
    let checker = Model::new(configuration)
        .checker()
        .finish_when(found)
        .spawn_bfs()
        .join();
    let path = checker
        .discovery(fault.property())
        .unwrap_or_else(|| panic!("{rule:?} can be broken"));
    let actions = path.into_actions();
    println!("{rule:?}: {fault:?} after {} steps: {actions:?}", actions.len());
}

macro_rules! fall {
    ($($test:ident: $rule:ident, $name:literal, $fault:ident;)*) => {
        $(#[test]
        fn $test() {
            falls(Rule::$rule, $name, Fault::$fault);
        })*
    };
}

fall! {
    fetch_begins_after_call: FetchBeginsAfterCall, "open", CannotOpen;
    overtaken_call_fetches_again: OvertakenCallFetchesAgain, "open", CannotOpen;
    drop_overtaken: DropOvertaken, "open", FalseRollback;
    drop_overtaken_put: DropOvertakenPut, "rotate", RollbackNotNoticed;
    take_up_what_was_read: TakeUpWhatWasRead, "change", RollbackNotNoticed;
    no_negative_cache: NoNegativeCache, "create", CannotOpen;
    put_names_revision: PutNamesRevision, "rotate", VersionLost;
    settle_by_reading: SettleByReading, "rotate", FailedButStored;
    send_same_bytes_again: SendSameBytesAgain, "rotate", FailedButStored;
    settle_conflicts: SettleConflicts, "rotate", FailedButStored;
    use_after_confirmation: UseAfterConfirmation, "rotate", TwoMaterials;
    later_document_proves_nothing: LaterDocumentProvesNothing, "change", FailedButStored;
    compare_material: CompareMaterial, "change", FailedButStored;
    confirm_after_max_age: ConfirmAfterMaxAge, "disable", UsedAfterMaxAge;
    refuse_after_max_stale: RefuseAfterMaxStale, "disable", UsedAfterMaxStale;
    age_counts_from_request: AgeCountsFromRequest, "disable", UsedAfterMaxStale;
    snapshot_keeps_age: SnapshotKeepsAge, "snapshot", UsedAfterMaxStale;
    grace_covers_put: GraceCoversPut, "destroy", SealedUnderDestroyed;
    stamp_has_deletion_date: StampHasDeletionDate, "delete", FalseRollback;
    revision_is_mac: RevisionIsMac, "branch", FalseConfirmation;
    stop_after_rollback: StopAfterRollback, "branch", ActedAfterRollback;
    stamp_outlives_eviction: StampOutlivesEviction, "branch", RollbackNotNoticed;
    stamp_has_newest_version: StampHasNewestVersion, "branch", RollbackNotNoticed;
    missing_versions_are_oldest: MissingVersionsAreOldest, "branch", RollbackNotNoticed;
}
