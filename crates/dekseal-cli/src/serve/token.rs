//! The tokens that callers show.

use std::path::Path;

use hyper::{HeaderMap, header::AUTHORIZATION};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::{failure::Failure, root::material};

/// The tokens of a file, one on each line, so that a new one can be added before the old one is taken away.
pub(crate) struct Tokens(Vec<Zeroizing<Vec<u8>>>);

/// A shorter token could be guessed.
const SHORTEST: usize = 16;

/// The header in which clients of the KMS API send a token. `Authorization` holds the signature of their SDKs.
const X_AUTH_TOKEN: &str = "x-auth-token";

impl Tokens {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = material::from_file(path)?;
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let tokens = lines
            .filter(|line| !line.is_empty())
            .map(|line| Zeroizing::new(line.to_vec()));
        let tokens: Vec<_> = tokens.collect();
        let path = path.display();
        if tokens.is_empty() {
            return Err(Failure::key(format!(
                "{path}: no token; `openssl rand -hex 32` makes one"
            )));
        }
        for token in &tokens {
            if token.len() < SHORTEST || !token.iter().all(u8::is_ascii_graphic) {
                return Err(Failure::key(format!(
                    "{path}: a token has at least {SHORTEST} characters, and no space; `openssl rand -hex 32` makes one"
                )));
            }
        }
        Ok(Self(tokens))
    }

    /// Whether a request shows one of the tokens: `Authorization: Bearer TOKEN` or `X-Auth-Token: TOKEN`.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
        });
        let shown = bearer.chain(headers.get_all(X_AUTH_TOKEN).iter().map(|value| value.as_bytes()));
        // Every token is compared with every value, so that the time says nothing but the lengths.
        let mut admitted = Choice::from(0);
        for shown in shown {
            for token in &self.0 {
                admitted |= shown.ct_eq(token);
            }
        }
        admitted.into()
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const ONE: &str = "0123456789abcdef";
    const OTHER: &str = "fedcba9876543210";

    fn admits(headers: &[(&'static str, &str)]) -> bool {
        let tokens = Tokens([ONE, OTHER].map(|token| Zeroizing::new(token.into())).to_vec());
        let headers = headers.iter().map(|(name, value)| {
            let name: hyper::header::HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        });
        tokens.admit(&headers.collect())
    }

    #[test]
    fn only_a_whole_token_in_its_place_is_admitted() {
        for token in [ONE, OTHER] {
            assert!(admits(&[("authorization", &format!("Bearer {token}"))]));
            assert!(admits(&[("authorization", &format!("bearer {token}"))]));
            assert!(admits(&[
                ("authorization", "SDK-HMAC-SHA256 Access=x"),
                ("x-auth-token", token)
            ]));
        }
        assert!(!admits(&[]));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            ONE,
            "Bearer 0123456789abcde",
        ] {
            assert!(!admits(&[("authorization", wrong)]), "{wrong}");
        }
        for wrong in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789ABCDEF",
            "Bearer 0123456789abcdef",
        ] {
            assert!(!admits(&[("x-auth-token", wrong)]), "{wrong}");
        }
    }
}
