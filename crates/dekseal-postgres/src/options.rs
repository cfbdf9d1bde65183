//! Where the database is, and how to talk to it.

use std::{fmt, time::Duration};

use dekseal::store::{StoreError, StoreErrorKind};
use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};
use tokio_rustls::rustls::ClientConfig;

use crate::{
    sql::{DEFAULT_TABLE, Sql, is_name},
    tls::Tls,
};

/// Where the database is, and how a [`PostgresStore`](crate::PostgresStore) talks to it.
///
/// # Security
///
/// Over TCP the connection is TLS, and the server's certificate and name are verified, unless the host asks for `sslmode=disable`. There is
/// no mode in between that would encrypt without knowing to whom.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use dekseal_postgres::Options;
///
/// let options = Options::new("host=db1.example,db2.example dbname=keys user=service")?
///     .schema("payments")
///     .table("customer_keys")
///     .connections(8)
///     .statement_timeout(Duration::from_secs(2))
///     .notify(false);
/// # Ok::<(), dekseal::store::StoreError>(())
/// ```
#[derive(Clone)]
pub struct Options {
    config: Config,
    tls: Option<Tls>,
    schema: Option<String>,
    table: String,
    pub(crate) connections: usize,
    pub(crate) statement_timeout: Duration,
    pub(crate) notify: bool,
}

/// Options that fit together.
pub(crate) struct Checked {
    pub(crate) config: Config,
    pub(crate) tls: Tls,
    pub(crate) sql: Sql,
}

impl Options {
    /// The options of a connection string: `key=value` pairs or a `postgresql://` URL, as [`Config`] reads them. `sslmode=verify-full` is
    /// understood too, and is the default.
    ///
    /// Name several hosts for a database with standbys: the store uses the one that takes writes.
    ///
    /// # Errors
    ///
    /// [`Refused`](StoreErrorKind::Refused) if it is not a connection string.
    pub fn new(connection: &str) -> Result<Self, StoreError> {
        // To tokio-postgres, `require` leaves verification to the TLS library; ours always verifies.
        let config = connection
            .replace("sslmode=verify-full", "sslmode=require")
            .parse::<Config>();
        Ok(Self::from_config(config.map_err(refused)?))
    }

    /// The options of settings that were made before.
    #[must_use]
    pub fn from_config(config: Config) -> Self {
        Self {
            config,
            tls: None,
            schema: None,
            table: DEFAULT_TABLE.into(),
            connections: 4,
            statement_timeout: Duration::from_secs(5),
            notify: true,
        }
    }

    /// Trusts these root certificates, in PEM, instead of the operating system's.
    ///
    /// # Errors
    ///
    /// [`Refused`](StoreErrorKind::Refused) if it is not PEM, or has no root certificate.
    pub fn root_certificates(mut self, pem: &[u8]) -> Result<Self, StoreError> {
        self.tls = Some(Tls::with_pem_roots(pem).map_err(refused)?);
        Ok(self)
    }

    /// Uses this TLS configuration, such as one with a client certificate.
    ///
    /// # Security
    ///
    /// What it verifies is the caller's business.
    #[must_use]
    pub fn tls_config(mut self, config: ClientConfig) -> Self {
        self.tls = Some(Tls::new(config));
        self
    }

    /// The table's schema. Without it, the session's `search_path` decides.
    #[must_use]
    pub fn schema(mut self, schema: &str) -> Self {
        self.schema = Some(schema.to_owned());
        self
    }

    /// The table's name, which is `dekseal_key` otherwise. It is the name of the channel of notifications too, so tables of one name in
    /// several schemas hear of each other's keys, which they ignore.
    #[must_use]
    pub fn table(mut self, table: &str) -> Self {
        table.clone_into(&mut self.table);
        self
    }

    /// How many calls have a connection at the same time: 4 otherwise, and at least 1. The refresher and notifications have one more each.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// After how long the server gives up a statement, such as one whose caller is gone: 5 seconds otherwise.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Whether to notify other processes of each change, and to listen for theirs: on, otherwise. A server that cannot notify serves in
    /// either case.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// Completes the settings, or says which of them do not fit.
    pub(crate) fn check(&self) -> Result<Checked, StoreError> {
        for name in self.schema.iter().chain([&self.table]) {
            if !is_name(name) {
                return Err(refused(format!(
                    "not a name of 1 to 63 characters of a-z, 0-9 and _: {name:?}"
                )));
            }
        }
        let mut config = self.config.clone();
        let is_tcp = |host: &Host| matches!(host, Host::Tcp(_));
        if config.get_ssl_mode() != SslMode::Disable {
            let tcp = config.get_hosts().iter().any(is_tcp) || !config.get_hostaddrs().is_empty();
            // PostgreSQL has no TLS over Unix sockets.
            config.ssl_mode(if tcp { SslMode::Require } else { SslMode::Disable });
        }
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None if config.get_ssl_mode() == SslMode::Disable => Tls::unused().map_err(refused)?,
            None => Tls::with_system_roots().map_err(refused)?,
        };
        // A standby's answer lags, which looks like a rollback.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("dekseal");
        }
        // A host that does not answer leaves time for the next one.
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(2));
        }
        // Two hours is the default. A firewall forgets an idle connection sooner, and says nothing.
        if config.get_keepalives_idle() >= Duration::from_secs(7200) {
            config.keepalives_idle(Duration::from_secs(15));
            config.keepalives_interval(Duration::from_secs(5));
            config.keepalives_retries(3);
        }
        Ok(Checked {
            config,
            tls,
            sql: Sql::new(self.schema.as_deref(), &self.table),
        })
    }
}

impl fmt::Debug for Options {
    /// Without the connection's settings, among them a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Options");
        shown.field("schema", &self.schema).field("table", &self.table);
        shown.field("connections", &self.connections);
        shown.field("statement_timeout", &self.statement_timeout);
        shown.field("notify", &self.notify).finish_non_exhaustive()
    }
}

fn refused(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new(StoreErrorKind::Refused, source)
}
