//! What openmls needs from a cryptographic library, by aws-lc; HPKE, which only membership changes use, by hpke-rs on top.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, hmac};
use hpke_rs::{Hpke, HpkeError, Mode};
use hpke_rs_crypto::types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::random::OpenMlsRand;
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::{
    AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeAeadType, HpkeCiphertext, HpkeConfig,
    HpkeKdfType, HpkeKemType, HpkeKeyPair, KemOutput, SignatureScheme,
};
use tls_codec::SecretVLBytes;

use super::hpke::HpkeAwsLc;
use crate::error::IdentityError;
use crate::identity::SigningKey;
use crate::identity::key::{self, KeyKind};

/// The primitives of suites 0x0001 and 0x0002.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crypto;

impl Crypto {
    /// What a group of members with such keys uses.
    #[must_use]
    pub fn suite_of(kind: KeyKind) -> Ciphersuite {
        match kind {
            KeyKind::P256 => Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
            KeyKind::Ed25519 => Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
        }
    }
}

impl OpenMlsRand for Crypto {
    type Error = IdentityError;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], IdentityError> {
        crate::random::octets()
    }

    fn random_vec(&self, length: usize) -> Result<Vec<u8>, IdentityError> {
        let mut out = vec![0; length];
        getrandom::fill(&mut out).map_err(|_| IdentityError::Random)?;
        Ok(out)
    }
}

/// An application's key as openmls signs with it: parsed once, not per message.
pub(super) struct LeafSigner<'a>(pub(super) &'a SigningKey);

impl Signer for LeafSigner<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.0.sign(payload).map_err(|_| SignerError::SigningError)
    }

    fn signature_scheme(&self) -> SignatureScheme {
        match self.0.kind() {
            KeyKind::P256 => SignatureScheme::ECDSA_SECP256R1_SHA256,
            KeyKind::Ed25519 => SignatureScheme::ED25519,
        }
    }
}

fn hkdf_algorithm(hash: HashType) -> hkdf::Algorithm {
    match hash {
        HashType::Sha2_256 => hkdf::HKDF_SHA256,
        HashType::Sha2_384 => hkdf::HKDF_SHA384,
        HashType::Sha2_512 => hkdf::HKDF_SHA512,
    }
}

fn hmac_octets(hash: HashType, key: &[u8], message: &[u8]) -> SecretVLBytes {
    let algorithm = match hash {
        HashType::Sha2_256 => hmac::HMAC_SHA256,
        HashType::Sha2_384 => hmac::HMAC_SHA384,
        HashType::Sha2_512 => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().into()
}

/// The octets an expansion should yield, as aws-lc asks for them.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn aead_key(algorithm: AeadType, key: &[u8]) -> Result<LessSafeKey, CryptoError> {
    let algorithm = match algorithm {
        AeadType::Aes128Gcm => &AES_128_GCM,
        AeadType::Aes256Gcm => &AES_256_GCM,
        AeadType::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| CryptoError::InvalidLength)
}

fn hpke(config: &HpkeConfig) -> Result<Hpke<HpkeAwsLc>, CryptoError> {
    let kem = match config.0 {
        HpkeKemType::DhKemP256 => KemAlgorithm::DhKemP256,
        HpkeKemType::DhKem25519 => KemAlgorithm::DhKem25519,
        _ => return Err(CryptoError::UnsupportedCiphersuite),
    };
    let kdf = match config.1 {
        HpkeKdfType::HkdfSha256 => KdfAlgorithm::HkdfSha256,
        HpkeKdfType::HkdfSha384 => KdfAlgorithm::HkdfSha384,
        HpkeKdfType::HkdfSha512 => KdfAlgorithm::HkdfSha512,
    };
    let aead = match config.2 {
        HpkeAeadType::AesGcm128 => AeadAlgorithm::Aes128Gcm,
        HpkeAeadType::AesGcm256 => AeadAlgorithm::Aes256Gcm,
        HpkeAeadType::ChaCha20Poly1305 => AeadAlgorithm::ChaCha20Poly1305,
        HpkeAeadType::Export => AeadAlgorithm::HpkeExport,
    };
    Ok(Hpke::new(Mode::Base, kem, kdf, aead))
}

impl OpenMlsCrypto for Crypto {
    fn supports(&self, suite: Ciphersuite) -> Result<(), CryptoError> {
        if self.supported_ciphersuites().contains(&suite) { Ok(()) } else { Err(CryptoError::UnsupportedCiphersuite) }
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        vec![Self::suite_of(KeyKind::P256), Self::suite_of(KeyKind::Ed25519)]
    }

    fn hkdf_extract(&self, hash: HashType, salt: &[u8], ikm: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        Ok(hmac_octets(hash, salt, ikm)) // RFC 5869 §2.2: extraction is one HMAC
    }

    fn hmac(&self, hash: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        Ok(hmac_octets(hash, key, message))
    }

