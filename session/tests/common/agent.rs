//! A Workload API of our own: JWT-SVIDs, the X.509-SVIDs that the reference asks for beside them, and the bundles of both.
#![allow(dead_code, unreachable_pub)] // each test file takes its part of this module

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost::Message as _;
use serde_json::json;
use slimline_session::identity::SpiffeConfig;
use slimline_session::identity::workload::{JwtBundlesResponse, JwtSvid, JwtSvidRequest, JwtSvidResponse};
use slimline_wire::grpc::{Deframer, Item, prefix};
use tokio::net::UnixListener;
use tokio::sync::watch;

const PRIVATE: &[u8] = include_bytes!("../../src/identity/testdata/p256.pem");
const PUBLIC: &str = include_str!("../../src/identity/testdata/p256.pub");

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// One X.509 identity: the leaf, its key, and the authority, all DER.
#[derive(Clone, PartialEq, prost::Message)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes, tag = "2")]
    leaf: Vec<u8>,
    #[prost(bytes, tag = "3")]
    key: Vec<u8>,
    #[prost(bytes, tag = "4")]
    bundle: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct X509BundlesResponse {
    #[prost(btree_map = "string, bytes", tag = "2")]
    bundles: BTreeMap<String, Vec<u8>>,
}

/// An X.509-SVID as the standard wants it: the id is the only URI among the leaf's names.
fn x509(subject: &str) -> X509Svid {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.subject_alt_names = vec![uri("spiffe://example.org")];
    let bundle = authority.self_signed(&key).unwrap().der().to_vec();
    let issuer = rcgen::Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(Vec::new()).unwrap();
    leaf.is_ca = IsCa::ExplicitNoCa; // said, or the reference's library refuses it
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.subject_alt_names = vec![uri(subject)];
    let leaf = leaf.signed_by(&key, &issuer).unwrap().der().to_vec();
    X509Svid { spiffe_id: subject.to_owned(), leaf, key: key.serialize_der(), bundle }
}

/// The test's issuer as a key set; `kid` names its only key.
pub fn jwks(kid: &str) -> Vec<u8> {
    let body: String = PUBLIC.lines().filter(|line| !line.starts_with('-')).collect();
    let spki = STANDARD.decode(body).unwrap();
    let point = &spki[spki.len() - 64..];
    let part = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    let key = json!({
        "kty": "EC", "crv": "P-256", "use": "jwt-svid", "kid": kid, "x": part(&point[..32]), "y": part(&point[32..]),
    });
    let unknown = json!({"kty": "XYZ", "kid": "from the future"});
    serde_json::to_vec(&json!({"keys": [unknown, key], "spiffe_sequence": 1})).unwrap()
}

pub fn mint(subject: &str, audience: &[String], kid: Option<&str>, life_s: u64) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = kid.map(str::to_owned);
    let claims = json!({"sub": subject, "aud": audience, "exp": now() + life_s, "iat": now()});
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_pem(PRIVATE).unwrap()).unwrap()
}

/// A Workload API for one workload.
pub struct Agent {
    pub path: PathBuf,
    pub issued: Arc<AtomicU32>,
    pub life_s: Arc<AtomicU64>,
    pub bundles: watch::Sender<BTreeMap<String, Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

static AGENTS: AtomicU32 = AtomicU32::new(0);

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Agent {
    /// `subject` is who asks; an empty one is nobody the agent knows.
    pub fn start(subject: &'static str) -> Self {
        let number = AGENTS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("slimline-agent-{}-{number}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let issued = Arc::new(AtomicU32::new(0));
        let life_s = Arc::new(AtomicU64::new(3600));
        let (bundles, watched) = watch::channel(BTreeMap::from([("spiffe://example.org".to_owned(), jwks("k1"))]));
        let shared = (issued.clone(), life_s.clone());
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(socket, subject, shared.clone(), watched.clone()));
            }
        });
        Self { path, issued, life_s, bundles, task }
    }

    pub fn config(&self) -> SpiffeConfig {
        SpiffeConfig::new(&format!("unix://{}", self.path.display()), &["slim"])
    }
}

type Issuing = (Arc<AtomicU32>, Arc<AtomicU64>);

async fn serve(
    socket: tokio::net::UnixStream,
    subject: &'static str,
    issuing: Issuing,
    mut bundles: watch::Receiver<BTreeMap<String, Vec<u8>>>,
) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let known = request.headers().get("workload.spiffe.io").is_some_and(|value| value == "true");
        let method = request.uri().path().to_owned();
        let response = http::Response::builder().header("content-type", "application/grpc");
        if subject.is_empty() || !known {
            let response = response.header("grpc-status", "7").header("grpc-message", "no identity issued");
            respond.send_response(response.body(()).unwrap(), true).unwrap();
            continue;
        }
        let mut send = respond.send_response(response.body(()).unwrap(), false).unwrap();
        let (issued, life_s) = issuing.clone();
        let mut changes = bundles.clone();
        bundles.mark_unchanged();
        tokio::spawn(async move {
            let framed = |message: Vec<u8>| {
                let mut framed = prefix(u32::try_from(message.len()).unwrap()).to_vec();
                framed.extend(message);
                Bytes::from(framed)
            };
            if method == "/SpiffeWorkloadAPI/FetchJWTSVID" {
                let mut body = request.into_body();
                let mut octets = Vec::new();
                while let Some(Ok(chunk)) = body.data().await {
                    octets.extend_from_slice(&chunk);
                }
                let mut deframer = Deframer::new(1 << 20);
                let Ok(Some(Item::Message(asked))) = deframer.next(&mut &octets[..]) else { panic!("no request") };
                let asked = JwtSvidRequest::decode(asked).unwrap();
                issued.fetch_add(1, Ordering::Relaxed);
                let svid = mint(subject, &asked.audience, Some("k1"), life_s.load(Ordering::Relaxed));
                let svids = vec![JwtSvid { spiffe_id: subject.to_owned(), svid }];
                let reply = framed(JwtSvidResponse { svids }.encode_to_vec());
                // In two pieces: replies come as the network cuts them.
                send.send_data(reply.slice(..7), false).unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
                send.send_data(reply.slice(7..), false).unwrap();
            } else if method == "/SpiffeWorkloadAPI/FetchX509SVID" {
                let reply = X509SvidResponse { svids: vec![x509(subject)] };
                send.send_data(framed(reply.encode_to_vec()), false).unwrap();
                while changes.changed().await.is_ok() {} // rotates nothing
            } else if method == "/SpiffeWorkloadAPI/FetchX509Bundles" {
                let bundles = BTreeMap::from([("spiffe://example.org".to_owned(), x509(subject).bundle)]);
                send.send_data(framed(X509BundlesResponse { bundles }.encode_to_vec()), false).unwrap();
                while changes.changed().await.is_ok() {}
            } else {
                assert_eq!(method, "/SpiffeWorkloadAPI/FetchJWTBundles");
                loop {
                    let current = changes.borrow_and_update().clone();
                    send.send_data(framed(JwtBundlesResponse { bundles: current }.encode_to_vec()), false).unwrap();
                    if changes.changed().await.is_err() {
                        break;
                    }
                }
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let _ = send.send_trailers(trailers);
        });
    }
}
