//! `src/keyring/fleet/misses.rs` over the locks of shuttle, which tries many orders in which threads can run.
//!
//! The modules here have the names and the few methods that the file uses. What the queries find out is a number that a
//! writer raises: the newest change that the store had when the query began.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), allow(dead_code))]

mod key_id {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct KeyId(pub(crate) u8);
}

mod error {
    use crate::key_id::KeyId;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[allow(dead_code)]
    pub(crate) enum StoreFault {
        Deadline,
        Unavailable,
    }

    #[derive(Debug, PartialEq)]
    pub(crate) struct Error(pub(crate) StoreFault);

    impl Error {
        pub(crate) fn duplicate(&self) -> Self {
            Self(self.0)
        }

        pub(crate) fn with_key_id(self, _key_id: &KeyId) -> Self {
            self
        }
    }

    impl From<StoreFault> for Error {
        fn from(fault: StoreFault) -> Self {
            Self(fault)
        }
    }
}

mod fleet;
