//! Tokens made with a secret that all members hold.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::key::{KeyKind, SigningKey};
use super::{Claims, Provider, UnixSeconds, Verifier};
use crate::error::IdentityError;
use crate::random;

/// Octets a secret needs at least.
pub const SECRET_OCTETS_MIN: usize = 32;
/// How far ahead a token's clock may be.
pub const CLOCK_SKEW_S: u64 = 5;
/// How old a token may be.
pub const VALIDITY_S: u64 = 3600;

/// Provider and verifier for one shared secret.
///
/// Shape:  `id:ts:nonce:claims:mac`; mac is HMAC-SHA256 over everything before the last colon.
/// Units:  ts in Unix seconds; nonce 12 octets; base64url without padding.
/// Source: slim-session §1.2; vector in Annex A.
pub struct SharedSecret {
    subject: String,
    mac: hmac::Key,
    key: SigningKey,
    claims: String,
}

impl SharedSecret {
    /// A new identity `<base>_<8 random characters>` with a new P-256 key.
    ///
    /// Errors: a secret below 32 octets; a base that is empty or holds a colon or white space.
    pub fn new(base: &str, secret: &str) -> Result<Self, IdentityError> {
        Self::with_kind(base, secret, KeyKind::P256)
    }

    /// The same with a key of that kind. Ed25519 is faster, and takes MLS to suite 0x0001: choose it where every member is
    /// ours and does the same, because published SDKs cannot take part, and one group has one suite.
    pub fn with_kind(base: &str, secret: &str, kind: KeyKind) -> Result<Self, IdentityError> {
        Self::check_base(base)?;
        let subject = format!("{base}_{}", random::alphanumeric::<8>()?);
        Self::with_subject(subject, secret, SigningKey::generate(kind)?)
    }

    /// An identity that is known already, for instance from a store.
    pub fn with_subject(subject: String, secret: &str, key: SigningKey) -> Result<Self, IdentityError> {
        Self::check_base(&subject)?;
        if secret.len() < SECRET_OCTETS_MIN {
            return Err(IdentityError::SecretTooShort { octets: secret.len(), min: SECRET_OCTETS_MIN });
        }
        let json = format!(r#"{{"pubkey":"{}"}}"#, STANDARD.encode(key.public_key()));
        Ok(Self {
            subject,
            mac: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            key,
            claims: URL_SAFE_NO_PAD.encode(json),
        })
    }

    fn check_base(base: &str) -> Result<(), IdentityError> {
        if base.is_empty() || base.contains(|c: char| c == ':' || c.is_whitespace()) {
            return Err(IdentityError::BaseName(base.to_owned()));
        }
        Ok(())
    }

    fn token_with(&self, now: UnixSeconds, nonce: [u8; 12]) -> String {
        let mut token = format!("{}:{now}:{}:{}", self.subject, URL_SAFE_NO_PAD.encode(nonce), self.claims);
        let tag = hmac::sign(&self.mac, token.as_bytes());
        token.push(':');
        URL_SAFE_NO_PAD.encode_string(tag, &mut token);
        token
    }
}

impl Provider for SharedSecret {
    fn subject(&self) -> &str {
        &self.subject
    }

    fn token(&self, now: UnixSeconds) -> Result<String, IdentityError> {
        Ok(self.token_with(now, random::octets()?))
    }

    fn signing_key(&self) -> Option<&SigningKey> {
        Some(&self.key)
    }
}

impl Verifier for SharedSecret {
    fn verify(&self, token: &str, now: UnixSeconds) -> Result<Claims, IdentityError> {
        self.read(token, Some(now))
    }

    fn verify_lapsed(&self, token: &str) -> Result<Claims, IdentityError> {
        self.read(token, None)
    }
}

impl SharedSecret {
    /// Shape, then time (if asked), then MAC: the reference's order, so that errors mean the same.
    fn read(&self, token: &str, now: Option<UnixSeconds>) -> Result<Claims, IdentityError> {
        let (signed, tag) = token.rsplit_once(':').ok_or(IdentityError::Malformed("fewer than five fields"))?;
        let mut fields = signed.split(':');
        let (Some(subject), Some(ts), Some(_nonce), Some(claims), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(IdentityError::Malformed("not five fields"));
        };
        let issued: u64 = ts.parse().map_err(|_| IdentityError::Malformed("time is not a number"))?;
        let now = now.unwrap_or(issued);
        if issued > now.saturating_add(CLOCK_SKEW_S) {
            return Err(IdentityError::FromTheFuture { ahead_s: issued - now });
        }
        let expires = issued.saturating_add(VALIDITY_S);
        if now > expires {
            return Err(IdentityError::Expired { since_s: now - expires });
        }
        if tag.len() != 43 {
            return Err(IdentityError::Malformed("MAC is not 43 characters"));
        }
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| IdentityError::Malformed("MAC is not base64url"))?;
        hmac::verify(&self.mac, signed.as_bytes(), &tag).map_err(|_| IdentityError::WrongSecret)?;
        Ok(Claims { subject: subject.to_owned(), public_key: public_key(claims)?, issued, expires })
    }
}

