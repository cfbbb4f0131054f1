//! Tokens signed by somebody both sides trust: JWT with HMAC, RSA, ECDSA or EdDSA keys, JWKS included.

use std::collections::BTreeMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

pub use jsonwebtoken::Algorithm;

use super::key::{KeyKind, SigningKey};
use super::{Claims, Provider, UnixSeconds, Verifier};
use crate::error::IdentityError;

/// How long a token is good, unless said otherwise.
pub const DURATION_S: u64 = 3600;
/// How far clocks may differ.
pub const LEEWAY_S: u64 = 60;
/// Verified tokens remembered.
const VERIFIED_MAX: usize = 4096;

#[derive(Serialize)]
struct Written<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a [String],
    exp: u64,
    iat: u64,
    nbf: u64,
    pubkey: &'a str,
}

#[derive(Deserialize)]
struct Read {
    sub: Option<String>,
    exp: u64,
    #[serde(default)]
    iat: u64,
    #[serde(default)]
    nbf: u64,
    pubkey: Option<String>,
    custom_claims: Option<serde_json::Value>,
}

/// Signs our tokens, each anew.
///
/// Source: slim-session §1.3: iss, sub, aud, exp, iat, nbf and `pubkey`; header `kid` is the subject.
pub struct JwtProvider {
    subject: String,
    issuer: String,
    audience: Vec<String>,
    duration_s: u64,
    header: Header,
    signer: EncodingKey,
    key: SigningKey,
    public: String,
}

impl JwtProvider {
    /// A provider for `subject`, with a new P-256 key for sessions. `secret` is the HMAC secret, or a PEM private key.
    ///
    /// Errors: a secret or PEM that does not fit the algorithm.
    pub fn new(
        subject: &str,
        issuer: &str,
        audience: &[&str],
        algorithm: Algorithm,
        secret: &[u8],
    ) -> Result<Self, IdentityError> {
        let refused = |_| IdentityError::Key("the private key is not PEM of the algorithm's kind");
        let signer = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => EncodingKey::from_secret(secret),
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(secret).map_err(refused)?,
            Algorithm::EdDSA => EncodingKey::from_ed_pem(secret).map_err(refused)?,
            _ => EncodingKey::from_rsa_pem(secret).map_err(refused)?,
        };
        let key = SigningKey::generate(KeyKind::P256)?;
        let mut header = Header::new(algorithm);
        header.kid = Some(subject.to_owned());
        let provider = Self {
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            audience: audience.iter().map(|&audience| audience.to_owned()).collect(),
            duration_s: DURATION_S,
            header,
            signer,
            public: STANDARD.encode(key.public_key()),
            key,
        };
        provider.token(0)?; // a key that cannot sign is found now, not at the first message
        Ok(provider)
    }

    /// With a key that is known already, for instance from a store.
    #[must_use]
    pub fn with_key(mut self, key: SigningKey) -> Self {
        self.public = STANDARD.encode(key.public_key());
        self.key = key;
        self
    }

    /// Tokens that are good for another time than an hour.
    #[must_use]
    pub fn with_duration_s(mut self, duration_s: u64) -> Self {
        self.duration_s = duration_s;
        self
    }
}

impl Provider for JwtProvider {
    fn subject(&self) -> &str {
        &self.subject
    }

    fn token(&self, now: UnixSeconds) -> Result<String, IdentityError> {
        let claims = Written {
            iss: &self.issuer,
            sub: &self.subject,
            aud: &self.audience,
            exp: now.saturating_add(self.duration_s),
            iat: now,
            nbf: now,
            pubkey: &self.public,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signer).map_err(|_| IdentityError::Key("signing failed"))
    }

    fn signing_key(&self) -> Option<&SigningKey> {
        Some(&self.key)
    }
}

struct TrustedKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Reads tokens by one key or a set of them; each key is for one algorithm, whatever a token says.
pub struct JwtVerifier {
    keys: Vec<TrustedKey>,
    issuer: Option<String>,
    audience: Vec<String>,
    /// What each token claims, and from when on it is good.
    verified: Mutex<BTreeMap<String, (Claims, UnixSeconds)>>,
}

