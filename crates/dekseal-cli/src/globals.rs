//! The options that all subcommands share.

use crate::{
    failure::Failure,
    keyring::{Address, AnyKeyring},
    root::{Root, Source},
};

#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The keyring: file:PATH, sqlite:PATH or postgres://HOST/DATABASE
    #[arg(
        long,
        global = true,
        env = "DEKSEAL_KEYRING",
        hide_env_values = true,
        value_name = "ADDRESS"
    )]
    keyring: Option<String>,

    /// The root of the keyring: file:PATH, env:NAME, fd:N, command:COMMAND, credential:NAME or pkcs11:URI
    #[arg(
        long,
        global = true,
        env = "DEKSEAL_ROOT",
        hide_env_values = true,
        value_name = "SOURCE"
    )]
    root: Option<String>,

    /// A further root, which only reads; repeat it for several
    #[arg(long = "reading-root", global = true, value_name = "SOURCE")]
    reading_roots: Vec<String>,

    /// Print JSON for machines
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Globals {
    /// The address of the keyring.
    pub(crate) fn address(&self) -> Result<Address, Failure> {
        let text = self
            .keyring
            .as_deref()
            .ok_or_else(|| Failure::usage("no keyring is named: pass --keyring file:PATH, or set DEKSEAL_KEYRING"))?;
        Address::parse(text)
    }

    /// The address of the keyring as text, without a password.
    pub(crate) fn keyring_name(&self) -> String {
        let text = self.keyring.as_deref().unwrap_or_default();
        match text.split_once("://") {
            // User, password and parameters can be left out: the keys of a resumed sweep are checked anyway.
            Some((scheme, rest)) => {
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                let (host, table) = host.split_once('#').unwrap_or((host, ""));
                let host = host.split('?').next().unwrap_or_default();
                format!("{scheme}://{host}#{table}")
            }
            None => text.to_owned(),
        }
    }

    /// Reads the root that writes, and then the roots that only read.
    pub(crate) fn roots(&self) -> Result<Vec<Root>, Failure> {
        let root = self
            .root
            .as_deref()
            .ok_or_else(|| Failure::usage("no root is named: pass --root file:PATH, or set DEKSEAL_ROOT"))?;
        let sources = std::iter::once(("--root", root));
        let sources = sources.chain(self.reading_roots.iter().map(|text| ("--reading-root", text.as_str())));
        sources
            .map(|(option, text)| Source::parse(option, text)?.read())
            .collect()
    }

    /// Opens the keyring.
    pub(crate) fn open(&self) -> Result<AnyKeyring, Failure> {
        let address = self.address()?;
        AnyKeyring::open(&address, &self.roots()?)
    }
}
