//! Typed reading of one mapping: which keys it may have, and what type each value is.

use std::time::Duration;

use crate::duration::parse_duration;
use crate::error::{ConfigError, Place, Warning};
use crate::yaml::{Key, Node, Value};

/// A value, and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
    pub(crate) path: String,
}

impl<T> At<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), place: self.place, path: self.path }
    }

    pub(crate) fn refuse(&self, cause: impl Into<String>) -> ConfigError {
        ConfigError::new(Some(self.place), self.path.clone(), cause)
    }

    /// What is configured is valid, but this release does not do it.
    pub(crate) fn not_supported(&self) -> ConfigError {
        self.refuse(format!("{}: not supported yet", self.path)).help("remove the key to use its default")
    }

    pub(crate) fn warn(&self, text: impl Into<String>, warnings: &mut Vec<Warning>) {
        warnings.push(Warning {
            source_name: String::new(),
            place: self.place,
            path: self.path.clone(),
            text: text.into(),
        });
    }
}

/// What happens to a key that a block does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Refused,
    /// Ignored, with a warning: files in the field carry stale keys in these blocks.
    Ignored,
}

/// One mapping; an absent or null one has no entries.
pub(crate) struct Block<'n> {
    pub(crate) place: Place,
    pub(crate) path: String,
    entries: &'n [(Key, Node)],
}

impl<'n> Block<'n> {
    /// Opens `node` as a mapping with these keys.
    pub(crate) fn open(
        node: At<&'n Node>,
        unknown: Unknown,
        keys: &[&str],
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let entries = match &node.value.value {
            Value::Map(entries) => &**entries,
            Value::Null => &[],
            other => return Err(node.refuse(format!("invalid type: {}, expected a map", describe(other)))),
        };
        for (key, _) in entries.iter().filter(|(key, _)| !keys.contains(&&*key.text)) {
            let at = At { value: (), place: key.place, path: join(&node.path, &key.text) };
            match unknown {
                Unknown::Refused => {
                    let refused = at.refuse(format!("unknown field `{}`, expected {}", key.text, one_of(keys)));
                    return Err(match renamed(&key.text) {
                        Some(now) if keys.contains(&now) => refused.help(format!("the key is called `{now}` now")),
                        _ => refused.help("remove the key or correct its spelling"),
                    });
                }
                Unknown::Ignored => at.warn("this key is not known and has no effect", warnings),
            }
        }
        Ok(Self { place: node.place, path: node.path, entries })
    }

