//! SPIFFE identities: JWT-SVIDs for us, trust bundles for everybody else, both from the Workload API and kept fresh.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::jwt;
use super::key::{KeyKind, SigningKey};
use super::workload::{self, JwtBundlesRequest, JwtBundlesResponse, JwtSvidRequest, JwtSvidResponse};
use super::{Claims, Provider, UnixSeconds, Verifier};
use crate::error::IdentityError;

/// The variable that names the Workload API where the configuration does not.
pub const ENDPOINT_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// An audience of this kind carries claims of ours: nothing else in a JWT-SVID is ours to write.
const CLAIMS_PREFIX: &str = "slim-claims:";
/// What JWT-SVIDs are signed with.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// Verified tokens remembered.
const VERIFIED_MAX: usize = 4096;
/// Waits between attempts to get a fresh token: from here, doubling, up to the other.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Where our identity comes from, and for whom it is.
#[derive(Clone, Debug)]
pub struct SpiffeConfig {
    endpoint: String,
    audience: Vec<String>,
    spiffe_id: String,
}

impl SpiffeConfig {
    /// The Workload API at `unix:/path`, `unix:///path`, `tcp://IP:port` or a bare path, and the audiences all members share.
    #[must_use]
    pub fn new(endpoint: &str, audience: &[&str]) -> Self {
        let audience = audience.iter().map(|&audience| audience.to_owned()).collect();
        Self { endpoint: endpoint.to_owned(), audience, spiffe_id: String::new() }
    }

    /// As [`SpiffeConfig::new`], at the place `SPIFFE_ENDPOINT_SOCKET` names.
    ///
    /// Errors: the variable is not set.
    pub fn from_env(audience: &[&str]) -> Result<Self, IdentityError> {
        let endpoint = std::env::var(ENDPOINT_VARIABLE)
            .map_err(|_| IdentityError::Unavailable(format!("{ENDPOINT_VARIABLE} is not set")))?;
        Ok(Self::new(&endpoint, audience))
    }

    /// As this one of the identities that are registered for us.
    #[must_use]
    pub fn with_id(mut self, spiffe_id: &str) -> Self {
        spiffe_id.clone_into(&mut self.spiffe_id);
        self
    }
}

