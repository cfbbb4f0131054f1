//! The header MAC against the `hmac` crate over the whole pre-image.

use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use slimline_wire::link::{HeaderMac, LinkKey};
use slimline_wire::message::parse;
use slimline_wire::testing::message::{compose, signs_what_prost_reads};

fn oracle(key: &[u8; 32], preimage: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(preimage);
    mac.finalize().into_bytes().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Few seeds and many messages on one link: flows are met again, evicted, and met again.
    #[test]
    fn tags_are_hmacs_of_the_pre_image(
        key: [u8; 32], link_id in ".{0,80}", seeds in prop::collection::vec(0..200_u64, 1..200)
    ) {
        let mut mac = HeaderMac::new(&LinkKey::from_octets(key), &link_id);
        for seed in seeds {
            if let Some((preimage, tag)) = signs_what_prost_reads(&compose(seed), &link_id, &mut mac) {
                prop_assert_eq!(oracle(&key, &preimage), tag.to_vec());
            }
        }
    }
}

/// Every length of pre-image around the block boundaries of SHA-256.
#[test]
fn every_padding_is_right() {
    let key = [9; 32];
    for link_id in ["", "0123456789", "6ae38e2a-7f7e-420f-a0ae-ea28d470aa97"] {
        let mut mac = HeaderMac::new(&LinkKey::from_octets(key), link_id);
        let octets = (0..).map(compose).find(|octets| parse(octets).unwrap().header().is_some()).unwrap();
        let view = parse(&octets).unwrap();
        let identity = "i".repeat(8192);
        for length in (0..300).chain([8191, 8192]) {
            let mut header = *view.header().unwrap();
            header.identity = &identity[..length];
            let mut preimage = Vec::new();
            let hop = slimline_wire::link::HopFields::Cleared;
            slimline_wire::link::preimage(link_id, &header, 7, hop, &mut preimage);
            assert_eq!(mac.tag(&header, 7, hop).as_slice(), oracle(&key, &preimage), "{length}");
        }
    }
}
