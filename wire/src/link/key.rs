//! Key agreement of a link: X25519, with ML-KEM-768 beside it where asked for, through HKDF.

use crate::message::LinkNegotiation;
use hkdf::Hkdf;
use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Octets of an X25519 public key.
pub const PUBLIC_KEY_OCTETS: usize = 32;

/// Octets of an ML-KEM-768 encapsulation key: what the initiator sends.
pub const KEM_PUBLIC_OCTETS: usize = 1184;

/// Octets of an ML-KEM-768 ciphertext: what the responder sends.
pub const KEM_CIPHERTEXT_OCTETS: usize = 1088;

/// HKDF info of a key from X25519 alone. Source: slim-wire §4.3.
const INFO_CLASSIC: &[u8] = b"SLIM-DP-inter-node-hmac-v1";

/// HKDF info of a key from X25519 and ML-KEM-768.
const INFO_HYBRID: &[u8] = b"SLIM-DP-inter-node-hmac-v1-pq";

/// The key of a link's header MAC, the same in both directions; wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LinkKey([u8; 32]);

impl LinkKey {
    /// A key known by other means: tests, tools.
    #[must_use]
    pub fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// The key itself.
    #[must_use]
    pub fn as_octets(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LinkKey(…)")
    }
}

/// Why two ends have no key in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The peer's X25519 key is missing or of another length.
    #[error("link public key of {length} octets, expected {}", PUBLIC_KEY_OCTETS)]
    PublicKeyLength {
        /// What came.
        length: usize,
    },
    /// The peer's X25519 key is a point of low order: anybody knows the shared secret.
    #[error("link public key is a low-order point")]
    LowOrder,
    /// The peer's ML-KEM payload is missing or of another length.
    #[error("link KEM payload of {length} octets, expected {expected}")]
    KemLength {
        /// What came; 0 if nothing.
        length: usize,
        /// What was due.
        expected: usize,
    },
    /// The peer's ML-KEM encapsulation key has coefficients out of range.
    #[error("link KEM key is not an ML-KEM-768 encapsulation key")]
    KemKey,
    /// The system gave no random octets.
    #[error("no random octets from the system")]
    NoRandom,
}

/// Derives the key from an X25519 secret.
///
/// Shape:  HKDF-SHA256, salt the link id's UTF-8, ikm the shared secret, 32 octets.
/// Source: slim-wire §4.3; golden vector `live_classic`.
#[must_use]
pub fn derive_classic(link_id: &str, shared: &[u8; 32]) -> LinkKey {
    expand(link_id, shared, INFO_CLASSIC)
}

/// Derives the key from an X25519 and an ML-KEM-768 secret.
///
/// Shape:  as [`derive_classic`], ikm the two secrets in this order.
/// Source: slim-wire §4.3; golden vector `live_hybrid_mlkem768`.
#[must_use]
pub fn derive_hybrid(link_id: &str, shared: &[u8; 32], kem_shared: &[u8; 32]) -> LinkKey {
    let mut ikm = Zeroizing::new([0; 64]);
    ikm[..32].copy_from_slice(shared);
    ikm[32..].copy_from_slice(kem_shared);
    expand(link_id, ikm.as_slice(), INFO_HYBRID)
}

fn expand(link_id: &str, ikm: &[u8], info: &[u8]) -> LinkKey {
    let mut key = LinkKey([0; 32]);
    let hkdf = Hkdf::<Sha256>::new(Some(link_id.as_bytes()), ikm);
    hkdf.expand(info, &mut key.0).expect("HKDF-SHA256 gives up to 8160 octets");
    key
}

/// The dialling side's half of the agreement; its secrets are wiped when dropped.
pub struct Initiator {
    secret: StaticSecret,
    public: [u8; PUBLIC_KEY_OCTETS],
    kem: Option<Box<Kem>>,
}

struct Kem {
    secret: DecapsulationKey,
    public: [u8; KEM_PUBLIC_OCTETS],
}

impl Initiator {
    /// Draws fresh keys; `hybrid` adds ML-KEM-768.
    pub fn new(hybrid: bool) -> Result<Self, KeyError> {
        let kem_seed = if hybrid { Some(Zeroizing::new(random::<64>()?)) } else { None };
        Ok(Self::from_secrets(random()?, kem_seed.as_deref()))
    }

    /// The keys behind known secrets: an X25519 scalar and an ML-KEM seed (`d ‖ z`).
    #[must_use]
    pub fn from_secrets(x25519: [u8; 32], kem_seed: Option<&[u8; 64]>) -> Self {
        let secret = StaticSecret::from(x25519);
        let public = PublicKey::from(&secret).to_bytes();
        let kem = kem_seed.map(|seed| {
            let secret = DecapsulationKey::from_seed((*seed).into());
            let public = secret.encapsulation_key().to_bytes().into();
            Box::new(Kem { secret, public })
        });
        Self { secret, public, kem }
    }

    /// What goes into `link_ecdh_public_key`.
    #[must_use]
    pub fn public(&self) -> &[u8; PUBLIC_KEY_OCTETS] {
        &self.public
    }

    /// What goes into `link_kem_payload`.
    #[must_use]
    pub fn kem_public(&self) -> Option<&[u8; KEM_PUBLIC_OCTETS]> {
        self.kem.as_ref().map(|kem| &kem.public)
    }