/// Provider and verifier by SPIFFE; two tasks keep token and bundles fresh until it is dropped.
///
/// The token is renewed at two thirds of its life. Every trust domain that the agent gives us a bundle of is believed.
/// Source: slim-session §1.3; slim-auth §5 and §6.
pub struct Spiffe {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

struct Shared {
    config: SpiffeConfig,
    key: SigningKey,
    subject: String,
    svid: Mutex<Svid>,
    /// Trust domain (`example.org`) → its keys.
    bundles: RwLock<BTreeMap<String, Vec<TrustedKey>>>,
    verified: Mutex<BTreeMap<String, Claims>>,
}

#[derive(Clone)]
struct Svid {
    token: String,
    expires: UnixSeconds,
}

pub(crate) struct TrustedKey {
    kid: String,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Read {
    sub: String,
    exp: u64,
    #[serde(default)]
    iat: u64,
    aud: Audience,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Spiffe {
    /// Fetches identity and bundles, and keeps them fresh. Call it on a tokio runtime.
    ///
    /// Errors: no agent, no identity registered for us, or no trust bundle.
    pub async fn connect(config: SpiffeConfig) -> Result<Self, IdentityError> {
        let key = SigningKey::generate(KeyKind::P256)?;
        let (subject, svid) = fetch(&config, &key).await?;
        let mut replies = workload::call(&config.endpoint, "FetchJWTBundles", &JwtBundlesRequest {}).await?;
        let first: JwtBundlesResponse =
            replies.next().await?.ok_or_else(|| IdentityError::Unavailable("no trust bundles".to_owned()))?;
        let shared = Arc::new(Shared {
            config,
            key,
            subject,
            svid: Mutex::new(svid),
            bundles: RwLock::default(),
            verified: Mutex::default(),
        });
        shared.trust(&first);
        let (first, second) = (shared.clone(), shared.clone());
        let tasks = [
            tokio::spawn(async move { first.renew().await }),
            tokio::spawn(async move { second.follow(Some(replies)).await }),
        ];
        Ok(Self { shared, tasks })
    }
}

impl Drop for Spiffe {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One token that vouches for `key`, and whose it is.
async fn fetch(config: &SpiffeConfig, key: &SigningKey) -> Result<(String, Svid), IdentityError> {
    let claims = format!(r#"{{"pubkey":"{}"}}"#, STANDARD.encode(key.public_key()));
    let mut audience = config.audience.clone();
    audience.push(format!("{CLAIMS_PREFIX}{}", STANDARD.encode(claims)));
    let request = JwtSvidRequest { audience, spiffe_id: config.spiffe_id.clone() };
    let response: JwtSvidResponse = workload::call(&config.endpoint, "FetchJWTSVID", &request).await?.only().await?;
    let issued = response.svids.into_iter().next();
    let issued = issued.ok_or_else(|| IdentityError::Unavailable("no JWT-SVID was issued".to_owned()))?;
    let peeked = jwt::peek(&issued.svid)?;
    let expires = peeked.expires.ok_or(IdentityError::Malformed("a JWT-SVID without an end"))?;
    if peeked.subject != issued.spiffe_id {
        return Err(IdentityError::Malformed("a JWT-SVID for another identity than it was issued as"));
    }
    Ok((peeked.subject, Svid { token: issued.svid, expires }))
}

fn unix_now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Shared {
    /// Gets the next token at two thirds of what is left to the present one, for ever.
    async fn renew(&self) {
        let mut retry = RETRY_MIN;
        loop {
            let expires = self.svid.lock().unwrap_or_else(PoisonError::into_inner).expires;
            let left = expires.saturating_sub(unix_now());
            sleep(Duration::from_secs(left) * 2 / 3).await;
            while let Err(error) = self.renew_once().await {
                tracing::warn!(%error, "the JWT-SVID was not renewed");
                sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
            retry = RETRY_MIN;
            // An agent may hand out the same token until it nears its end: ask again, but not at once.
            sleep(RETRY_MIN).await;
        }
    }

    async fn renew_once(&self) -> Result<(), IdentityError> {
        let (subject, svid) = fetch(&self.config, &self.key).await?;
        if subject != self.subject {
            return Err(IdentityError::Foreign("the Workload API issues another identity now"));
        }
        *self.svid.lock().unwrap_or_else(PoisonError::into_inner) = svid;
        Ok(())
    }

    /// Takes every new set of bundles, for ever.
    async fn follow(&self, mut replies: Option<workload::Replies>) {
        let mut retry = RETRY_MIN;
        loop {
            if let Some(stream) = &mut replies {
                while let Ok(Some(bundles)) = stream.next::<JwtBundlesResponse>().await {
                    self.trust(&bundles);
                    retry = RETRY_MIN;
                }
            }
            sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
            replies = workload::call(&self.config.endpoint, "FetchJWTBundles", &JwtBundlesRequest {}).await.ok();
        }
    }

    /// From now on these bundles count, and no others.
    fn trust(&self, response: &JwtBundlesResponse) {
        let bundles = response.bundles.iter().map(|(domain, jwks)| (trust_domain(domain).to_owned(), keys(jwks)));
        *self.bundles.write().unwrap_or_else(PoisonError::into_inner) = bundles.collect();
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Signature and audience; not the time.
    fn read(&self, token: &str) -> Result<Claims, IdentityError> {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = verified.get(token) {
            return Ok(claims.clone());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| IdentityError::Malformed("not a JWT"))?;
        if !ALGORITHMS.contains(&header.alg) || !header.typ.is_none_or(|typ| typ == "JWT" || typ == "JOSE") {
            return Err(IdentityError::Malformed("not a JWT-SVID: its type or algorithm"));
        }
        let kid = header.kid.ok_or(IdentityError::Malformed("a JWT-SVID without a key id"))?;
        let subject = jwt::peek(token)?.subject;
        let domain = subject.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
        let domain = domain.filter(|domain| !domain.is_empty()).ok_or(IdentityError::Malformed("not a SPIFFE ID"))?;
        let bundles = self.bundles.read().unwrap_or_else(PoisonError::into_inner);
        let keys = bundles.get(domain).ok_or(IdentityError::Foreign("a trust domain we have no bundle of"))?;
        let mut validation = Validation::new(header.alg);
        validation.validate_exp = false; // by our caller's clock, in `verify`
        validation.required_spec_claims = ["exp", "sub", "aud"].map(str::to_owned).into();
        validation.set_audience(&self.config.audience);
        let trusted = keys.iter().find(|trusted| trusted.kid == kid).ok_or(IdentityError::WrongSecret)?;
        let read = jsonwebtoken::decode::<Read>(token, &trusted.key, &validation);
        let claims = claims(read.map_err(|error| refusal(error.kind()))?.claims)?;
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(token.to_owned(), claims.clone());
        Ok(claims)
    }
}

fn refusal(kind: &ErrorKind) -> IdentityError {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => IdentityError::WrongSecret,
        other => jwt::why(other),
    }
}

fn trust_domain(id: &str) -> &str {
    id.strip_prefix("spiffe://").unwrap_or(id)
}

/// The usable keys of a bundle: each needs an id, and a kind we know. One that does not fit spoils no other.
pub(crate) fn keys(jwks: &[u8]) -> Vec<TrustedKey> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let Ok(set) = serde_json::from_slice::<Set>(jwks) else { return Vec::new() };
    let usable = set.keys.into_iter().filter_map(|value| {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(TrustedKey { kid: jwk.common.key_id?, key })
    });
    usable.collect()
}

fn claims(read: Read) -> Result<Claims, IdentityError> {
    let audience = match read.aud {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    };
    let carried = audience.iter().find_map(|audience| audience.strip_prefix(CLAIMS_PREFIX));
    let public_key = carried.map(carried_key).transpose()?.flatten();
    Ok(Claims { subject: read.sub, public_key, issued: read.iat, expires: read.exp })
}

/// The key in the claims that an audience carries.
pub(crate) fn carried_key(text: &str) -> Result<Option<Vec<u8>>, IdentityError> {
    let json = STANDARD.decode(text).map_err(|_| IdentityError::Malformed("carried claims are not base64"))?;
    let json: serde_json::Value =
        serde_json::from_slice(&json).map_err(|_| IdentityError::Malformed("carried claims are not JSON"))?;
    let Some(text) = json.get("pubkey").and_then(|value| value.as_str()) else { return Ok(None) };
    STANDARD.decode(text).map(Some).map_err(|_| IdentityError::Malformed("pubkey is not base64"))
}

impl Provider for Spiffe {
    fn subject(&self) -> &str {
        &self.shared.subject
    }

    fn token(&self, now: UnixSeconds) -> Result<String, IdentityError> {
        let svid = self.shared.svid.lock().unwrap_or_else(PoisonError::into_inner);
        if now > svid.expires {
            return Err(IdentityError::Expired { since_s: now - svid.expires });
        }
        Ok(svid.token.clone())
    }

    fn signing_key(&self) -> Option<&SigningKey> {
        Some(&self.shared.key)
    }
}

impl Verifier for Spiffe {
    fn verify(&self, token: &str, now: UnixSeconds) -> Result<Claims, IdentityError> {
        let claims = self.shared.read(token)?;
        if now > claims.expires {
            return Err(IdentityError::Expired { since_s: now - claims.expires });
        }
        Ok(claims)
    }

    fn verify_lapsed(&self, token: &str) -> Result<Claims, IdentityError> {
        self.shared.read(token)
    }
}
