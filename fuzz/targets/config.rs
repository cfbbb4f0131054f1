//! Configuration files: any text is answered, twice in the same words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_config::parse;

fuzz_target!(|text: &str| {
    let read = || parse(text, "x.yaml", &|_: &str| None);
    match (read(), read()) {
        (Err(first), Err(second)) => {
            assert_eq!(first, second);
            assert!(first.report().to_string().ends_with('\n'));
        }
        (Ok(_), Ok(_)) => {}
        _ => panic!("two answers for one text"),
    }
});
