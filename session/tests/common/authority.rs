//! A private authority, and what it vouches for.
#![allow(dead_code, unreachable_pub)] // each test file takes its part of this module

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

const DAY: Duration = Duration::from_secs(86_400);

pub struct Authority {
    pub pem: String,
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

/// So many days from now, or before it.
fn day(days: i32) -> SystemTime {
    let distance = DAY * days.unsigned_abs();
    if days < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate, issuer: rcgen::Issuer::new(parameters, key) }
    }

    /// A certificate valid from and to so many days from now; for a long time without them.
    pub fn issue(&self, name: &str, days: Option<(i32, i32)>) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        if let Some((from, to)) = days {
            (parameters.not_before, parameters.not_after) = (day(from).into(), day(to).into());
        }
        (parameters.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A listener for `localhost` that takes everybody, with a certificate valid from and to so many days from now.
    pub fn for_all(&self, from: i32, to: i32) -> TlsAcceptor {
        self.acceptor(WebPkiClientVerifier::no_client_auth(), Some((from, to)))
    }

    /// A listener for `localhost` that asks clients for a certificate of this authority.
    pub fn for_members(&self) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let members = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        self.acceptor(members, None)
    }

    fn acceptor(&self, clients: Arc<dyn ClientCertVerifier>, days: Option<(i32, i32)>) -> TlsAcceptor {
        let (certificate, key) = self.issue("localhost", days);
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
