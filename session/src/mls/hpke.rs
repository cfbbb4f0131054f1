//! HPKE's primitives by aws-lc; the protocol around them (RFC 9180) is hpke-rs.

use std::convert::Infallible;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey, X25519};
use hpke_rs_crypto::error::Error;
use hpke_rs_crypto::types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
use hpke_rs_crypto::{HpkeCrypto, HpkeTestRng, TryCryptoRng, TryRng};
use openmls_traits::crypto::OpenMlsCrypto as _;
use openmls_traits::types::{AeadType, HashType};
use zeroize::Zeroize;

use super::provider::Crypto;

/// The order of P-256: a private key is a number from one to below it.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// DHKEM on P-256 and X25519, HKDF, AES-GCM and ChaCha20-Poly1305.
#[derive(Debug)]
pub(super) struct HpkeAwsLc;

fn curve(kem: KemAlgorithm) -> Result<&'static agreement::Algorithm, Error> {
    match kem {
        KemAlgorithm::DhKemP256 => Ok(&ECDH_P256),
        KemAlgorithm::DhKem25519 => Ok(&X25519),
        _ => Err(Error::UnknownKemAlgorithm),
    }
}

fn private(kem: KemAlgorithm, key: &[u8]) -> Result<PrivateKey, Error> {
    PrivateKey::from_private_key(curve(kem)?, key).map_err(|_| Error::KemInvalidSecretKey)
}

fn hash(kdf: KdfAlgorithm) -> HashType {
    match kdf {
        KdfAlgorithm::HkdfSha256 => HashType::Sha2_256,
        KdfAlgorithm::HkdfSha384 => HashType::Sha2_384,
        KdfAlgorithm::HkdfSha512 => HashType::Sha2_512,
    }
}

fn aead(algorithm: AeadAlgorithm) -> Result<AeadType, Error> {
    match algorithm {
        AeadAlgorithm::Aes128Gcm => Ok(AeadType::Aes128Gcm),
        AeadAlgorithm::Aes256Gcm => Ok(AeadType::Aes256Gcm),
        AeadAlgorithm::ChaCha20Poly1305 => Ok(AeadType::ChaCha20Poly1305),
        AeadAlgorithm::HpkeExport => Err(Error::UnknownAeadAlgorithm),
    }
}

impl HpkeCrypto for HpkeAwsLc {
    type HpkePrng = Randomness;

    fn name() -> String {
        "aws-lc".to_owned()
    }

    fn supports_kdf(_: KdfAlgorithm) -> Result<(), Error> {
        Ok(())
    }

    fn supports_kem(kem: KemAlgorithm) -> Result<(), Error> {
        curve(kem).map(|_| ())
    }

    fn supports_aead(algorithm: AeadAlgorithm) -> Result<(), Error> {
        aead(algorithm).map(|_| ())
    }

    fn prng() -> Randomness {
        Randomness
    }

    fn kdf_extract(kdf: KdfAlgorithm, salt: &[u8], ikm: &[u8]) -> Result<Vec<u8>, Error> {
        let prk = Crypto.hkdf_extract(hash(kdf), salt, ikm).map_err(library)?;
        Ok(prk.as_slice().to_vec())
    }

    fn kdf_expand(kdf: KdfAlgorithm, prk: &[u8], info: &[u8], octets: usize) -> Result<Vec<u8>, Error> {
        let okm = Crypto.hkdf_expand(hash(kdf), prk, info, octets).map_err(|_| Error::HpkeInvalidOutputLength)?;
        Ok(okm.as_slice().to_vec())
    }

    fn dh(kem: KemAlgorithm, public: &[u8], secret: &[u8]) -> Result<Vec<u8>, Error> {
        // A point off its curve, and a shared secret of zeros, are refused by the library.
        let public = UnparsedPublicKey::new(curve(kem)?, public);
        agreement::agree(&private(kem, secret)?, public, Error::KemInvalidPublicKey, |shared| Ok(shared.to_vec()))
    }

    fn secret_to_public(kem: KemAlgorithm, secret: &[u8]) -> Result<Vec<u8>, Error> {
        let public = private(kem, secret)?.compute_public_key().map_err(|_| Error::KemInvalidSecretKey)?;
        Ok(public.as_ref().to_vec())
    }

    fn dh_validate_sk(kem: KemAlgorithm, secret: &[u8]) -> Result<Vec<u8>, Error> {
        let in_range = match kem {
            KemAlgorithm::DhKemP256 => secret.len() == 32 && secret != [0; 32] && *secret < P256_ORDER[..],
            KemAlgorithm::DhKem25519 => secret.len() == 32,
            _ => return Err(Error::UnknownKemAlgorithm),
        };
        if in_range { Ok(secret.to_vec()) } else { Err(Error::KemInvalidSecretKey) }
    }

    // Keys are derived from seeds (`derive_hpke_keypair`), and KEMs without Diffie-Hellman are in no suite of ours.

    fn kem_key_gen(_: KemAlgorithm, _: &mut Randomness) -> Result<(Vec<u8>, Vec<u8>), Error> {
        Err(Error::UnsupportedKemOperation)
    }

    fn kem_key_gen_derand(_: KemAlgorithm, _: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
        Err(Error::UnsupportedKemOperation)
    }

    fn kem_encaps(_: KemAlgorithm, _: &[u8], _: &mut Randomness) -> Result<(Vec<u8>, Vec<u8>), Error> {
        Err(Error::UnsupportedKemOperation)
    }

