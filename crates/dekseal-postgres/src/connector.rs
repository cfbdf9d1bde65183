//! Connections for a program that also works on other tables.

use std::fmt;

use dekseal::store::StoreError;
use tokio_postgres::{Client, Config};

use crate::{options::Options, tls::Tls};

/// Makes connections with the settings of a store: for a program that also works on other tables of a database.
///
/// # Examples
///
/// ```no_run
/// use dekseal_postgres::Options;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = Options::new("host=db1.example dbname=app user=service")?.connector()?;
/// let (client, connection) = connector.connect().await?;
/// tokio::spawn(connection);
/// let row = client.query_one("SELECT 1", &[]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector {
    config: Config,
    tls: Tls,
}

impl Options {
    /// Checks the settings, and makes a connector of them.
    ///
    /// # Errors
    ///
    /// [`Refused`](dekseal::store::StoreErrorKind::Refused) if a setting is wrong.
    pub fn connector(&self) -> Result<Connector, StoreError> {
        let checked = self.check()?;
        Ok(Connector {
            config: checked.config,
            tls: checked.tls,
        })
    }
}

impl Connector {
    /// Connects to the primary. The caller runs the future beside the client, until the connection ends.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn connect(&self) -> Result<(Client, impl Future<Output = ()> + Send + 'static), tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        let run = async {
            // The client gets the error of a connection that ends.
            let _ = connection.await;
        };
        Ok((client, run))
    }
}

impl fmt::Debug for Connector {
    /// Leaves out the settings, which include a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector(..)")
    }
}
