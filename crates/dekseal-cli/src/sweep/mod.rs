//! `dekseal sweep`: seals every DEK in a column of a table again, under the current version of its key.

mod batch;
mod encoding;
mod pass;
mod postgres;
mod progress;
mod report;
mod rewrap;
mod row;
mod sqlite;
mod state;
mod table;
mod template;

use std::{
    env, io,
    num::NonZero,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use dekseal::{Engine, KeyId, StoreSettings, UnixTime};

use self::{
    batch::Work,
    encoding::{Content, Encoding},
    pass::{Ended, Pace},
    progress::Progress,
    report::Report,
    rewrap::Rewrap,
    state::{State, StateFile},
    table::{Request, Source, TableName},
    template::Template,
};
use crate::{context::ContextArgs, duration, failure::Failure, globals::Globals, keyring::Address, output};

/// Seals every DEK in a column of a table again, under the current version of its key
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The database: sqlite:PATH or postgres://USER@HOST/DATABASE
    #[arg(long, env = "DEKSEAL_DATABASE", hide_env_values = true, value_name = "ADDRESS")]
    database: String,

    /// The table, perhaps with its schema: SCHEMA.TABLE
    #[arg(long)]
    table: String,

    /// A column of the primary key or of another unique index; repeat it for several [default: the primary key]
    #[arg(long = "key-column", value_name = "COLUMN")]
    key_columns: Vec<String>,

    /// The column of the sealed DEKs
    #[arg(long, value_name = "COLUMN")]
    blob_column: String,

    #[command(flatten)]
    context: ContextArgs,

    /// The column holds payloads, of which only the header changes
    #[arg(long)]
    payload: bool,

    /// The encoding of a column of texts [default: detected]
    #[arg(long)]
    encoding: Option<Encoding>,

    /// Only the rows of this key; repeat it for several [default: the rows of all keys]
    #[arg(long = "key", value_name = "KEY_ID")]
    keys: Vec<KeyId>,

    /// Count the rows and report those that would fail; write nothing
    #[arg(long)]
    dry_run: bool,

    /// Pass again until a pass finds nothing to do
    #[arg(long, conflicts_with = "dry_run")]
    repeat: bool,

    /// The rows of one transaction
    #[arg(long, default_value = "1000", value_name = "ROWS")]
    batch: NonZero<u32>,

    /// The number of connections that write; SQLite has one writer at a time
    #[arg(long, default_value = "1", value_name = "N")]
    jobs: NonZero<u32>,

    /// The most rows in a second
    #[arg(long, value_name = "ROWS")]
    rate: Option<NonZero<u32>>,

    /// The time after a rotation in which processes may still seal under the older version, and store what they sealed
    /// [default: that of a fleet with default settings]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    grace: Option<Duration>,

    /// The file that a killed sweep resumes from [default: one for each table, under ~/.local/state/dekseal]
    #[arg(long, value_name = "PATH")]
    state: Option<PathBuf>,

    /// The longest time that the database may take for a statement
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration::parse)]
    statement_timeout: Duration,

    /// How long to wait for a database that does not answer
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = duration::parse)]
    patience: Duration,
}

const HELP: &str = "\
{COLUMN} in the value of --context stands for the column of the row, {{ and }} for braces. A row is replaced only if \
its value is still the one that was read, so a writer beside the sweep loses nothing. A sweep that was killed \
continues when the same command is run again. Exit code 1: rows failed, and the report names them.

Example:
  dekseal sweep --database sqlite:app.db --table document \\
    --blob-column sealed_dek --context 'tenant={tenant_id}'";

pub(crate) fn run(args: Args, globals: &Globals) -> Result<(), Failure> {
    let template = Template::parse(args.context.pairs()?)?;
    let address = Address::parse_option("--database", &args.database)?;
    let request = Request {
        table: TableName::parse(&args.table)?,
        key: args.key_columns.clone(),
        column: args.blob_column.clone(),
        content: args.content(),
        encoding: args.encoding,
        cells: template.columns().to_vec(),
        statement_timeout: args.statement_timeout,
        patience: args.patience,
        read_only: args.dry_run,
    };
    let engine = Engine::new(globals.open()?);
    let source = Source::find(address, request)?;
    if !source.takes_jobs() && args.jobs.get() > 1 {
        return Err(Failure::usage(
            "--jobs: SQLite has one writer at a time, so leave it out",
        ));
    }
    let sweep = Sweep {
        work: Work {
            engine: &engine,
            rewrap: Rewrap {
                engine: &engine,
                template: &template,
                content: args.content(),
                encoding: source.description().encoding,
                only: &args.keys,
            },
            dry_run: args.dry_run,
        },
        source: &source,
        args: &args,
        globals,
        stop: crate::process::stop_requested()?,
    };
    if args.dry_run { sweep.dry_run() } else { sweep.passes() }
}

impl Args {
    fn content(&self) -> Content {
        if self.payload {
            Content::Payload
        } else {
            Content::SealedDek
        }
    }