    fn kem_decaps(_: KemAlgorithm, _: &[u8], _: &[u8]) -> Result<Vec<u8>, Error> {
        Err(Error::UnsupportedKemOperation)
    }

    fn aead_seal(
        algorithm: AeadAlgorithm,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, Error> {
        Crypto.aead_encrypt(self::aead(algorithm)?, key, plain, nonce, aad).map_err(library)
    }

    fn aead_open(
        algorithm: AeadAlgorithm,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        Crypto.aead_decrypt(self::aead(algorithm)?, key, sealed, nonce, aad).map_err(|_| Error::AeadOpenError)
    }
}

fn library(error: openmls_traits::types::CryptoError) -> Error {
    Error::CryptoLibraryError(error.to_string())
}

/// The operating system's randomness, as hpke-rs asks for it.
pub(super) struct Randomness;

impl Zeroize for Randomness {
    fn zeroize(&mut self) {} // it keeps nothing
}

impl TryRng for Randomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_ne_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_ne_bytes(word))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        if getrandom::fill(out).is_err() {
            // hpke-rs has no word for it, and a key that others can guess must not be used. A kernel that gave
            // randomness once (for our signature key, long before) does not come to this.
            std::process::abort();
        }
        Ok(())
    }
}

impl TryCryptoRng for Randomness {}

impl HpkeTestRng for Randomness {
    type Error = Infallible;

    fn try_fill_test_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.try_fill_bytes(out)
    }

    fn seed(&mut self, _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use openmls_traits::types::{Ciphersuite, HpkeCiphertext};

    #[test]
    fn private_keys_have_their_range() {
        let mut last = P256_ORDER;
        last[31] -= 1;
        for good in [[1; 32], last] {
            assert!(HpkeAwsLc::dh_validate_sk(KemAlgorithm::DhKemP256, &good).is_ok());
            assert_eq!(HpkeAwsLc::secret_to_public(KemAlgorithm::DhKemP256, &good).unwrap().len(), 65);
        }
        for bad in [&[0; 32][..], &P256_ORDER, &[0xff; 32], &[1; 31], &[1; 33], &[]] {
            assert!(HpkeAwsLc::dh_validate_sk(KemAlgorithm::DhKemP256, bad).is_err(), "{bad:?}");
            assert!(HpkeAwsLc::secret_to_public(KemAlgorithm::DhKemP256, bad).is_err(), "{bad:?}");
        }
        assert!(HpkeAwsLc::dh_validate_sk(KemAlgorithm::DhKemP384, &[1; 48]).is_err());
    }

    /// Base mode with AES-128-GCM: the receiver's keys from their seed, and the first of the encryptions.
    ///
    /// Source: RFC 9180 §A.1.1, §A.3.1.
    #[test]
    fn the_vectors_of_the_rfc() {
        struct Vector {
            suite: Ciphersuite,
            ikm_r: &'static str,
            sk_r: &'static str,
            pk_r: &'static str,
            enc: &'static str,
            ct: &'static str,
        }
        let octets = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let vectors = [
            Vector {
                suite: Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
                ikm_r: "6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037",
                sk_r: "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
                pk_r: "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
                enc: "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
                ct: "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
            },
            Vector {
                suite: Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
                ikm_r: "668b37171f1072f3cf12ea8a236a45df23fc13b82af3609ad1e354f6ef817550",
                sk_r: "f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2",
                pk_r: "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a826a779b4cf969b8a0e539c7f62fb3d30ad6aa8f80e30f1d128aafd68a2ce72ea0",
                enc: "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4",
                ct: "5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f39513434",
            },
        ];
        for vector in vectors {
            let pair = Crypto.derive_hpke_keypair(vector.suite.hpke_config(), &octets(vector.ikm_r)).unwrap();
            assert_eq!(*pair.private, octets(vector.sk_r));
            assert_eq!(pair.public, octets(vector.pk_r));
            let input = HpkeCiphertext { kem_output: octets(vector.enc).into(), ciphertext: octets(vector.ct).into() };
            let open = |info: &[u8], aad: &[u8]| {
                Crypto.hpke_open(vector.suite.hpke_config(), &input, &pair.private, info, aad)
            };
            assert_eq!(open(b"Ode on a Grecian Urn", b"Count-0").unwrap(), b"Beauty is truth, truth beauty");
            assert!(open(b"Ode on a Grecian Urn", b"Count-1").is_err());
            assert!(open(b"Ode to a Grecian Urn", b"Count-0").is_err());
        }
    }

    #[test]
    fn bad_public_keys_are_refused() {
        for kem in [KemAlgorithm::DhKemP256, KemAlgorithm::DhKem25519] {
            let [a, b] = [[3; 32], [5; 32]];
            let public = |secret: &[u8]| HpkeAwsLc::secret_to_public(kem, secret).unwrap();
            let shared = HpkeAwsLc::dh(kem, &public(&b), &a).unwrap();
            assert_eq!(shared, HpkeAwsLc::dh(kem, &public(&a), &b).unwrap());
            assert_eq!(shared.len(), 32);
            for bad in [&[][..], &[0; 32], &[4; 65], &[0; 65]] {
                assert!(HpkeAwsLc::dh(kem, bad, &a).is_err(), "{kem:?} {bad:?}");
            }
        }
    }
}
