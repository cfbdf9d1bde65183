//! A keyring whose keys are not used for too long after they were last read.

use std::time::{Duration, SystemTime};

use dekseal::{CmkVersion, Error, ErrorKind, FileKeyring, KeyId, Keyring};

use crate::keyring::AnyKeyring;

/// A keyring for a process that runs for long. Of a keyring file, the keys are used for `max_stale` after they were
/// last known to be those of the file. The keyring of a store has such a limit itself.
pub(crate) struct Fresh {
    pub(crate) keyring: AnyKeyring,
    pub(crate) max_stale: Duration,
}

impl Fresh {
    /// After a rotation, others destroy old versions once every process must have read the keyring again.
    fn check(&self) -> Result<(), Error> {
        match &self.keyring {
            AnyKeyring::File(file) if age(file) > self.max_stale => Err(ErrorKind::KeyringUnavailable.into()),
            _ => Ok(()),
        }
    }
}

impl Keyring for Fresh {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.check()?;
        self.keyring.with_current(key_id, f)
    }

    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.check()?;
        self.keyring.with_version(key_id, key_version, f)
    }
}

/// The time since the keys were last known to be those of the file. One clock cannot be set, and the other continues
/// while the machine is suspended, so the longer time counts.
fn age(file: &FileKeyring) -> Duration {
    let by_date = SystemTime::now().duration_since(file.last_refreshed());
    file.age().max(by_date.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::{fs, thread, time::Instant};

    use dekseal::{Engine, api::Request};

    use super::*;

    const KEY: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";

    /// Every step is repeated until it is seen, so that a pause of the process fails nothing.
    #[test]
    fn keys_that_were_not_read_for_too_long_are_refused_until_a_refresh_works() {
        let directory = tempfile::tempdir().unwrap();
        let (path, away) = (directory.path().join("keys"), directory.path().join("away"));
        let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse().unwrap(), 0, &[7; 32]).unwrap();
        let file = FileKeyring::create(&path, root).unwrap();
        file.update(|keys| keys.create_key(KEY.parse().unwrap())).unwrap();
        let engine = Engine::new(Fresh {
            keyring: AnyKeyring::File(Box::new(file)),
            max_stale: Duration::from_millis(200),
        });
        let create = || {
            let body = format!(r#"{{"key_id": "{KEY}", "datakey_length": "512"}}"#);
            let request = Request::parse("POST", "/v1.0/project/kms/create-datakey", body.as_bytes());
            let answer = request.unwrap().execute(&engine);
            (answer.status(), answer.error_code())
        };
        let refresh = || engine.keyring().keyring.refresh();
        let until = |expected, before: &dyn Fn()| {
            let begun = Instant::now();
            loop {
                before();
                let answer = create();
                if answer == expected {
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(60), "{answer:?}");
                thread::sleep(Duration::from_millis(10));
            }
        };
        let (works, refused) = ((200, None), (503, Some("KMS.0101")));
        until(works, &|| refresh().unwrap());
        fs::rename(&path, &away).unwrap();
        until(refused, &|| drop(refresh().unwrap_err()));
        assert_eq!(create(), refused);
        let opened = engine.keyring().with_version(&KEY.parse().unwrap(), 0, |_| ());
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::KeyringUnavailable);
        fs::rename(&away, &path).unwrap();
        until(works, &|| refresh().unwrap());
    }
}
