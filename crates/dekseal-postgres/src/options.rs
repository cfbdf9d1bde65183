//! The address of the database and the settings of the store.

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

/// The address of the database and the settings of a [`PostgresStore`](crate::PostgresStore).
///
/// # Security
///
/// Connections over TCP use TLS and verify the certificate and the name of the server, unless the host sets
/// `sslmode=disable`. There is no mode that encrypts without verification.
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

/// Options that were checked.
pub(crate) struct Checked {
    pub(crate) config: Config,
    pub(crate) tls: Tls,
    pub(crate) sql: Sql,
}

impl Options {
    /// Parses a connection string: `key=value` pairs or a `postgresql://` URL, as [`Config`] reads them. It also
    /// accepts `sslmode=verify-full`, which is the default.
    ///
    /// For a database with standbys, name all hosts: the store uses the one that accepts writes.
    ///
    /// Name the user too. Otherwise the operating system is asked for the name of its user at each connection, and no
    /// deadline ends that.
    ///
    /// # Errors
    ///
    /// [`Refused`](StoreErrorKind::Refused) if it is not a connection string.
    pub fn new(connection: &str) -> Result<Self, StoreError> {
        // tokio-postgres leaves the verification of `require` to the TLS library. Ours always verifies.
        let config = connection
            .replace("sslmode=verify-full", "sslmode=require")
            .parse::<Config>();
        Ok(Self::from_config(config.map_err(refused)?))
    }

    /// Takes existing settings.
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

    /// Trusts these root certificates, in PEM, instead of those of the operating system.
    ///
    /// # Errors
    ///
    /// [`Refused`](StoreErrorKind::Refused) if it is not PEM, or has no root certificate.
    pub fn root_certificates(mut self, pem: &[u8]) -> Result<Self, StoreError> {
        self.tls = Some(Tls::with_pem_roots(pem).map_err(refused)?);
        Ok(self)
    }

    /// Uses this TLS configuration, for example one with a client certificate.
    ///
    /// # Security
    ///
    /// The caller is responsible for what the configuration verifies.
    #[must_use]
    pub fn tls_config(mut self, config: ClientConfig) -> Self {
        self.tls = Some(Tls::new(config));
        self
    }

    /// Sets the schema of the table. By default, the `search_path` of the session determines it.
    #[must_use]
    pub fn schema(mut self, schema: &str) -> Self {
        self.schema = Some(schema.to_owned());
        self
    }

    /// Sets the name of the table, by default `dekseal_key`. It is also the name of the channel of notifications.
    /// Stores whose tables have the same name in several schemas get each other's notifications, and ignore them.
    #[must_use]
    pub fn table(mut self, table: &str) -> Self {
        table.clone_into(&mut self.table);
        self
    }

    /// Sets the maximum number of connections for calls, by default 4, and at least 1. The refresher and the
    /// notifications have one more connection each.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Sets the time after which the server cancels a statement, by default 5 seconds. It ends statements whose caller
    /// is gone.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets whether to notify other processes of each change and to listen for their notifications. It is on by
    /// default. A server without notifications works with both settings.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// Checks the settings and completes them. The error says which of them is wrong.
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
        // A standby can lag behind, which would look like a rollback.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("dekseal");
        }
        // If one host does not answer, this leaves time for the next one.
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(2));
        }
        // The default is two hours. Firewalls drop idle connections earlier without telling either end.
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
    /// Leaves out the settings of the connection, which include a password.
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
