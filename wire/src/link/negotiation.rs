//! The two messages that begin a link: what has to be right about them, in the order it is looked at.
//!
//! Source: slim-wire §4.2. A failure gets no reply; the stream ends and says why.

use super::{Initiator, KEM_CIPHERTEXT_OCTETS, KEM_PUBLIC_OCTETS, KeyError, LinkKey, PUBLIC_KEY_OCTETS, respond};
use crate::message::LinkNegotiation;

/// What an end insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// No link without a MAC key (`require_header_mac`).
    pub require_header_mac: bool,
    /// No link without ML-KEM-768 (`enforce_pqc`).
    pub enforce_pqc: bool,
}

impl Default for Policy {
    /// Strict and classic, as upstream's defaults.
    fn default() -> Self {
        Self { require_header_mac: true, enforce_pqc: false }
    }
}

/// Why a negotiation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// An acceptor got a reply, or a dialler a request.
    #[error("link negotiation with is_reply={is_reply}, expected {}", !is_reply)]
    WrongDirection {
        /// What came.
        is_reply: bool,
    },
    /// Not `major.minor.patch`.
    #[error("link negotiation without a semantic version")]
    Version,
    /// No link id in a request.
    #[error("link negotiation without a link id")]
    NoLinkId,
    /// A reply for another link than ours.
    #[error("link negotiation answers another link id than ours")]
    OtherLinkId,
    /// No key in common where one is required.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What an acceptor found out from a request it takes.
#[derive(Debug)]
pub struct Accepted {
    /// The link's key; `None` where the policy is lax and agreement failed: the link runs without MAC.
    pub key: Option<LinkKey>,
    /// Ours for the reply; there if and only if a key was made.
    public: Option<[u8; PUBLIC_KEY_OCTETS]>,
    kem_ciphertext: Option<Vec<u8>>,
}

impl Accepted {
    /// The reply to `request`, for [`crate::message::build_link`].
    #[must_use]
    pub fn reply<'a>(
        &'a self,
        request: &LinkNegotiation<'a>,
        slim_version: &'a str,
        node_id: &'a str,
        deployment_name: &'a str,
    ) -> LinkNegotiation<'a> {
        LinkNegotiation {
            link_id: request.link_id,
            slim_version,
            is_reply: true,
            ecdh_public_key: self.public.as_ref().map_or(&[], |public| public.as_slice()),
            connection_type: request.connection_type,
            node_id,
            deployment_name,
            kem_payload: self.kem_ciphertext.as_deref(),
        }
    }
}

/// The acceptor's part.
pub fn accept(request: &LinkNegotiation<'_>, policy: Policy) -> Result<Accepted, NegotiationError> {
    check_kem_length(request, policy, KEM_PUBLIC_OCTETS)?;
    check_direction_and_version(request, false)?;
    check_key_length(request, policy)?;
    if request.link_id.is_empty() {
        return Err(NegotiationError::NoLinkId);
    }
    match respond(request.link_id, request.ecdh_public_key, request.kem_payload) {
        Ok(response) => Ok(Accepted {
            key: Some(response.key),
            public: Some(response.public),
            kem_ciphertext: response.kem_ciphertext,
        }),
        Err(_) if !policy.require_header_mac => Ok(Accepted { key: None, public: None, kem_ciphertext: None }),
        Err(error) => Err(error.into()),
    }
}

/// The dialler's request, for [`crate::message::build_link`]; `base` gives everything but direction and keys.
#[must_use]
pub fn request<'a>(initiator: &'a Initiator, base: &LinkNegotiation<'a>) -> LinkNegotiation<'a> {
    LinkNegotiation {
        is_reply: false,
        ecdh_public_key: initiator.public(),
        kem_payload: initiator.kem_public().map(|public| public.as_slice()),
        ..*base
    }
}

