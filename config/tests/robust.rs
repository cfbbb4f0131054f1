//! Whatever the text, an answer comes back; and what is refused is refused in the same words twice.

use proptest::prelude::*;
use slimline_config::{EMBEDDED, parse};

const REFERENCE: &str = include_str!("../reference.yaml");

fn answer(text: &str) {
    let read = || parse(text, "x.yaml", &|_: &str| None);
    match (read(), read()) {
        (Err(first), Err(second)) => {
            assert_eq!(first, second);
            assert!(first.causes().next().is_some());
            assert!(first.report().to_string().ends_with('\n'));
            if let Some(place) = first.place() {
                assert!(place.line >= 1 && place.column >= 1);
                assert!(place.line as usize <= text.lines().count() + 1, "{place} of\n{text}");
            }
        }
        (Ok(first), Ok(_)) => assert!(!first.services.is_empty()),
        _ => panic!("two answers for one text"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in "\\PC{0,300}") {
        answer(&text);
    }

    /// A good file with one run of characters replaced reaches every block's reader.
    #[test]
    fn a_damaged_file(start in 0usize..15_000, length in 0usize..40, patch in "([a-z_]{0,5}|[0-9]{1,22}|: |- |\n|  |\\{|\\}|\\[|\\]|\\$\\{env:A\\}|~|'|\"|é)") {
        for good in [REFERENCE, EMBEDDED] {
            let characters: Vec<char> = good.chars().collect();
            let start = start % characters.len();
            let end = (start + length).min(characters.len());
            let text: String = characters[..start].iter().copied().chain(patch.chars()).chain(characters[end..].iter().copied()).collect();
            answer(&text);
        }
    }

    /// A good file with one value replaced by another type of value.
    #[test]
    fn a_wrong_value(line in 0usize..200, value in "(null|true|-1|0|16|5000000000|1e9|''|x|10s|\\[\\]|\\{\\}|\\[x\\]|\\{x: y\\}|99999999999999999999)") {
        let with_marks = REFERENCE.replace("#: ", "");
        for good in [REFERENCE, &with_marks, EMBEDDED] {
            let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
            let index = line % lines.len();
            if let Some((key, _)) = lines[index].split_once(": ") {
                lines[index] = format!("{key}: {value}");
            }
            answer(&(lines.join("\n") + "\n"));
        }
    }
}

/// What fuzzers found worth keeping, replayed.
#[test]
fn seeds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/config");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown when it panics
        if let Ok(text) = String::from_utf8(std::fs::read(&path).unwrap()) {
            answer(&text);
            count += 1;
        }
    }
    assert!(count >= 10, "{count} seeds in {}", folder.display());
}
