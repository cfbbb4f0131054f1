//! The recordings in `vectors/`, message by message.

use serde_json::Value;

/// Every message of every recording: where it is from, and its octets.
pub(crate) fn recorded_messages() -> Vec<(String, Vec<u8>)> {
    let mut messages = Vec::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = std::fs::read_to_string(&path).unwrap();
            for (index, line) in text.lines().enumerate() {
                let line: Value = serde_json::from_str(line).unwrap();
                if line.get("kind").is_some() {
                    messages.push((format!("{}:{}", path.display(), index + 1), octets(&line["hex"])));
                }
            }
        }
    }
    assert!(messages.len() > 100, "recordings are missing");
    messages
}

/// What a hexadecimal string stands for.
pub(crate) fn octets(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len() / 2).map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap()).collect()
}