/// The dialler's part once the reply is there; no key only where the policy is lax.
pub fn complete(
    initiator: &Initiator,
    link_id: &str,
    reply: &LinkNegotiation<'_>,
    policy: Policy,
) -> Result<Option<LinkKey>, NegotiationError> {
    check_kem_length(reply, policy, KEM_CIPHERTEXT_OCTETS)?;
    check_direction_and_version(reply, true)?;
    check_key_length(reply, policy)?;
    if reply.link_id != link_id {
        return Err(NegotiationError::OtherLinkId);
    }
    match initiator.finish(link_id, reply) {
        Ok(key) => Ok(Some(key)),
        Err(_) if !policy.require_header_mac => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_kem_length(link: &LinkNegotiation<'_>, policy: Policy, expected: usize) -> Result<(), KeyError> {
    let length = link.kem_payload.unwrap_or_default().len();
    if policy.enforce_pqc && length != expected {
        return Err(KeyError::KemLength { length, expected });
    }
    Ok(())
}

fn check_direction_and_version(link: &LinkNegotiation<'_>, is_reply: bool) -> Result<(), NegotiationError> {
    if link.is_reply != is_reply {
        return Err(NegotiationError::WrongDirection { is_reply: link.is_reply });
    }
    if !is_semantic_version(link.slim_version) {
        return Err(NegotiationError::Version);
    }
    Ok(())
}

fn check_key_length(link: &LinkNegotiation<'_>, policy: Policy) -> Result<(), KeyError> {
    let length = link.ecdh_public_key.len();
    if policy.require_header_mac && length != PUBLIC_KEY_OCTETS {
        return Err(KeyError::PublicKeyLength { length });
    }
    Ok(())
}

/// Whether `text` is a semantic version; which one does not matter.
///
/// Source: Semantic Versioning 2.0.0, clauses 2, 9, 10; numbers fit 64 bits.
#[must_use]
pub fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let is_plain =
        |part: &str| !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let is_digits = |part: &str| part.bytes().all(|octet| octet.is_ascii_digit());
    let is_number =
        |part: &str| is_digits(part) && (part == "0" || !part.starts_with('0')) && part.parse::<u64>().is_ok();
    let no_leading_zero = |part: &str| !is_digits(part) || part == "0" || !part.starts_with('0');
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| is_plain(part) && no_leading_zero(part)))
        && build.is_none_or(|build| build.split('.').all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnType;

    const BASE: LinkNegotiation<'_> = LinkNegotiation {
        link_id: "link",
        slim_version: "0.1.0",
        is_reply: false,
        ecdh_public_key: &[],
        connection_type: ConnType::Edge,
        node_id: "here",
        deployment_name: "",
        kem_payload: None,
    };
    const LAX: Policy = Policy { require_header_mac: false, enforce_pqc: false };
    const PQC: Policy = Policy { require_header_mac: true, enforce_pqc: true };

    #[test]
    fn two_ends_agree() {
        for (hybrid, policy) in [(false, Policy::default()), (true, Policy::default()), (true, PQC), (false, LAX)] {
            let initiator = Initiator::new(hybrid).unwrap();
            let request = request(&initiator, &BASE);
            let accepted = accept(&request, policy).unwrap();
            let reply = accepted.reply(&request, "0.2.0", "there", "");
            assert_eq!((reply.link_id, reply.connection_type, reply.is_reply), ("link", ConnType::Edge, true));
            let key = complete(&initiator, "link", &reply, policy).unwrap().unwrap();
            assert_eq!(key.as_octets(), accepted.key.as_ref().unwrap().as_octets());
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_an_acceptor_refuses() {
        let initiator = Initiator::new(false).unwrap();
        let good = request(&initiator, &BASE);
        let refused = |request: LinkNegotiation<'_>, policy| accept(&request, policy).err();
        assert_eq!(refused(good, Policy::default()), None);
        assert_eq!(refused(good, PQC), Some(KeyError::KemLength { length: 0, expected: KEM_PUBLIC_OCTETS }.into()));
        assert_eq!(refused(LinkNegotiation { is_reply: true, ..good }, LAX), Some(NegotiationError::WrongDirection { is_reply: true }));
        assert_eq!(refused(LinkNegotiation { slim_version: "", ..good }, LAX), Some(NegotiationError::Version));
        assert_eq!(refused(BASE, Policy::default()), Some(KeyError::PublicKeyLength { length: 0 }.into()));
        assert_eq!(refused(LinkNegotiation { link_id: "", ..good }, LAX), Some(NegotiationError::NoLinkId));
        assert_eq!(refused(LinkNegotiation { ecdh_public_key: &[0; 32], ..good }, Policy::default()), Some(KeyError::LowOrder.into()));
    }

    #[test]
    fn a_lax_acceptor_runs_without_key() {
        let accepted = accept(&BASE, LAX).unwrap();
        assert!(accepted.key.is_none());
        assert!(accepted.reply(&BASE, "0.1.0", "", "").ecdh_public_key.is_empty());
    }

    #[test]
    fn what_a_dialler_refuses() {
        let initiator = Initiator::new(false).unwrap();
        let response = respond("link", initiator.public(), None).unwrap();
        let good = LinkNegotiation { is_reply: true, ecdh_public_key: &response.public, ..BASE };
        let refused = |reply: LinkNegotiation<'_>, policy| complete(&initiator, "link", &reply, policy).err();
        assert_eq!(refused(good, Policy::default()), None);
        assert_eq!(
            refused(LinkNegotiation { is_reply: false, ..good }, LAX),
            Some(NegotiationError::WrongDirection { is_reply: false })
        );
        assert_eq!(refused(LinkNegotiation { slim_version: "1.2", ..good }, LAX), Some(NegotiationError::Version));
        assert_eq!(refused(LinkNegotiation { link_id: "x", ..good }, LAX), Some(NegotiationError::OtherLinkId));
        let keyless = LinkNegotiation { ecdh_public_key: &[], ..good };
        assert_eq!(refused(keyless, Policy::default()), Some(KeyError::PublicKeyLength { length: 0 }.into()));
        assert!(complete(&initiator, "link", &keyless, LAX).unwrap().is_none());
    }

    #[test]
    fn versions() {
        for good in ["0.1.0", "3.4.6", "1.0.0-alpha.1", "1.0.0--", "1.0.0+001", "1.0.0-a-b.0+x.-", "10.20.30"] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.x",
            "v1.2.3",
            "1.2.3-",
            "1.2.3+",
            "1.2.3-01",
            "1.2.3-a..b",
            "1..3",
            "1.2.99999999999999999999",
            "1.2.3 ",
            "1.2.+3",
            "-1.2.3",
        ] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }
}
