//! The store over a real PostgreSQL server.

mod certificates;
#[path = "../../../../tests/store/conformance.rs"]
mod conformance;
mod examples;
mod failover;
#[path = "../../../tests/fleet.rs"]
mod fleet;
mod privileges;
mod runtimes;
mod server;
mod shared_keys;
mod statements;
mod tls;
mod trouble;

use crate::conformance::conformance_tests;
pub(crate) use crate::shared_keys::fleet_store;

mod with_notifications {
    use super::*;
    conformance_tests!(|| Some(Box::new(server::create(server::options()?))));
}

mod without_notifications {
    use super::*;
    conformance_tests!(|| Some(Box::new(server::create(server::options()?.notify(false)))));
}