    fn hkdf_expand(
        &self,
        hash: HashType,
        prk: &[u8],
        info: &[u8],
        octets: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        let mut out = vec![0; octets];
        let prk = hkdf::Prk::new_less_safe(hkdf_algorithm(hash), prk);
        let expanded = prk.expand(&[info], Length(octets)).and_then(|okm| okm.fill(&mut out));
        expanded.map_err(|_| CryptoError::HkdfOutputLengthInvalid)?;
        Ok(out.into())
    }

    fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let algorithm = match hash {
            HashType::Sha2_256 => &digest::SHA256,
            HashType::Sha2_384 => &digest::SHA384,
            HashType::Sha2_512 => &digest::SHA512,
        };
        Ok(digest::digest(algorithm, data).as_ref().to_vec())
    }

    fn aead_encrypt(
        &self,
        algorithm: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::InvalidLength)?;
        let mut out = Vec::with_capacity(data.len() + algorithm.tag_size());
        out.extend_from_slice(data);
        aead_key(algorithm, key)?
            .seal_in_place_append_tag(nonce, Aad::from(aad), &mut out)
            .map_err(|_| CryptoError::CryptoLibraryError)?;
        Ok(out)
    }

    fn aead_decrypt(
        &self,
        algorithm: AeadType,
        key: &[u8],
        sealed: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::InvalidLength)?;
        let mut out = sealed.to_vec();
        let plain = aead_key(algorithm, key)?
            .open_in_place(nonce, Aad::from(aad), &mut out)
            .map_err(|_| CryptoError::AeadDecryptionError)?
            .len();
        out.truncate(plain);
        Ok(out)
    }

    fn signature_key_gen(&self, scheme: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        let kind = kind_of(scheme)?;
        let key = SigningKey::generate(kind).map_err(|_| CryptoError::InsufficientRandomness)?;
        let private = key.private_key().map_err(|_| CryptoError::CryptoLibraryError)?;
        Ok((private.to_vec(), key.public_key().to_vec()))
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        data: &[u8],
        public: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let fits = match kind_of(scheme)? {
            KeyKind::P256 => matches!(public.len(), 33 | 65),
            KeyKind::Ed25519 => public.len() == 32,
        };
        if fits && key::verify(public, data, signature) { Ok(()) } else { Err(CryptoError::InvalidSignature) }
    }

    fn sign(&self, scheme: SignatureScheme, data: &[u8], private: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let key = match kind_of(scheme)? {
            KeyKind::P256 => SigningKey::from_p256_scalar(private),
            KeyKind::Ed25519 => SigningKey::from_ed25519_seed(private),
        };
        key.and_then(|key| key.sign(data)).map_err(|_| CryptoError::CryptoLibraryError)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        public: &[u8],
        info: &[u8],
        aad: &[u8],
        plain: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        let (kem_output, ciphertext) = hpke(&config)?
            .seal(&public.into(), info, aad, plain, None, None, None)
            .map_err(|_| CryptoError::HpkeEncryptionError)?;
        Ok(HpkeCiphertext { kem_output: kem_output.into(), ciphertext: ciphertext.into() })
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        private: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        hpke(&config)?
            .open(
                input.kem_output.as_slice(),
                &private.into(),
                info,
                aad,
                input.ciphertext.as_slice(),
                None,
                None,
                None,
            )
            .map_err(|_| CryptoError::HpkeDecryptionError)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        public: &[u8],
        info: &[u8],
        context: &[u8],
        octets: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        let (kem_output, sender) = hpke(&config)?
            .setup_sender(&public.into(), info, None, None, None)
            .map_err(|_| CryptoError::SenderSetupError)?;
        let secret = sender.export(context, octets).map_err(|_| CryptoError::ExporterError)?;
        Ok((kem_output, secret.into()))
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        kem_output: &[u8],
        private: &[u8],
        info: &[u8],
        context: &[u8],
        octets: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        let receiver = hpke(&config)?
            .setup_receiver(kem_output, &private.into(), info, None, None, None)
            .map_err(|_| CryptoError::ReceiverSetupError)?;
        let secret = receiver.export(context, octets).map_err(|_| CryptoError::ExporterError)?;
        Ok(secret.into())
    }

    fn derive_hpke_keypair(&self, config: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
        let (private, public) = hpke(&config)?
            .derive_key_pair(ikm)
            .map_err(|error| match error {
                HpkeError::InvalidInput => CryptoError::InvalidLength,
                _ => CryptoError::CryptoLibraryError,
            })?
            .into_keys();
        Ok(HpkeKeyPair { private: private.as_slice().into(), public: public.as_slice().into() })
    }
}

