//! What a pass found and did, for people and for machines.

use std::{
    io::{self, Write},
    time::Duration,
};

use dekseal::{KeyId, UnixTime, VersionInfo};
use serde::Serialize;

use super::{
    row::{KeyPart, display_key},
    state::{SHOWN, State},
    table::Description,
};
use crate::output;

/// The report of a pass.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    table: &'a str,
    column: &'a str,
    dry_run: bool,
    /// Whether the pass went over all rows.
    complete: bool,
    pass: u64,
    began: String,
    rows: u64,
    rewrapped: u64,
    current: u64,
    null: u64,
    other_keys: u64,
    gone: u64,
    failed: u64,
    failures: Vec<Failure>,
    keys: Vec<KeyReport>,
}

/// A row that failed.
#[derive(Serialize)]
struct Failure {
    key: serde_json::Map<String, serde_json::Value>,
    #[serde(skip)]
    shown: String,
    error: String,
}

/// The rows of one key.
#[derive(Serialize)]
struct KeyReport {
    key_id: String,
    versions: Vec<VersionReport>,
    /// No row of the column is under a version below this one.
    oldest: u32,
    old_versions: OldVersions,
}

#[derive(Serialize)]
struct VersionReport {
    version: u32,
    rows: u64,
}

/// Whether the versions below the oldest one may be destroyed, as far as this column is concerned.
#[derive(Serialize)]
#[serde(tag = "may_be_destroyed", rename_all = "snake_case")]
enum OldVersions {
    /// There are none.
    None,
    /// Not yet: rows are left, or failed, or the pass is not complete.
    No { reason: &'static str },
    /// The pass began long enough after the rotation.
    Now,
    /// After a pass that begins at this time or later.
    AfterPassFrom { time: String },
    /// The time of the rotation is unknown.
    Unknown,
}

impl<'a> Report<'a> {
    /// Makes the report. `versions` returns what the keyring says about a key.
    pub(crate) fn new(
        description: &'a Description,
        state: &State,
        (dry_run, complete): (bool, bool),
        grace: Duration,
        versions: impl Fn(&KeyId) -> Vec<VersionInfo>,
    ) -> Self {
        let tally = &state.tally;
        let failures = tally.failures.iter().map(|failed| Failure {
            key: description
                .key
                .iter()
                .cloned()
                .zip(failed.key.iter().map(json))
                .collect(),
            shown: display_key(&description.key, &failed.key),
            error: failed.problem.clone(),
        });
        let keys = tally.keys.iter().filter_map(|(key_id, counts)| {
            let (oldest, _) = counts.first_key_value()?;
            let infos = key_id.parse().map(|key_id| versions(&key_id)).unwrap_or_default();
            Some(KeyReport {
                key_id: key_id.clone(),
                versions: counts
                    .iter()
                    .map(|(&version, &rows)| VersionReport { version, rows })
                    .collect(),
                oldest: *oldest,
                old_versions: match () {
                    () if *oldest == 0 && infos.iter().all(|info| info.key_version == 0) => OldVersions::None,
                    () if dry_run => OldVersions::No {
                        reason: "this was a dry run",
                    },
                    () if !complete => OldVersions::No {
                        reason: "the pass is not complete",
                    },
                    () if tally.failed > 0 => OldVersions::No { reason: "rows failed" },
                    () => old_versions(*oldest, &infos, state.began, grace),
                },
            })
        });
        Self {
            table: &description.table,
            column: &description.column,
            dry_run,
            complete,
            pass: state.pass,
            began: date(state.began),
            rows: tally.rows,
            rewrapped: tally.rewrapped,
            current: tally.current,
            null: tally.null,
            other_keys: tally.other_keys,
            gone: tally.gone,
            failed: tally.failed,
            failures: failures.collect(),
            keys: keys.collect(),
        }
    }

