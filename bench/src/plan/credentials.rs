//! Whom a run trusts, and what it shows of itself.

use crate::client::tls::Security;
use crate::error::{BenchError, Result};
use crate::scenario::{Options, Peer};

/// TLS and the `authorization` header, as the options want them.
pub(super) fn read(options: &Options, endpoint: &str) -> Result<(Option<Security>, Option<String>)> {
    let refuse = |reason: String| BenchError::Plan(reason);
    let slim = options.peer.is_none_or(|peer| peer == Peer::Slim);
    if !slim && (options.tls || options.basic_auth.is_some()) {
        return Err(refuse("--tls and --basic-auth belong to --peer slim".into()));
    }
    if !options.tls && (options.ca_source.is_some() || options.insecure_skip_verify || options.server_name.is_some()) {
        return Err(refuse("ca_source, insecure_skip_verify and server_name belong to tls".into()));
    }
    let tls = if options.tls {
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
        let host = options.server_name.as_deref().unwrap_or(host);
        Some(Security::new(host, options.ca_source.as_deref(), options.insecure_skip_verify).map_err(refuse)?)
    } else {
        None
    };
    let authorization = match &options.basic_auth {
        None => None,
        Some(path) => {
            let wrong = |reason: String| BenchError::Plan(format!("--basic-auth {}: {reason}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            let pair = text.trim_end_matches(['\r', '\n']);
            if !pair.contains(':') {
                return Err(wrong("it does not hold USERNAME:PASSWORD".into()));
            }
            Some(format!("Basic {}", base64(pair.as_bytes())))
        }
    };
    Ok((tls, authorization))
}

/// Base64 with padding (RFC 4648 §4).
fn base64(octets: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in octets.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, &octet| bits << 8 | u32::from(octet)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_rfc_has_it() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
