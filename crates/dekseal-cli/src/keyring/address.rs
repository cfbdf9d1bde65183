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
    /// Parses the text of `--keyring`. No error repeats it: it may hold the password of a database.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(path_of(path)?));
        }
        if let Some(path) = text.strip_prefix("sqlite:") {
            let (path, table) = split_table(path);
            return Ok(Self::Sqlite {
                path: path_of(path)?,
                table: table.map(str::to_owned),
            });
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let (url, table) = split_table(text);
            // Every user of the machine can read the command line.
            let hidden = env::var_os("DEKSEAL_KEYRING").is_some_and(|set| set == text);
            return Ok(Self::Postgres(Box::new(postgres(url, table, hidden)?)));
        }
        Err(Failure::usage(
            "--keyring is none of file:PATH, sqlite:PATH and postgres://HOST/DATABASE",
        ))
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

fn path_of(path: &str) -> Result<PathBuf, Failure> {
    if path.is_empty() {
        return Err(Failure::usage("--keyring has no path: write file:PATH or sqlite:PATH"));
    }
    Ok(PathBuf::from(path))
}

/// Options for a URL, completed as psql does: the password from PGPASSWORD, and the certificates that are trusted from
/// the file PGSSLROOTCERT.
fn postgres(url: &str, table: Option<&str>, hidden: bool) -> Result<Options, Failure> {
    let url = url.replace("sslmode=verify-full", "sslmode=require");
    // The source of the error repeats parts of the URL.
    let mut config: Config = url
        .parse()
        .map_err(|_| Failure::usage("--keyring is not a URL of PostgreSQL: write postgres://USER@HOST/DATABASE"))?;
    if config.get_password().is_some() && !hidden {
        return Err(Failure::usage(
            "--keyring has a password, and other users can read the command line; set DEKSEAL_KEYRING or PGPASSWORD instead",
        ));
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