    /// Makes the key from the responder's reply.
    ///
    /// Errors: a hybrid initiator takes no reply without a ciphertext; one that did not ask for it ignores it.
    pub fn finish(&self, link_id: &str, reply: &LinkNegotiation<'_>) -> Result<LinkKey, KeyError> {
        let shared = agree(&self.secret, reply.ecdh_public_key)?;
        let Some(kem) = &self.kem else { return Ok(derive_classic(link_id, &shared)) };
        let ciphertext = reply.kem_payload.unwrap_or_default();
        let ciphertext: &[u8; KEM_CIPHERTEXT_OCTETS] = ciphertext
            .try_into()
            .map_err(|_| KeyError::KemLength { length: ciphertext.len(), expected: KEM_CIPHERTEXT_OCTETS })?;
        let kem_shared = Zeroizing::new(<[u8; 32]>::from(kem.secret.decapsulate(ciphertext.into())));
        Ok(derive_hybrid(link_id, &shared, &kem_shared))
    }
}

impl std::fmt::Debug for Initiator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Initiator").field("hybrid", &self.kem.is_some()).finish_non_exhaustive()
    }
}

/// The accepting side's half, made in one step.
#[derive(Debug)]
pub struct Response {
    /// The link's key.
    pub key: LinkKey,
    /// What goes into the reply's `link_ecdh_public_key`.
    pub public: [u8; PUBLIC_KEY_OCTETS],
    /// What goes into the reply's `link_kem_payload`; present if the key is hybrid.
    pub kem_ciphertext: Option<Vec<u8>>,
}

/// Answers an initiator with fresh keys.
///
/// Shape:  hybrid whenever the initiator sent an encapsulation key of the right length, as upstream does; whoever
///         enforces it looks whether a ciphertext came out.
/// Errors: no X25519 key, a low-order one, an invalid encapsulation key.
/// Source: slim-wire §4.2, §4.3.
pub fn respond(link_id: &str, peer_public: &[u8], kem_payload: Option<&[u8]>) -> Result<Response, KeyError> {
    let secret = StaticSecret::from(random()?);
    let public = PublicKey::from(&secret).to_bytes();
    let shared = agree(&secret, peer_public)?;
    let Some(kem_public) = kem_payload.and_then(|payload| <&[u8; KEM_PUBLIC_OCTETS]>::try_from(payload).ok()) else {
        return Ok(Response { key: derive_classic(link_id, &shared), public, kem_ciphertext: None });
    };
    let kem_public = EncapsulationKey::new(kem_public.into()).map_err(|_| KeyError::KemKey)?;
    let seed = Zeroizing::new(random::<32>()?);
    let (ciphertext, kem_shared) = kem_public.encapsulate_deterministic((&*seed).into()); // uniform, used once
    let kem_shared = Zeroizing::new(<[u8; 32]>::from(kem_shared));
    let key = derive_hybrid(link_id, &shared, &kem_shared);
    Ok(Response { key, public, kem_ciphertext: Some(ciphertext.to_vec()) })
}

fn agree(secret: &StaticSecret, peer_public: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let peer_public: [u8; PUBLIC_KEY_OCTETS] =
        peer_public.try_into().map_err(|_| KeyError::PublicKeyLength { length: peer_public.len() })?;
    let shared = secret.diffie_hellman(&PublicKey::from(peer_public));
    if !shared.was_contributory() {
        return Err(KeyError::LowOrder);
    }
    Ok(Zeroizing::new(shared.to_bytes()))
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(|_| KeyError::NoRandom)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnType;

    fn reply<'a>(public: &'a [u8], kem_payload: Option<&'a [u8]>) -> LinkNegotiation<'a> {
        LinkNegotiation {
            link_id: "link",
            slim_version: "0.1.0",
            is_reply: true,
            ecdh_public_key: public,
            connection_type: ConnType::Edge,
            node_id: "",
            deployment_name: "",
            kem_payload,
        }
    }

    #[test]
    fn both_ends_get_the_same_key() {
        for hybrid in [false, true] {
            let initiator = Initiator::new(hybrid).unwrap();
            let kem_public = initiator.kem_public().map(|public| &public[..]);
            let response = respond("link", initiator.public(), kem_public).unwrap();
            assert_eq!(response.kem_ciphertext.is_some(), hybrid);
            let reply = reply(&response.public, response.kem_ciphertext.as_deref());
            let key = initiator.finish("link", &reply).unwrap();
            assert_eq!(key.as_octets(), response.key.as_octets());
            assert_ne!(key.as_octets(), initiator.finish("other", &reply).unwrap().as_octets());
        }
    }

    #[test]
    fn low_order_points_are_refused() {
        let one = std::array::from_fn(|index| u8::from(index == 0));
        // Order 8, from the curve's small subgroup.
        let eighth = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        for point in [[0; 32], one, eighth] {
            assert_eq!(respond("link", &point, None).unwrap_err(), KeyError::LowOrder);
            let initiator = Initiator::new(false).unwrap();
            assert_eq!(initiator.finish("link", &reply(&point, None)).unwrap_err(), KeyError::LowOrder);
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        assert_eq!(respond("link", &[7; 31], None).unwrap_err(), KeyError::PublicKeyLength { length: 31 });
        let initiator = Initiator::new(true).unwrap();
        let public = *Initiator::new(false).unwrap().public();
        for (payload, length) in [(None, 0), (Some(&[0; 1087][..]), 1087)] {
            let refused = initiator.finish("link", &reply(&public, payload)).unwrap_err();
            assert_eq!(refused, KeyError::KemLength { length, expected: KEM_CIPHERTEXT_OCTETS });
        }
        // Coefficients above the modulus.
        assert_eq!(respond("link", &public, Some(&[0xff; KEM_PUBLIC_OCTETS])).unwrap_err(), KeyError::KemKey);
        // Not the length of an encapsulation key: classic.
        assert!(respond("link", &public, Some(&[0xff; 7])).unwrap().kem_ciphertext.is_none());
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", LinkKey::from_octets([7; 32])), "LinkKey(…)");
    }
}
