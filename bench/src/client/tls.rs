//! TLS around a connection, sans-IO: rustls with aws-lc-rs, as SDKs and nodes have it.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Whom a run trusts, and the name it expects.
#[derive(Clone, Debug)]
pub(crate) struct Security {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Security {
    /// Reads what is to be trusted: the authorities of `ca_source` (PEM), or else the system's; anybody when `skip_verify`.
    ///
    /// Errors: one line that names the file or the name.
    pub(crate) fn new(host: &str, ca_source: Option<&Path>, skip_verify: bool) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("--tls: {error}"))?;
        let mut config = if skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
        } else {
            builder.with_root_certificates(roots(ca_source)?).with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())
            .map_err(|_| format!("--server-name {host}: neither a host name nor an address"))?;
        Ok(Self { config: Arc::new(config), name })
    }
}

fn roots(ca_source: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_source else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |reason: String| format!("--ca-source {}: {reason}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("no PEM certificate in it".into()));
    }
    Ok(roots)
}

/// Takes every certificate; signatures of the handshake are still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One connection's session.
pub(crate) struct Tls {
    session: ClientConnection,
    /// Written, and not encrypted yet.
    plain_out: Vec<u8>,
    plain_in: Vec<u8>,
}

impl Tls {
    /// Starts a handshake, its first octets in `out`.
    pub(crate) fn start(security: &Security, out: &mut Vec<u8>) -> Result<Self, String> {
        let mut session = ClientConnection::new(security.config.clone(), security.name.clone()).map_err(explain)?;
        session.set_buffer_limit(None); // flow control and windows bound what waits
        let mut tls = Self { session, plain_out: Vec::new(), plain_in: Vec::new() };
        tls.write(out)?;
        Ok(tls)
    }

    /// Where plain octets are written.
    pub(crate) fn plain(&mut self) -> &mut Vec<u8> {
        &mut self.plain_out
    }

    /// Octets that wait for [`Tls::seal`].
    pub(crate) fn waiting(&self) -> usize {
        if self.session.is_handshaking() { 0 } else { self.plain_out.len() }
    }

    /// Decrypts what arrived and hands it to `take`, together with the place to write plain answers to.
    pub(crate) fn receive(
        &mut self,
        mut octets: &[u8],
        out: &mut Vec<u8>,
        mut take: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        while !octets.is_empty() {
            self.session.read_tls(&mut octets).map_err(|error| format!("TLS: {error}"))?;
            let state = self.session.process_new_packets();
            let waiting = match state {
                Ok(state) => state.plaintext_bytes_to_read(),
                Err(error) => {
                    self.write(out)?; // the alert
                    return Err(explain(error));
                }
            };
            if waiting > 0 {
                self.plain_in.resize(waiting, 0);
                self.session.reader().read_exact(&mut self.plain_in).map_err(|error| format!("TLS: {error}"))?;
                take(&self.plain_in, &mut self.plain_out)?;
            }
        }
        self.write(out)
    }

    /// Encrypts what was written, once the handshake is done.
    pub(crate) fn seal(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        if !self.session.is_handshaking() && !self.plain_out.is_empty() {
            let written = self.session.writer().write_all(&self.plain_out);
            written.map_err(|error| format!("TLS: {error}"))?;
            self.plain_out.clear();
        }
        self.write(out)
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        while self.session.wants_write() {
            self.session.write_tls(out).map_err(|error: io::Error| format!("TLS: {error}"))?;
        }
        Ok(())
    }
}

/// An error of the handshake, with what may help.
#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn explain(error: rustls::Error) -> String {
    let help = match error {
        rustls::Error::InvalidCertificate(_) => {
            " (trust its authority with --ca-source, or use --insecure-skip-verify)"
        }
        rustls::Error::InvalidMessage(_) => " (a node in plain text is spoken to without --tls)",
        _ => "",
    };
    format!("TLS: {error}{help}")
}
