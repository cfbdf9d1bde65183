//! The address of a keyring.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use dekseal::store::StoreError;
use dekseal_postgres::{Options, tokio_postgres::Config};
use dekseal_sqlite::SqliteStore;

use crate::failure::Failure;

/// Where a keyring is kept.
pub(crate) enum Address {
    File(PathBuf),
    Sqlite { path: PathBuf, table: Option<String> },
    Postgres(Box<Options>),
}

impl Address {
    /// Parses the text of `--keyring`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        Self::parse_option("--keyring", text)
    }

    /// Parses the text of an option. No error repeats it: it may hold the password of a database.
    pub(crate) fn parse_option(option: &str, text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(path_of(option, path)?));
        }
        if let Some(path) = text.strip_prefix("sqlite:") {
            let (path, table) = split_table(path);
            return Ok(Self::Sqlite {
                path: path_of(option, path)?,
                table: table.map(str::to_owned),
            });
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let (url, table) = split_table(text);
            return Ok(Self::Postgres(Box::new(postgres(option, (text, url), table)?)));
        }
        Err(Failure::usage(format!(
            "{option} is none of file:PATH, sqlite:PATH and postgres://HOST/DATABASE"
        )))
    }
}

/// The address without a password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Sqlite { path, .. } => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(_) => f.write_str("the keyring in PostgreSQL"),
        }
    }
}

/// Splits off `#TABLE`.
fn split_table(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('#') {
        Some((address, table)) => (address, Some(table)),
        None => (text, None),
    }
}

fn path_of(option: &str, path: &str) -> Result<PathBuf, Failure> {
    if path.is_empty() {
        return Err(Failure::usage(format!(
            "{option} has no path: write file:PATH or sqlite:PATH"
        )));
    }
    Ok(PathBuf::from(path))
}

/// Options for a URL, completed as psql does: the password from PGPASSWORD, and the certificates that are trusted from
/// the file PGSSLROOTCERT.
fn postgres(option: &str, (text, url): (&str, &str), table: Option<&str>) -> Result<Options, Failure> {
    let url = url.replace("sslmode=verify-full", "sslmode=require");
    // The source of the error repeats parts of the URL.
    let mut config: Config = url.parse().map_err(|_| {
        Failure::usage(format!(
            "{option} is not a URL of PostgreSQL: write postgres://USER@HOST/DATABASE"
        ))
    })?;
    // Every user of the machine can read the command line.
    let variable = format!("DEKSEAL_{}", option.trim_start_matches('-').to_uppercase());
    if config.get_password().is_some() && env::var_os(&variable).is_none_or(|set| set != text) {
        return Err(Failure::usage(format!(
            "{option} has a password, and other users can read the command line; set {variable} or PGPASSWORD instead"
        )));
    }
    if config.get_password().is_none()
        && let Ok(password) = env::var("PGPASSWORD")
    {
        config.password(password);
    }
    let mut options = Options::from_config(config).connections(1);
    if let Some(file) = env::var_os("PGSSLROOTCERT") {
        let pem = fs::read(&file).map_err(|error| Failure::of_io(Path::new(&file).display(), &error))?;
        options = options.root_certificates(&pem).map_err(|error| store_failed(&error))?;
    }
    if let Some(table) = table {
        options = match table.split_once('.') {
            Some((schema, table)) => options.schema(schema).table(table),
            None => options.table(table),
        };
    }
    Ok(options)
}

pub(super) fn sqlite(path: &Path, table: Option<&str>) -> Result<SqliteStore, Failure> {
    let table = table.unwrap_or(dekseal_sqlite::DEFAULT_TABLE);
    SqliteStore::open_table(path, table).map_err(|error| store_failed(&error).about(path.display()))
}

pub(super) fn store_failed(error: &StoreError) -> Failure {
    let mut message = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        message.push_str(&format!(": {source}"));
    }
    Failure::io(message)
}
