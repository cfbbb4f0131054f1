//! The signature key of an application, and the check of other people's signatures.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::error::IdentityError;

/// A parsed private key: parsed once, used for every signature.
pub struct SigningKey {
    pair: Pair,
    random: SystemRandom,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Which algorithm a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 with SHA-256, DER signatures: what published SDKs use.
    P256,
    /// Ed25519.
    Ed25519,
}

impl SigningKey {
    /// A new key.
    pub fn generate(kind: KeyKind) -> Result<Self, IdentityError> {
        let pair = match kind {
            KeyKind::P256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Pair::P256),
            KeyKind::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519),
        };
        Ok(Self { pair: pair.map_err(|_| IdentityError::Random)?, random: SystemRandom::new() })
    }

    /// A P-256 key from its 32-octet scalar (shorter ones are padded) and its 65-octet public point.
    pub fn from_p256(scalar: &[u8], public: &[u8]) -> Result<Self, IdentityError> {
        let mut padded = Zeroizing::new([0; 32]);
        let start = 32_usize.checked_sub(scalar.len()).ok_or(IdentityError::Key("scalar longer than 32 octets"))?;
        padded[start..].copy_from_slice(scalar);
        let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_ASN1_SIGNING, &*padded, public)
            .map_err(|_| IdentityError::Key("not a P-256 key pair"))?;
        Ok(Self { pair: Pair::P256(pair), random: SystemRandom::new() })
    }

    /// A P-256 key from its scalar alone.
    pub fn from_p256_scalar(scalar: &[u8]) -> Result<Self, IdentityError> {
        let refused = |_| IdentityError::Key("not a P-256 scalar");
        let private = PrivateKey::from_private_key(&ECDH_P256, scalar).map_err(refused)?;
        Self::from_p256(scalar, private.compute_public_key().map_err(|_| IdentityError::Key("no public key"))?.as_ref())
    }

    /// An Ed25519 key from its 32-octet seed.
    pub fn from_ed25519_seed(seed: &[u8]) -> Result<Self, IdentityError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| IdentityError::Key("not an Ed25519 seed"))?;
        Ok(Self { pair: Pair::Ed25519(pair), random: SystemRandom::new() })
    }

    /// Which algorithm it signs with.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match self.pair {
            Pair::P256(_) => KeyKind::P256,
            Pair::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    /// The public half: 65 octets of SEC1 point, or 32 of Ed25519.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        match &self.pair {
            Pair::P256(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    /// The private half, for an encrypted store: 32 octets.
    pub fn private_key(&self) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        match &self.pair {
            Pair::P256(pair) => {
                let scalar = pair.private_key().as_be_bytes().map_err(|_| IdentityError::Key("not exportable"))?;
                Ok(Zeroizing::new(scalar.as_ref().to_vec()))
            }
            Pair::Ed25519(pair) => {
                let seed = pair.seed().and_then(|seed| seed.as_be_bytes());
                Ok(Zeroizing::new(seed.map_err(|_| IdentityError::Key("not exportable"))?.as_ref().to_vec()))
            }
        }
    }

    /// Signs: DER for P-256, 64 octets for Ed25519.
    pub fn sign(&self, octets: &[u8]) -> Result<Vec<u8>, IdentityError> {
        match &self.pair {
            Pair::P256(pair) => {
                let signature = pair.sign(&self.random, octets).map_err(|_| IdentityError::Random)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(octets).as_ref().to_vec()),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// Whether `signature` over `octets` was made by the owner of `public_key`; its length tells the algorithm.
///
/// Source: slim-session §1.4.
#[must_use]
pub fn verify(public_key: &[u8], octets: &[u8], signature: &[u8]) -> bool {
    match public_key.len() {
        32 => UnparsedPublicKey::new(&ED25519, public_key).verify(octets, signature).is_ok(),
        33 | 65 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key).verify(octets, signature).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_and_a_changed_octet_does_not() {
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            let key = SigningKey::generate(kind).unwrap();
            let mut signature = key.sign(b"hello").unwrap();
            assert!(verify(key.public_key(), b"hello", &signature));
            assert!(!verify(key.public_key(), b"hallo", &signature));
            *signature.last_mut().unwrap() ^= 1;
            assert!(!verify(key.public_key(), b"hello", &signature));
            assert!(!verify(&[4; 12], b"hello", &signature));
        }
    }

    #[test]
    fn a_key_returns_from_its_octets() {
        let key = SigningKey::generate(KeyKind::P256).unwrap();
        let again = SigningKey::from_p256(&key.private_key().unwrap(), key.public_key()).unwrap();
        assert!(verify(key.public_key(), b"x", &again.sign(b"x").unwrap()));
        assert!(SigningKey::from_p256(&[7; 32], key.public_key()).is_err());
        assert!(SigningKey::from_p256(&[7; 33], key.public_key()).is_err());
    }
}
