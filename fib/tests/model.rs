//! Random histories against plain maps; the checks themselves are in `src/testing.rs`, where fuzz targets find them too.

use proptest::collection::vec;
use proptest::prelude::*;
use slimline_fib::testing::check_history;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replicas_and_rib_agree_with_plain_maps(bytes in vec(any::<u8>(), 0..1_200)) {
        check_history(&bytes);
    }
}

/// Enough for each commit; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}