/// The `pubkey` of the claims field; a token without claims vouches for no key.
fn public_key(claims: &str) -> Result<Option<Vec<u8>>, IdentityError> {
    if claims.is_empty() {
        return Ok(None);
    }
    let json = URL_SAFE_NO_PAD.decode(claims).map_err(|_| IdentityError::Malformed("claims are not base64url"))?;
    let json: serde_json::Value =
        serde_json::from_slice(&json).map_err(|_| IdentityError::Malformed("claims are not JSON"))?;
    let Some(text) = json.get("pubkey").and_then(|value| value.as_str()) else { return Ok(None) };
    STANDARD.decode(text).map(Some).map_err(|_| IdentityError::Malformed("pubkey is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const TOKEN: &str = "acme/ns/alice_AbCdEfGh:1700000000:AAECAwQFBgcICQoL:eyJwdWJrZXkiOiJCQUFCQWdNRUJRWUhDQWtLQ3d3TkRnOFFFUklURkJVV0Z4Z1pHaHNjSFI0ZklDRWlJeVFsSmljb0tTb3JMQzB1THpBeE1qTTBOVFkzT0RrNk96dzlQajg9In0:C8ukVWMxEZjhhGZDVm0sLM-9efoXc89GII3U5r14OGA";

    fn alice() -> SharedSecret {
        let key = SigningKey::generate(KeyKind::P256).unwrap();
        SharedSecret::with_subject("acme/ns/alice_AbCdEfGh".into(), SECRET, key).unwrap()
    }

    /// The golden token: its public key is not a point on the curve, so the claims are set by hand.
    #[test]
    fn the_golden_token_is_made_and_read() {
        let mut alice = alice();
        let mut public = vec![4];
        public.extend(0..64);
        alice.claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"pubkey":"{}"}}"#, STANDARD.encode(&public)));
        let nonce = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(alice.token_with(1_700_000_000, nonce), TOKEN);
        let claims = alice.verify(TOKEN, 1_700_003_600).unwrap();
        assert_eq!(claims.subject, "acme/ns/alice_AbCdEfGh");
        assert_eq!(claims.public_key.as_deref(), Some(&public[..]));
        assert_eq!(claims.expires, 1_700_003_600);
    }

    #[test]
    fn the_time_window() {
        let alice = alice();
        let token = alice.token(1000).unwrap();
        assert!(alice.verify(&token, 995).is_ok());
        assert_eq!(alice.verify(&token, 994), Err(IdentityError::FromTheFuture { ahead_s: 6 }));
        assert!(alice.verify(&token, 4600).is_ok());
        assert_eq!(alice.verify(&token, 4601), Err(IdentityError::Expired { since_s: 1 }));
        assert_eq!(alice.verify_lapsed(&token).unwrap().subject, alice.subject());
    }

    #[test]
    fn foreign_and_broken_tokens() {
        let alice = alice();
        let eve = SharedSecret::new("acme/ns/eve", "another secret of thirty-two octets").unwrap();
        assert_eq!(alice.verify(&eve.token(7).unwrap(), 7), Err(IdentityError::WrongSecret));
        for bad in ["", ":", "::::", "a:b:c:d:e", "a:1:c:d:e", "a:1:c:d:e:f"] {
            assert!(matches!(alice.verify(bad, 1), Err(IdentityError::Malformed(_))), "{bad}");
        }
        let token = alice.token(7).unwrap();
        assert_eq!(alice.verify(&token.replace("alice", "mally"), 7), Err(IdentityError::WrongSecret));
    }

    #[test]
    fn what_cannot_be_an_identity() {
        assert_eq!(
            SharedSecret::new("a", "too short").err(),
            Some(IdentityError::SecretTooShort { octets: 9, min: 32 })
        );
        for base in ["", "a:b", "a b"] {
            assert!(matches!(SharedSecret::new(base, SECRET), Err(IdentityError::BaseName(_))));
        }
    }

    #[test]
    fn two_instances_have_two_identities() {
        let (a, b) = (SharedSecret::new("x", SECRET).unwrap(), SharedSecret::new("x", SECRET).unwrap());
        assert_ne!(a.subject(), b.subject());
        assert_eq!(b.verify(&a.token(9).unwrap(), 9).unwrap().public_key.as_deref(), Some(a.key.public_key()));
    }
}
