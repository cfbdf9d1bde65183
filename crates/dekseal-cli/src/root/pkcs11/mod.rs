//! A root in a PKCS#11 token (FLEET.md D7). The token computes the material; its key never leaves it.

mod uri;

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass},
    session::{Session, UserType},
    slot::{Slot, TokenInfo},
    types::AuthPin,
};
use dekseal::KeyId;
use zeroize::Zeroizing;

use self::uri::Uri;
use super::material;
use crate::failure::Failure;

/// The first bytes of the message whose MAC is the material of a root.
const LABEL: &[u8] = b"dekseal/v2 root";

/// `HMAC-SHA-512(K, "dekseal/v2 root" ‖ key_id[36] ‖ u32be(key_version))`
pub(super) fn material(uri: &str, key_id: &KeyId, key_version: u32) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let uri = Uri::parse(uri)?;
    let token = Token::open(&uri, false)?;
    let key = token.key(&uri)?;
    let message = [LABEL, key_id.as_bytes(), &key_version.to_be_bytes()].concat();
    let mac = token.session.sign(&Mechanism::Sha512Hmac, key, &message);
    mac.map(Zeroizing::new).map_err(|error| {
        Failure::key(format!(
            "the token cannot compute HMAC-SHA-512 under this key: {error}; use a generic secret key that may sign"
        ))
    })
}

/// Makes a key of 64 random bytes that never leaves the token.
pub(super) fn generate(uri: &str) -> Result<(), Failure> {
    let uri = Uri::parse(uri)?;
    let Some(label) = &uri.object else {
        return Err(Failure::usage(
            "pkcs11: the URI needs object=LABEL, the name of the new key",
        ));
    };
    let token = Token::open(&uri, true)?;
    if !token.find(&uri)?.is_empty() {
        return Err(Failure::key(format!(
            "the token has a key {label} already; name another one"
        )));
    }
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::ValueLen(64.into()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        // The key is used for nothing else.
        Attribute::Sign(true),
        Attribute::Verify(false),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    template.extend(uri.id.clone().map(Attribute::Id));
    let made = token.session.generate_key(&Mechanism::GenericSecretKeyGen, &template);
    made.map(drop).map_err(|error| {
        Failure::key(format!(
            "the token cannot make a key: {error}; make one with its own tool"
        ))
    })
}

/// A token that is logged into. Dropping it closes the session.
struct Token {
    session: Session,
}

impl Token {
    fn open(uri: &Uri, write: bool) -> Result<Self, Failure> {
        let module = uri.module()?;
        let library = Pkcs11::new(&module).map_err(|error| {
            Failure::key(format!(
                "{}: {error}; name the library of the token with module-path=",
                module.display()
            ))
        })?;
        library
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(|error| Failure::key(format!("{}: {error}; check its settings", module.display())))?;
        let (slot, token) = find_token(&library, uri)?;
        let session = match write {
            true => library.open_rw_session(slot),
            false => library.open_ro_session(slot),
        };
        let session = session.map_err(|error| failed("the token cannot be opened", &error))?;
        log_in(&session, &token, uri)?;
        Ok(Self { session })
    }

    fn find(&self, uri: &Uri) -> Result<Vec<cryptoki::object::ObjectHandle>, Failure> {
        let mut template = vec![Attribute::Class(ObjectClass::SECRET_KEY)];
        template.extend(
            uri.object
                .as_ref()
                .map(|label| Attribute::Label(label.as_bytes().to_vec())),
        );
        template.extend(uri.id.clone().map(Attribute::Id));
        let found = self.session.find_objects(&template);
        found.map_err(|error| failed("the token does not list its keys", &error))
    }

    fn key(&self, uri: &Uri) -> Result<cryptoki::object::ObjectHandle, Failure> {
        let keys = self.find(uri)?;
        match keys.as_slice() {
            [key] => Ok(*key),
            [] => Err(Failure::key(format!(
                "the token has no secret key {}; `dekseal root new` makes one",
                uri.key_name()
            ))),
            several => Err(Failure::key(format!(
                "the token has {} secret keys {}; tell them apart with object= and id=",
                several.len(),
                uri.key_name()
            ))),
        }
    }
}

/// Finds the only token that the URI names.
fn find_token(library: &Pkcs11, uri: &Uri) -> Result<(Slot, TokenInfo), Failure> {
    let slots = library.get_slots_with_token();
    let slots = slots.map_err(|error| failed("the library lists no tokens", &error))?;
    let mut found = Vec::new();
    let mut others = Vec::new();
    for slot in slots {
        // A token may be removed meanwhile.
        let Ok(token) = library.get_token_info(slot) else {
            continue;
        };
        if uri.names(slot.id(), &token) {
            found.push((slot, token));
        } else if token.token_initialized() {
            others.push(token.label().to_owned());
        }
    }
    match (found.len(), found.pop()) {
        (1, Some(found)) => Ok(found),
        (0, _) => Err(Failure::key(format!(
            "there is no token {}; the library has {}",
            uri.token_name(),
            if others.is_empty() {
                "none".to_owned()
            } else {
                others.join(", ")
            }
        ))),
        (count, _) => Err(Failure::key(format!(
            "{count} tokens are named {}; tell them apart with serial= or slot-id=",
            uri.token_name()
        ))),
    }
}

fn log_in(session: &Session, token: &TokenInfo, uri: &Uri) -> Result<(), Failure> {
    let login = if token.protected_authentication_path() {
        // The token has a keypad of its own.
        session.login(UserType::User, None)
    } else if token.login_required() {
        session.login(UserType::User, Some(&pin(token, uri)?))
    } else {
        return Ok(());
    };
    match login {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
            Err(Failure::key(format!(
                "the PIN of token {} is wrong; correct it before you try again, because a token locks itself after a \
                 few wrong ones",
                token.label()
            )))
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(Failure::key(format!(
            "token {} has locked itself after too many wrong PINs; its security officer can set a new one",
            token.label()
        ))),
        Err(error) => Err(failed("the token refuses the login", &error)),
    }
}

/// The PIN from the file that the URI names, from the environment, or from the terminal.
fn pin(token: &TokenInfo, uri: &Uri) -> Result<AuthPin, Failure> {
    let bytes = if let Some(path) = &uri.pin_source {
        material::from_file(path)?
    } else if std::env::var_os("DEKSEAL_PIN").is_some() {
        material::from_env("DEKSEAL_PIN")?
    } else {
        let prompt = format!("PIN of token {}: ", token.label());
        let typed = rpassword::prompt_password(prompt).map_err(|_| {
            Failure::key(
                "there is no PIN, and no terminal to ask for it; add pin-source=file:PATH to the URI, or set \
                 DEKSEAL_PIN",
            )
        })?;
        Zeroizing::new(typed.into_bytes())
    };
    let pin = std::str::from_utf8(bytes.trim_ascii_end()).map_err(|_| Failure::key("the PIN is not text; check it"))?;
    Ok(AuthPin::from(pin))
}

fn failed(what: &str, error: &Error) -> Failure {
    Failure::key(format!("{what}: {error}; check the token with its own tool"))
}
