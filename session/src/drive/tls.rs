//! TLS to the node: whom we trust, and who we are.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::ConnectError;

/// How a connection to an `https://` endpoint is secured.
#[derive(Clone, Default)]
pub struct TlsConfig {
    /// Certificates (PEM) of the authorities to trust; the system's without them.
    pub authorities_pem: Option<Vec<u8>>,
    /// Trust the system's authorities beside those.
    pub system_authorities: bool,
    /// Our certificate chain and key (PEM), where the node asks for them.
    pub client_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// The name the node's certificate has to carry, if not the endpoint's host.
    pub server_name: Option<String>,
    /// This version and no other; 1.2 and 1.3 without it.
    pub version: Option<TlsVersion>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

impl TlsVersion {
    fn list(wanted: Option<Self>) -> &'static [&'static SupportedProtocolVersion] {
        const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        match wanted {
            None => BOTH,
            Some(Self::Tls13) => &BOTH[..1],
            Some(Self::Tls12) => &BOTH[1..],
        }
    }
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's business.
        f.debug_struct("TlsConfig").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn refused(what: &str) -> ConnectError {
    ConnectError::Tls(what.to_owned())
}

/// What rustls says, and what to do about it.
pub(super) fn advised(text: &str) -> String {
    let advice = [
        ("BadSignature", "another authority of the same name issued the node's certificate: see `tls.ca_source`"),
        (
            "UnknownIssuer",
            "trust the authority that issued the node's certificate: `tls.ca_source`, or TlsConfig::authorities_pem",
        ),
        ("not valid yet", "compare the clocks of both machines"),
        ("expired", "renew the node's certificate, or set this machine's clock"),
        ("not valid for name", "connect by a name the certificate carries, or give it as `server_name`"),
        ("corrupt message", "the node does not speak TLS there: write http:// or ws://, or another port"),
        ("CertificateRequired", "the node asks for a certificate of ours: `tls.source`, or TlsConfig::client_pem"),
        (
            "HandshakeFailure",
            "the node asks for a certificate of ours (TlsConfig::client_pem), or shares no cipher with us",
        ),
        ("ProtocolVersion", "node and application allow different versions of TLS: see `tls_version`"),
        ("NoApplicationProtocol", "the node speaks no HTTP/2 there"),
        ("received fatal alert", "the node does not accept our certificate"),
        ("eof", "the node ended the connection in the handshake; does it speak TLS there?"),
    ];
    let known = advice.iter().find(|(part, _)| text.contains(part));
    known.map_or_else(|| text.to_owned(), |(_, advice)| format!("{text}; {advice}"))
}

impl TlsConfig {
    /// Parses what is to be used; done before anything is sent.
    pub(super) fn connector(&self, http2: bool) -> Result<TlsConnector, ConnectError> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = &self.authorities_pem {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| refused("the authorities are not PEM certificates"))?;
                roots.add(certificate).map_err(|_| refused("an authority's certificate cannot be used"))?;
            }
        }
        if self.system_authorities || self.authorities_pem.is_none() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err(refused("no authority to trust: give a CA certificate"));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(TlsVersion::list(self.version))
            .map_err(|error| ConnectError::Tls(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &self.client_pem {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
                let chain = chain.map_err(|_| refused("our certificate is not PEM"))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| refused("our key is not PEM"))?;
                let built = builder.with_client_auth_cert(chain, key);
                built.map_err(|_| refused("our key does not belong to our certificate"))?
            }
        };
        if http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// The name to ask for and to check.
    pub(super) fn name(&self, authority: &str) -> Result<ServerName<'static>, ConnectError> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = self.server_name.as_deref().unwrap_or(host.trim_start_matches('[').trim_end_matches(']'));
        ServerName::try_from(host.to_owned()).map_err(|_| refused("the server name is neither a host nor an address"))
    }
}