    /// Writes the report for people.
    pub(crate) fn write(&self, output: &mut dyn Write, grace: Duration) -> io::Result<()> {
        let (table, column) = (self.table, self.column);
        let kind = if self.dry_run { "dry run" } else { "pass" };
        let end = if self.complete { "" } else { ", not complete" };
        writeln!(
            output,
            "{kind} {} over {table}.{column}, begun {}{end}",
            self.pass, self.began
        )?;
        writeln!(output, "{:36}  {:>10}  {:>12}", "key ID", "version", "rows")?;
        for key in &self.keys {
            for VersionReport { version, rows } in &key.versions {
                writeln!(output, "{:36}  {version:>10}  {rows:>12}", key.key_id)?;
            }
        }
        let rewrapped = if self.dry_run {
            "would be rewrapped"
        } else {
            "rewrapped"
        };
        let counts = [
            (rewrapped, self.rewrapped, true),
            ("already under the current version", self.current, true),
            ("NULL", self.null, false),
            ("under other keys, left alone", self.other_keys, false),
            ("deleted meanwhile", self.gone, false),
            (if self.dry_run { "would fail" } else { "failed" }, self.failed, true),
        ];
        for (name, count, always) in counts {
            if always || count > 0 {
                writeln!(output, "{name:36}  {:>10}  {count:>12}", "")?;
            }
        }
        for failure in &self.failures {
            writeln!(output, "  {}: {}", failure.shown, failure.error)?;
        }
        if self.failed > SHOWN as u64 {
            writeln!(output, "  and {} more", self.failed.saturating_sub(SHOWN as u64))?;
        }
        for key in &self.keys {
            if let Some(line) = key.advice(grace) {
                writeln!(output, "{line}")?;
            }
        }
        Ok(())
    }
}

fn old_versions(oldest: u32, infos: &[VersionInfo], began: u64, grace: Duration) -> OldVersions {
    if infos.iter().any(|info| info.key_version > oldest) {
        return OldVersions::No {
            reason: "the key was rotated during the pass, or another process still seals under an older version",
        };
    }
    let created = infos
        .iter()
        .find(|info| info.key_version == oldest)
        .and_then(|info| info.created);
    let Some(created) = created else {
        return OldVersions::Unknown;
    };
    // Until the end of the grace period, a process may seal under the version before. A pass that began earlier could
    // have been ahead of it.
    let from = created
        .as_secs()
        .saturating_add(grace.as_secs())
        .saturating_add(u64::from(grace.subsec_nanos() > 0));
    match began >= from {
        true => OldVersions::Now,
        false => OldVersions::AfterPassFrom { time: date(from) },
    }
}

impl KeyReport {
    fn advice(&self, grace: Duration) -> Option<String> {
        let Self { key_id, oldest, .. } = self;
        let grace = humantime::format_duration(Duration::from_secs(grace.as_secs()));
        Some(match &self.old_versions {
            OldVersions::None => return None,
            OldVersions::No { reason } => {
                format!("{key_id}: do not destroy old versions: {reason}")
            }
            OldVersions::Now => format!(
                "{key_id}: no row of this column needs a version below {oldest}. Once this holds for all columns, \
                 files and backups, these versions may be retired and destroyed."
            ),
            OldVersions::AfterPassFrom { time } => format!(
                "{key_id}: do not destroy versions below {oldest} yet. Sweep again at {time} or later, the grace \
                 period of {grace} after the rotation."
            ),
            OldVersions::Unknown => format!(
                "{key_id}: the keyring does not know when version {oldest} was made. Sweep again {grace} after that, \
                 before you destroy older versions."
            ),
        })
    }
}

fn json(part: &KeyPart) -> serde_json::Value {
    match part {
        KeyPart::Integer(number) => (*number).into(),
        KeyPart::Text(text) | KeyPart::Blob(text) => text.as_str().into(),
    }
}

/// A time as people write it, in UTC.
fn date(seconds: u64) -> String {
    match UnixTime::from_secs(seconds) {
        Ok(time) => output::date(time),
        Err(_) => "never".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const KEY: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
    const GRACE: Duration = Duration::from_millis(3_600_500);

    fn report(counts: &[(u32, u64)], began: u64, failed: u64) -> String {
        let description = Description {
            identity: "table".into(),
            table: "document".into(),
            key: vec!["id".into()],
            column: "sealed".into(),
            encoding: None,
        };
        let mut state = State::new("table", 1, began);
        state.tally.failed = failed;
        state.tally.keys = BTreeMap::from([(KEY.to_owned(), counts.iter().copied().collect())]);
        let keyring =
            dekseal::MemoryKeyring::from_versions([
                dekseal::CmkVersion::new(KEY.parse().unwrap(), 0, &[7; 32]).unwrap()
            ])
            .unwrap();
        let key_id = KEY.parse().unwrap();
        keyring.update(|keys| keys.rotate(&key_id)).unwrap();
        let versions = |key_id: &KeyId| keyring.keys().versions(key_id).unwrap();
        let report = Report::new(&description, &state, (false, true), GRACE, versions);
        let mut text = Vec::new();
        report.write(&mut text, GRACE).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn now() -> u64 {
        UnixTime::now().unwrap().as_secs()
    }

    #[test]
    fn old_versions_go_only_after_a_pass_that_began_after_the_grace_period() {
        // One second for a rotation at the end of a second.
        let after = now() + 3602;
        assert!(report(&[(1, 5)], after, 0).contains("these versions may be retired and destroyed"));
        let early = report(&[(1, 5)], after - 3, 0);
        assert!(early.contains("do not destroy versions below 1 yet"), "{early}");
    }

    #[test]
    fn rows_that_are_left_or_failed_keep_the_old_versions() {
        let after = now() + 3602;
        let left = report(&[(0, 1), (1, 5)], after, 0);
        assert!(
            left.contains("do not destroy old versions: the key was rotated during the pass"),
            "{left}"
        );
        let failed = report(&[(1, 5)], after, 1);
        assert!(failed.contains("do not destroy old versions: rows failed"), "{failed}");
    }
}