impl JwtVerifier {
    /// Trusts one key: the HMAC secret, or a PEM public key.
    ///
    /// Errors: a PEM that does not fit the algorithm.
    pub fn new(algorithm: Algorithm, secret: &[u8]) -> Result<Self, IdentityError> {
        let refused = |_| IdentityError::Key("the public key is not PEM of the algorithm's kind");
        let key = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => DecodingKey::from_secret(secret),
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(secret).map_err(refused)?,
            Algorithm::EdDSA => DecodingKey::from_ed_pem(secret).map_err(refused)?,
            _ => DecodingKey::from_rsa_pem(secret).map_err(refused)?,
        };
        Ok(Self::of(vec![TrustedKey { kid: None, algorithm, key }]))
    }

    /// Trusts the keys of a JWKS document. Keys without an algorithm, or with one we do not know, are left out.
    ///
    /// Errors: not a JWKS, or no usable key in it.
    pub fn from_jwks(json: &str) -> Result<Self, IdentityError> {
        let set: JwkSet = serde_json::from_str(json).map_err(|_| IdentityError::Key("not a JWKS document"))?;
        let usable = set.keys.iter().filter_map(|jwk| {
            let algorithm = jwk.common.key_algorithm?.to_string().parse().ok()?;
            let key = DecodingKey::from_jwk(jwk).ok()?;
            Some(TrustedKey { kid: jwk.common.key_id.clone(), algorithm, key })
        });
        let keys: Vec<TrustedKey> = usable.collect();
        if keys.is_empty() { Err(IdentityError::Key("the JWKS holds no usable key")) } else { Ok(Self::of(keys)) }
    }

    fn of(keys: Vec<TrustedKey>) -> Self {
        Self { keys, issuer: None, audience: Vec::new(), verified: Mutex::default() }
    }

    /// Takes tokens of that issuer only.
    #[must_use]
    pub fn with_issuer(mut self, issuer: &str) -> Self {
        self.issuer = Some(issuer.to_owned());
        self
    }

    /// Takes tokens for one of these audiences only.
    #[must_use]
    pub fn with_audience(mut self, audience: &[&str]) -> Self {
        self.audience = audience.iter().map(|&audience| audience.to_owned()).collect();
        self
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false; // by our caller's clock, below
        validation.required_spec_claims = ["exp", "sub"].map(str::to_owned).into();
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if self.audience.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&self.audience);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        validation
    }

    /// Signature, issuer and audience; not the time, from when on the token is good.
    fn read(&self, token: &str) -> Result<(Claims, UnixSeconds), IdentityError> {
        let mut verified = self.verified.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = verified.get(token) {
            return Ok(known.clone());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| IdentityError::Malformed("not a JWT"))?;
        let named = header.kid.filter(|kid| self.keys.iter().any(|key| key.kid.as_ref() == Some(kid)));
        let candidates = self.keys.iter().filter(|key| named.is_none() || key.kid == named);
        for trusted in candidates {
            match jsonwebtoken::decode::<Read>(token, &trusted.key, &self.validation(trusted.algorithm)) {
                Ok(read) => {
                    let not_before = read.claims.nbf;
                    let known = (claims(read.claims)?, not_before);
                    if verified.len() >= VERIFIED_MAX {
                        verified.clear();
                    }
                    verified.insert(token.to_owned(), known.clone());
                    return Ok(known);
                }
                // Another key may fit; any other failure is final.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm) => {}
                Err(error) => return Err(why(error.kind())),
            }
        }
        Err(IdentityError::WrongSecret)
    }
}

/// What a token says of itself, believed by nobody: our own, which whoever made it signed.
pub(crate) struct Peeked {
    pub(crate) subject: String,
    pub(crate) expires: Option<UnixSeconds>,
    pub(crate) public_key: Option<Vec<u8>>,
}

/// Looks into a token without checking anything.
///
/// Errors: not three parts, not base64url, not JSON, no subject.
pub(crate) fn peek(token: &str) -> Result<Peeked, IdentityError> {
    #[derive(Deserialize)]
    struct Payload {
        sub: String,
        exp: Option<u64>,
        pubkey: Option<String>,
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(IdentityError::Malformed("not a JWT"));
    };
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| IdentityError::Malformed("not a JWT"))?;
    let payload: Payload =
        serde_json::from_slice(&payload).map_err(|_| IdentityError::Malformed("a JWT without a subject"))?;
    let decode = |text: String| STANDARD.decode(text).map_err(|_| IdentityError::Malformed("pubkey is not base64"));
    Ok(Peeked { subject: payload.sub, expires: payload.exp, public_key: payload.pubkey.map(decode).transpose()? })
}

fn claims(read: Read) -> Result<Claims, IdentityError> {
    let within = |value: &serde_json::Value| value.get("pubkey").and_then(|value| value.as_str()).map(str::to_owned);
    let text = read.pubkey.or_else(|| read.custom_claims.as_ref().and_then(within));
    let decode = |text: String| STANDARD.decode(text).map_err(|_| IdentityError::Malformed("pubkey is not base64"));
    Ok(Claims {
        subject: read.sub.ok_or(IdentityError::Malformed("no subject"))?,
        public_key: text.map(decode).transpose()?,
        issued: read.iat,
        expires: read.exp,
    })
}

pub(super) fn why(kind: &ErrorKind) -> IdentityError {
    match kind {
        ErrorKind::InvalidIssuer => IdentityError::Foreign("another issuer"),
        ErrorKind::InvalidAudience => IdentityError::Foreign("another audience"),
        ErrorKind::MissingRequiredClaim(_) => IdentityError::Malformed("a required claim is missing"),
        _ => IdentityError::Malformed("not a JWT we understand"),
    }
}