fn kind_of(scheme: SignatureScheme) -> Result<KeyKind, CryptoError> {
    match scheme {
        SignatureScheme::ECDSA_SECP256R1_SHA256 => Ok(KeyKind::P256),
        SignatureScheme::ED25519 => Ok(KeyKind::Ed25519),
        _ => Err(CryptoError::UnsupportedSignatureScheme),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openmls_rust_crypto::RustCrypto;

    const HASHES: [HashType; 3] = [HashType::Sha2_256, HashType::Sha2_384, HashType::Sha2_512];

    fn texts() -> Vec<Vec<u8>> {
        [0, 1, 16, 31, 32, 64, 65, 200, 1000]
            .map(|n: u16| (0..n).map(|i| (i * 7 % 251).to_le_bytes()[0]).collect())
            .into()
    }

    #[test]
    fn hashes_macs_and_derivations_are_those_of_the_oracle() {
        let oracle = RustCrypto::default();
        for hash in HASHES {
            for text in texts() {
                assert_eq!(Crypto.hash(hash, &text).unwrap(), oracle.hash(hash, &text).unwrap());
                for key in texts() {
                    let (ours, theirs) = (Crypto.hmac(hash, &key, &text), oracle.hmac(hash, &key, &text));
                    assert_eq!(ours.unwrap().as_slice(), theirs.unwrap().as_slice());
                    let (ours, theirs) =
                        (Crypto.hkdf_extract(hash, &key, &text), oracle.hkdf_extract(hash, &key, &text));
                    assert_eq!(ours.unwrap().as_slice(), theirs.unwrap().as_slice());
                }
                let prk = [9; 64];
                for octets in [1, 16, 32, 77] {
                    let ours = Crypto.hkdf_expand(hash, &prk, &text, octets).unwrap();
                    let theirs = oracle.hkdf_expand(hash, &prk, &text, octets).unwrap();
                    assert_eq!(ours.as_slice(), theirs.as_slice());
                }
            }
        }
        assert!(Crypto.hkdf_expand(HashType::Sha2_256, &[1; 32], b"", 255 * 32 + 1).is_err());
    }

    #[test]
    fn sealed_octets_are_those_of_the_oracle() {
        let oracle = RustCrypto::default();
        for (algorithm, key) in [
            (AeadType::Aes128Gcm, &[1; 16][..]),
            (AeadType::Aes256Gcm, &[2; 32]),
            (AeadType::ChaCha20Poly1305, &[3; 32]),
        ] {
            for text in texts() {
                let mut sealed = Crypto.aead_encrypt(algorithm, key, &text, &[5; 12], b"aad").unwrap();
                assert_eq!(sealed, oracle.aead_encrypt(algorithm, key, &text, &[5; 12], b"aad").unwrap());
                assert_eq!(Crypto.aead_decrypt(algorithm, key, &sealed, &[5; 12], b"aad").unwrap(), text);
                assert!(Crypto.aead_decrypt(algorithm, key, &sealed, &[5; 12], b"add").is_err());
                sealed[0] ^= 1;
                assert!(Crypto.aead_decrypt(algorithm, key, &sealed, &[5; 12], b"aad").is_err());
            }
            assert!(Crypto.aead_encrypt(algorithm, &key[1..], b"", &[5; 12], b"").is_err());
            assert!(Crypto.aead_decrypt(algorithm, key, b"short", &[5; 11], b"").is_err());
        }
    }

    #[test]
    fn each_signs_what_the_other_verifies() {
        let oracle = RustCrypto::default();
        for scheme in [SignatureScheme::ECDSA_SECP256R1_SHA256, SignatureScheme::ED25519] {
            let (private, public) = Crypto.signature_key_gen(scheme).unwrap();
            let ours = Crypto.sign(scheme, b"text", &private).unwrap();
            oracle.verify_signature(scheme, b"text", &public, &ours).unwrap();
            let (private, public) = oracle.signature_key_gen(scheme).unwrap();
            let theirs = oracle.sign(scheme, b"text", &private).unwrap();
            Crypto.verify_signature(scheme, b"text", &public, &theirs).unwrap();
            assert!(Crypto.verify_signature(scheme, b"test", &public, &theirs).is_err());
        }
        assert!(Crypto.signature_key_gen(SignatureScheme::ED448).is_err());
    }

    #[test]
    fn each_opens_what_the_other_seals() {
        let oracle = RustCrypto::default();
        for suite in Crypto.supported_ciphersuites() {
            let config = || suite.hpke_config();
            let ours = Crypto.derive_hpke_keypair(config(), &[7; 32]).unwrap();
            let theirs = oracle.derive_hpke_keypair(config(), &[7; 32]).unwrap();
            assert_eq!(ours.public, theirs.public);
            assert_eq!(*ours.private, *theirs.private);
            let sealed = Crypto.hpke_seal(config(), &ours.public, b"i", b"a", b"secret").unwrap();
            assert_eq!(oracle.hpke_open(config(), &sealed, &ours.private, b"i", b"a").unwrap(), b"secret");
            let sealed = oracle.hpke_seal(config(), &ours.public, b"i", b"a", b"secret").unwrap();
            assert_eq!(Crypto.hpke_open(config(), &sealed, &ours.private, b"i", b"a").unwrap(), b"secret");
            let (kem, ours_secret) =
                Crypto.hpke_setup_sender_and_export(config(), &ours.public, b"i", b"e", 32).unwrap();
            let theirs_secret =
                oracle.hpke_setup_receiver_and_export(config(), &kem, &ours.private, b"i", b"e", 32).unwrap();
            assert_eq!(*ours_secret, *theirs_secret);
        }
    }
}