    /// Opens the mapping under `key`; an absent one is empty.
    pub(crate) fn block(
        &self,
        key: &str,
        unknown: Unknown,
        keys: &[&str],
        warnings: &mut Vec<Warning>,
    ) -> Result<Block<'n>, ConfigError> {
        match self.node(key) {
            Some(node) => Block::open(node, unknown, keys, warnings),
            None => Ok(Block { place: self.place, path: join(&self.path, key), entries: &[] }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The block itself as a located thing, to refuse or warn about.
    pub(crate) fn at<T>(&self, value: T) -> At<T> {
        At { value, place: self.place, path: self.path.clone() }
    }

    /// Every entry, in the order of the file.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (At<&'n str>, At<&'n Node>)> {
        self.entries.iter().map(|(key, node)| {
            let path = join(&self.path, &key.text);
            (
                At { value: &*key.text, place: key.place, path: path.clone() },
                At { value: node, place: node.place, path },
            )
        })
    }

    /// The value under `key`; null counts as absent.
    pub(crate) fn node(&self, key: &str) -> Option<At<&'n Node>> {
        let (_, node) = self.entries.iter().find(|(entry, _)| entry.text == key)?;
        if node.value == Value::Null {
            return None;
        }
        Some(At { value: node, place: node.place, path: join(&self.path, key) })
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<At<T>>, ConfigError> {
        self.node(key).map(|node| typed(node, expected, convert)).transpose()
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<At<String>>, ConfigError> {
        self.typed(key, "a string", as_text)
    }

    /// A string that messages must not show, whatever it turns out to be.
    pub(crate) fn secret(&self, key: &str) -> Result<Option<At<String>>, ConfigError> {
        let Some(node) = self.node(key) else { return Ok(None) };
        match as_text(&node.value.value) {
            Some(text) => Ok(Some(node.map(|_| text))),
            None => Err(node.refuse("invalid type: expected a string").help("put the value in quotes")),
        }
    }

    pub(crate) fn required(&self, key: &str) -> Result<At<String>, ConfigError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn missing(&self, key: &str) -> ConfigError {
        self.at(()).refuse(format!("missing field `{key}`"))
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<At<bool>>, ConfigError> {
        self.typed(key, "a boolean", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A whole number that fits `T`.
    pub(crate) fn unsigned<T: TryFrom<i128>>(&self, key: &str) -> Result<Option<At<T>>, ConfigError> {
        let expected = std::any::type_name::<T>();
        let Some(number) = self.typed(key, expected, |value| match value {
            Value::Int(value) => Some(*value),
            _ => None,
        })?
        else {
            return Ok(None);
        };
        match T::try_from(number.value) {
            Ok(value) => Ok(Some(number.map(|_| value))),
            Err(_) => Err(number.refuse(format!("invalid value: integer `{}`, expected {expected}", number.value))),
        }
    }

    pub(crate) fn duration(&self, key: &str) -> Result<Option<At<Duration>>, ConfigError> {
        let Some(node) = self.node(key) else { return Ok(None) };
        let help = "write a number and a unit, such as \"10s\" or \"1m30s\"; units are ns us ms s m h d w y";
        let text = typed(node.clone(), "a duration string", as_text).map_err(|error| error.help(help))?;
        match parse_duration(&text.value) {
            Ok(value) => Ok(Some(text.map(|_| value))),
            Err(reason) => {
                let quotes_the_file = shown(&node.value.value) == text.value;
                let cause = format!("invalid duration {:?}", shown(&node.value.value));
                let refused = text.refuse(cause).help(help);
                Err(if quotes_the_file { refused.because(reason) } else { refused })
            }
        }
    }

    /// A size: a number of octets, or a string with a unit such as `4 MiB`.
    pub(crate) fn octets(&self, key: &str) -> Result<Option<At<u64>>, ConfigError> {
        let read = |value: &Value| match value {
            Value::Int(octets) => u64::try_from(*octets).ok(),
            Value::Text(text) => parse_octets(&text.text),
            _ => None,
        };
        let help = "write a number of octets, or a string with a unit: 65536, \"64 KiB\", \"4 MiB\", \"1 GiB\"";
        self.typed(key, "a size in octets", read).map_err(|error| error.help(help))
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<At<T>>, ConfigError> {
        self.node(key).map(|node| find_word(node, words)).transpose()
    }

    pub(crate) fn list(&self, key: &str) -> Result<Vec<At<&'n Node>>, ConfigError> {
        let Some(node) = self.node(key) else { return Ok(Vec::new()) };
        match &node.value.value {
            Value::List(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, item)| At { value: item, place: item.place, path: format!("{}[{index}]", node.path) })
                .collect()),
            other => Err(node.refuse(format!("invalid type: {}, expected a sequence", describe(other)))),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<At<String>>, ConfigError> {
        self.list(key)?.into_iter().map(|item| typed(item, "a string", as_text)).collect()
    }

    pub(crate) fn words<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Vec<T>, ConfigError> {
        self.list(key)?.into_iter().map(|item| Ok(find_word(item, words)?.value)).collect()
    }

    /// A mapping with keys of any name.
    pub(crate) fn free_map(&self, key: &str) -> Result<Vec<At<&'n Node>>, ConfigError> {
        let Some(node) = self.node(key) else { return Ok(Vec::new()) };
        match &node.value.value {
            Value::Map(entries) => Ok(entries
                .iter()
                .map(|(entry, item)| At { value: item, place: item.place, path: join(&node.path, &entry.text) })
                .collect()),
            other => Err(node.refuse(format!("invalid type: {}, expected a map", describe(other)))),
        }
    }

    /// The keys of the mapping under `key`, in the order of the file.
    pub(crate) fn keys(&self, key: &str) -> Vec<String> {
        match self.node(key).map(|node| &node.value.value) {
            Some(Value::Map(entries)) => entries.iter().map(|(entry, _)| entry.text.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// A mapping of strings.
    pub(crate) fn text_map(&self, key: &str) -> Result<Vec<At<String>>, ConfigError> {
        self.free_map(key)?.into_iter().map(|item| typed(item, "a string", as_text)).collect()
    }
}

/// `a.b` from `a` and `b`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn typed<T>(node: At<&Node>, expected: &str, convert: impl FnOnce(&Value) -> Option<T>) -> Result<At<T>, ConfigError> {
    match convert(&node.value.value) {
        Some(value) => Ok(node.map(|_| value)),
        None => Err(node.refuse(format!("invalid type: {}, expected {expected}", describe(&node.value.value)))),
    }
}

fn find_word<T: Copy>(node: At<&Node>, words: &[(&str, T)]) -> Result<At<T>, ConfigError> {
    let text = typed(node.clone(), "a string", as_text)?;
    match words.iter().find(|(word, _)| *word == text.value) {
        Some((_, value)) => Ok(text.map(|_| *value)),
        None => {
            let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let expected = one_of(&names);
            Err(text.refuse(format!("unknown variant `{}`, expected {expected}", shown(&node.value.value))))
        }
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.text.clone()),
        _ => None,
    }
}

fn parse_octets(text: &str) -> Option<u64> {
    let end = text.find(|character: char| !character.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    let unit_octets = match unit.trim() {
        "octets" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit_octets)
}

/// A text as messages show it: what came out of a reference is shown as the reference.
fn shown(value: &Value) -> &str {
    match value {
        Value::Text(text) => text.reference.as_ref().unwrap_or(&text.text),
        _ => "",
    }
}

/// How messages show a value. What came out of a reference is shown as the reference.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "unit value".into(),
        Value::Bool(value) => format!("boolean `{value}`"),
        Value::Int(value) => format!("integer `{value}`"),
        Value::Float(text) => format!("floating point `{text}`"),
        Value::Text(_) => format!("string {:?}", shown(value)),
        Value::List(_) => "sequence".into(),
        Value::Map(_) => "map".into(),
    }
}

/// `` `a` ``, `` `a` or `b` ``, ``one of `a`, `b`, `c` ``.
fn one_of(words: &[&str]) -> String {
    match words {
        [only] => format!("`{only}`"),
        [first, second] => format!("`{first}` or `{second}`"),
        several => {
            let quoted: Vec<_> = several.iter().map(|word| format!("`{word}`")).collect();
            format!("one of {}", quoted.join(", "))
        }
    }
}

/// Keys of older releases and of tutorials, and what they are called now.
fn renamed(key: &str) -> Option<&'static str> {
    match key {
        "pubsub" => Some("dataplane"),
        "filter" => Some("filters"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_octets("4 MiB"), Some(4 << 20));
        assert_eq!(parse_octets("64KiB"), Some(64 << 10));
        assert_eq!(parse_octets("1 GiB"), Some(1 << 30));
        assert_eq!(parse_octets("7 octets"), Some(7));
        assert_eq!(parse_octets("7"), None);
        assert_eq!(parse_octets("4 MB"), None);
        assert_eq!(parse_octets("99999999999 GiB"), None);
        assert_eq!(parse_octets("MiB"), None);
    }

    #[test]
    fn expected_words() {
        assert_eq!(one_of(&["a"]), "`a`");
        assert_eq!(one_of(&["a", "b"]), "`a` or `b`");
        assert_eq!(one_of(&["a", "b", "c"]), "one of `a`, `b`, `c`");
    }
}