impl Verifier for JwtVerifier {
    fn verify(&self, token: &str, now: UnixSeconds) -> Result<Claims, IdentityError> {
        let (claims, not_before) = self.read(token)?;
        if now.saturating_add(LEEWAY_S) < not_before {
            return Err(IdentityError::FromTheFuture { ahead_s: not_before - now });
        }
        if now > claims.expires.saturating_add(LEEWAY_S) {
            return Err(IdentityError::Expired { since_s: now - claims.expires });
        }
        Ok(claims)
    }

    fn verify_lapsed(&self, token: &str) -> Result<Claims, IdentityError> {
        Ok(self.read(token)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn provider() -> JwtProvider {
        JwtProvider::new("alice", "issuer", &["slim"], Algorithm::HS256, SECRET).unwrap()
    }

    fn verifier() -> JwtVerifier {
        JwtVerifier::new(Algorithm::HS256, SECRET).unwrap().with_issuer("issuer").with_audience(&["slim"])
    }

    #[test]
    fn a_token_is_read_within_its_time() {
        let (provider, verifier) = (provider(), verifier());
        let token = provider.token(1000).unwrap();
        let claims = verifier.verify(&token, 1000).unwrap();
        assert_eq!(claims.subject, "alice");
        assert_eq!(claims.public_key.as_deref(), provider.signing_key().map(SigningKey::public_key));
        assert_eq!((claims.issued, claims.expires), (1000, 4600));
        assert!(verifier.verify(&token, 4660).is_ok());
        assert_eq!(verifier.verify(&token, 4661), Err(IdentityError::Expired { since_s: 61 }));
        assert!(verifier.verify_lapsed(&token).is_ok());
        assert!(verifier.verify(&token, 940).is_ok());
        assert_eq!(verifier.verify(&token, 939), Err(IdentityError::FromTheFuture { ahead_s: 61 }));
        assert_eq!(verifier.verify(&provider.with_duration_s(10).token(1000).unwrap(), 1000).unwrap().expires, 1010);
    }

    #[test]
    fn foreign_tokens() {
        let verify = |verifier: JwtVerifier| verifier.verify(&provider().token(1000).unwrap(), 1000);
        let plain = || JwtVerifier::new(Algorithm::HS256, SECRET).unwrap();
        assert!(verify(plain()).is_ok());
        assert_eq!(verify(plain().with_issuer("other")), Err(IdentityError::Foreign("another issuer")));
        assert_eq!(verify(plain().with_audience(&["other"])), Err(IdentityError::Foreign("another audience")));
        let other = JwtVerifier::new(Algorithm::HS256, b"another secret of thirty-two octets").unwrap();
        assert_eq!(verify(other), Err(IdentityError::WrongSecret));
        assert_eq!(verify(JwtVerifier::new(Algorithm::HS512, SECRET).unwrap()), Err(IdentityError::WrongSecret));
        for bad in ["", "a.b", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
            assert!(plain().verify(bad, 0).is_err(), "{bad}");
        }
    }

    /// A key set: the key with the token's kid, or whichever fits.
    #[test]
    fn a_key_set() {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let jwk = |kid: &str, secret: &[u8]| {
            format!(r#"{{"kty":"oct","kid":"{kid}","alg":"HS256","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(secret))
        };
        let token = provider().token(5).unwrap();
        let set = |keys: &[String]| JwtVerifier::from_jwks(&format!(r#"{{"keys":[{}]}}"#, keys.join(",")));
        assert!(set(&[jwk("x", b"other"), jwk("y", SECRET)]).unwrap().verify(&token, 5).is_ok());
        assert!(set(&[jwk("x", b"other"), jwk("alice", SECRET)]).unwrap().verify(&token, 5).is_ok());
        // The key that has the token's name does not fit: no other is tried in its place.
        let named = set(&[jwk("alice", b"other"), jwk("y", SECRET)]).unwrap();
        assert_eq!(named.verify(&token, 5), Err(IdentityError::WrongSecret));
        assert!(set(&[]).is_err());
        assert!(JwtVerifier::from_jwks("{}").is_err());
    }

    /// Public-key algorithms, with keys made by the openssl command line.
    #[test]
    fn signatures_by_key_pairs() {
        for (algorithm, private, public) in [
            (Algorithm::RS256, &include_bytes!("testdata/rsa.pem")[..], &include_bytes!("testdata/rsa.pub")[..]),
            (Algorithm::ES256, include_bytes!("testdata/p256.pem"), include_bytes!("testdata/p256.pub")),
            (Algorithm::EdDSA, include_bytes!("testdata/ed25519.pem"), include_bytes!("testdata/ed25519.pub")),
        ] {
            let provider = JwtProvider::new("alice", "issuer", &["slim"], algorithm, private).unwrap();
            let verifier = JwtVerifier::new(algorithm, public).unwrap();
            let token = provider.token(7).unwrap();
            assert_eq!(verifier.verify(&token, 7).unwrap().subject, "alice");
            let mut changed = token.into_bytes();
            let middle = changed.len() / 2;
            changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
            assert!(verifier.verify(std::str::from_utf8(&changed).unwrap(), 7).is_err());
            assert!(JwtProvider::new("alice", "issuer", &[], algorithm, b"not PEM").is_err());
        }
    }
}