    /// The time after a rotation from which no process seals under an older version. For a fleet, the settings of the
    /// keyring say it.
    fn grace(&self) -> Duration {
        self.grace.unwrap_or_else(|| StoreSettings::default().grace())
    }
}

struct Sweep<'a> {
    work: Work<'a>,
    source: &'a Source,
    args: &'a Args,
    globals: &'a Globals,
    stop: Arc<AtomicBool>,
}

impl Sweep<'_> {
    fn dry_run(&self) -> Result<(), Failure> {
        let mut state = State::new("", 1, UnixTime::now()?.as_secs());
        self.pass(&mut state, None)?;
        match state.tally.failed {
            0 => Ok(()),
            1 => Err(Failure::data("1 row would fail; see the report")),
            failed => Err(Failure::data(format!("{failed} rows would fail; see the report"))),
        }
    }

    fn passes(&self) -> Result<(), Failure> {
        let identity = self.identity();
        let path = match &self.args.state {
            Some(path) => path.clone(),
            None => default_path(&identity)?,
        };
        let (file, resumed) = StateFile::open(&path, &identity)?;
        let mut state = match resumed {
            Some(state) => state,
            None => State::new(&identity, 1, UnixTime::now()?.as_secs()),
        };
        loop {
            self.pass(&mut state, Some(&file))?;
            file.remove()?;
            if !self.args.repeat || state.tally.rewrapped == 0 {
                break;
            }
            state = State::new(&identity, state.pass.saturating_add(1), UnixTime::now()?.as_secs());
        }
        match state.tally.failed {
            0 => Ok(()),
            1 => Err(Failure::data("1 row failed and keeps its old value; see the report")),
            failed => Err(Failure::data(format!(
                "{failed} rows failed and keep their old values; see the report"
            ))),
        }
    }

    /// Passes over the table from where `state` says, and reports. A pass that is stopped is an error.
    fn pass(&self, state: &mut State, file: Option<&StateFile>) -> Result<(), Failure> {
        let Self { args, source, .. } = self;
        self.work.engine.keyring().refresh()?;
        let pace = Pace {
            batch: args.batch,
            jobs: args.jobs,
            rate: args.rate,
        };
        // A pass that never comes to its first batch has a beginning too.
        if let Some(file) = file {
            file.save(state)?;
        }
        let mut progress = Progress::new(self.globals.json, file, self.work.engine.keyring());
        if progress.is_shown() {
            // Counting may take longer than a statement may. The bar then grows with the rows.
            let total = source.connect()?.total().unwrap_or_default();
            progress.begin(total, state);
        }
        let outcome = pass::run(source, &self.work, &pace, state, &self.stop, &mut progress);
        progress.end();
        let saved = file.map_or(Ok(()), |file| file.save(state));
        let complete = matches!(outcome, Ok(Ended::Complete));
        self.report(state, complete)?;
        let resumes = match file {
            Some(file) => format!(
                "; run the same command again to continue from {}",
                file.path().display()
            ),
            None => String::new(),
        };
        match outcome {
            Ok(Ended::Complete) => saved,
            Ok(Ended::Stopped) => Err(Failure::io(format!("the sweep was stopped{resumes}"))),
            Err(failure) => Err(failure),
        }
    }

    fn report(&self, state: &State, complete: bool) -> Result<(), Failure> {
        let grace = self.args.grace();
        let keyring = self.work.engine.keyring();
        let versions = |key_id: &KeyId| keyring.versions(key_id).unwrap_or_default();
        let kind = (self.args.dry_run, complete);
        let report = Report::new(self.source.description(), state, kind, grace, versions);
        output::print(self.globals.json, &report, |output| report.write(output, grace))
    }

    /// A text that names what is swept, and with which keyring.
    fn identity(&self) -> String {
        let description = self.source.description();
        let parts = [
            ("key", description.key.join(", ")),
            ("column", description.column.clone()),
            ("content", format!("{:?}", self.args.content())),
            (
                "context",
                format!("{:?}", self.args.context.pairs().unwrap_or_default()),
            ),
            (
                "keys",
                self.args.keys.iter().map(KeyId::as_str).collect::<Vec<_>>().join(", "),
            ),
            ("keyring", self.globals.keyring_name()),
        ];
        let parts = parts.map(|(name, value)| format!("{name}: {value}"));
        format!("{}; {}", description.identity, parts.join("; "))
    }
}

/// The state file of a sweep, in the directory for the states of programs.
fn default_path(identity: &str) -> Result<PathBuf, Failure> {
    let directory = match (env::var_os("XDG_STATE_HOME"), env::var_os("HOME")) {
        (Some(state), _) if !state.is_empty() => PathBuf::from(state),
        (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".local/state"),
        _ => {
            return Err(Failure::usage(
                "there is no home directory: name the file of the state with --state",
            ));
        }
    };
    let directory = directory.join("dekseal");
    std::fs::create_dir_all(&directory).map_err(|error: io::Error| Failure::of_io(directory.display(), &error))?;
    // A short name for the identity. Another sweep with the same name is refused, since the state holds the identity.
    let hash = identity.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(directory.join(format!("sweep-{hash:016x}.json")))
}
