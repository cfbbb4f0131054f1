//! YAML text → a tree in which every key and value knows its line and column.
//!
//! The tree is bounded: a file may be hostile, or simply the wrong file. Plain scalars are typed by the YAML 1.2 core
//! schema, so `off` and `yes` are strings and only `true` and `false` are booleans.

use std::collections::BTreeMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::error::{ConfigError, Place};

/// Octets of the largest file that is read.
pub(crate) const FILE_OCTETS_MAX: usize = 4 << 20;
/// Nested lists and mappings at most, aliases included.
const DEPTH_MAX: usize = 64;
/// Keys and values at most, aliases included (an alias counts as what it stands for).
const NODES_MAX: usize = 100_000;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    /// As written: no key takes a fraction, so it is only ever shown.
    Float(String),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// The `${…}` the text came from. Its value may be a secret, so messages show this instead.
    pub(crate) reference: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// Parses a text that holds one YAML document; an empty text is `Null`.
///
/// Errors: syntax, several documents, a duplicate or composite key, an unknown tag, or a bound passed.
pub(crate) fn parse(text: &str) -> Result<Node, ConfigError> {
    if text.len() > FILE_OCTETS_MAX {
        return Err(refuse(None, format!("the file has {} octets, limit {FILE_OCTETS_MAX}", text.len())));
    }
    let mut tree = Tree::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| refuse(Some(place(error.marker())), error.info()))?;
        tree.event(event, place(&span.start))?;
    }
    Ok(tree.root.unwrap_or(Node { place: Place { line: 1, column: 1 }, value: Value::Null }))
}

/// The tree while it grows.
#[derive(Default)]
struct Tree {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchor>,
    nodes: usize,
    documents: usize,
}

/// A list or mapping whose end has not been seen.
struct Open {
    place: Place,
    anchor: usize,
    /// Nodes counted before this one, to size its anchor.
    nodes_before: usize,
    /// Levels below this one so far, itself included.
    depth: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key> },
}

/// An anchored node, ready to be copied where an alias names it.
struct Anchor {
    node: Node,
    nodes: usize,
    depth: usize,
}

impl Tree {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), ConfigError> {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(refuse(Some(place), "more than one YAML document in the file"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref(), place)?;
                self.count(1, place)?;
                let node = Node { place, value };
                if anchor != 0 {
                    self.anchors.insert(anchor, Anchor { node: node.clone(), nodes: 1, depth: 0 });
                }
                self.place(node, 0)
            }
            Event::SequenceStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), "seq", place)?;
                self.open(anchor, place, OpenKind::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), "map", place)?;
                self.open(anchor, place, OpenKind::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Err(refuse(Some(place), "an end without a start"));
                };
                let value = match open.kind {
                    OpenKind::List(items) => Value::List(items),
                    OpenKind::Map { entries, .. } => Value::Map(entries),
                };
                let node = Node { place: open.place, value };
                if open.anchor != 0 {
                    let nodes = self.nodes - open.nodes_before;
                    self.anchors.insert(open.anchor, Anchor { node: node.clone(), nodes, depth: open.depth });
                }
                self.place(node, open.depth)
            }
            Event::Alias(anchor) => {
                let Some(known) = self.anchors.get(&anchor) else {
                    return Err(refuse(Some(place), "an alias to something that is not complete yet"));
                };
                let (nodes, depth) = (known.nodes, known.depth);
                self.count(nodes, place)?; // before the copy is made
                let node = Node { place, value: self.anchors[&anchor].node.value.clone() };
                self.place(node, depth)
            }
            // Unresolved aliases, anchors and comments are events only when asked for.
            _ => Err(refuse(Some(place), "the YAML parser reports something unexpected")),
        }
    }

    fn open(&mut self, anchor: usize, place: Place, kind: OpenKind) -> Result<(), ConfigError> {
        let nodes_before = self.nodes;
        self.count(1, place)?;
        self.open.push(Open { place, anchor, nodes_before, depth: 1, kind });
        self.deepen(0, place)
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), ConfigError> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(refuse(Some(place), format!("more than {NODES_MAX} keys and values")));
        }
        Ok(())
    }

    /// Checks the depth a node of `depth` levels reaches where the tree now stands.
    fn deepen(&self, depth: usize, place: Place) -> Result<(), ConfigError> {
        if self.open.len() + depth > DEPTH_MAX {
            return Err(refuse(Some(place), format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(())
    }

    /// Puts a complete node where it belongs: as key, value, item or root.
    fn place(&mut self, node: Node, depth: usize) -> Result<(), ConfigError> {
        self.deepen(depth, node.place)?;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.depth = open.depth.max(depth + 1);
        match &mut open.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Map { entries, key: pending } => match pending.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let place = node.place;
                    let Some(text) = key_text(node.value) else {
                        return Err(refuse(Some(place), "a key must be a plain word or a string"));
                    };
                    if entries.iter().any(|(key, _)| key.text == text) {
                        return Err(refuse(Some(place), format!("duplicate entry with key {text:?}")));
                    }
                    *pending = Some(Key { place, text });
                }
            },
        }
        Ok(())
    }
}

fn key_text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.text),
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(text) => Some(text),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// Types a scalar: by its tag, else by its spelling when it stands unquoted.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<Value, ConfigError> {
    let as_text = || Value::Text(Text { text: text.to_owned(), reference: None });
    if let Some(tag) = tag {
        if tag.original() == "!" {
            return Ok(as_text()); // the non-specific tag
        }
        return match (tag.core_suffix(), plain(text)) {
            (Some("str"), _) => Ok(as_text()),
            (Some("null"), Some(value @ Value::Null))
            | (Some("bool"), Some(value @ Value::Bool(_)))
            | (Some("int"), Some(value @ Value::Int(_)))
            | (Some("float"), Some(value @ (Value::Int(_) | Value::Float(_)))) => Ok(value),
            _ => Err(misplaced(tag, place)),
        };
    }
    match style {
        ScalarStyle::Plain => Ok(plain(text).unwrap_or_else(as_text)),
        _ => Ok(as_text()),
    }
}

/// What an unquoted scalar means, unless it is text.
///
/// Source: YAML 1.2.2 §10.3.2, without numbers that start with a needless zero: those stay text.
fn plain(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => {
            return Some(Value::Float(text.into()));
        }
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None; // also keeps `inf`, `nan` and a second sign away from the number parsers
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let all_digits = digits.chars().all(|digit| digit.is_digit(radix));
            return i128::from_str_radix(digits, radix).ok().filter(|_| all_digits).map(Value::Int);
        }
    }
    let needless_zero = unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit();
    if needless_zero {
        return None;
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or_else(|_| Value::Float(text.to_owned()), Value::Int));
    }
    text.parse::<f64>().is_ok().then(|| Value::Float(text.to_owned()))
}

fn core_tag(tag: Option<&Tag>, wanted: &str, place: Place) -> Result<(), ConfigError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(wanted) => Err(misplaced(tag, place)),
        _ => Ok(()),
    }
}

fn misplaced(tag: &Tag, place: Place) -> ConfigError {
    refuse(Some(place), format!("the tag `{}` cannot be applied here", tag.original()))
}

fn refuse(place: Option<Place>, cause: impl Into<String>) -> ConfigError {
    ConfigError::new(place, "", "yaml parse error").because(cause)
}

fn place(marker: &Marker) -> Place {
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Place { line: narrow(marker.line()), column: narrow(marker.col()).saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(text) => format!("float {text}"),
            Value::Text(text) => format!("{:?}", text.text),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(key, node)| format!("{}={}", key.text, show(node))).collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    fn read(text: &str) -> String {
        match parse(text) {
            Ok(node) => show(&node),
            Err(error) => error.causes().last().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    #[rustfmt::skip]
    fn scalars() {
        assert_eq!(read("[~, null, '', a]"),              r#"[null null "" "a"]"#);
        assert_eq!(read("[true, False, yes, off, 'true']"), r#"[true false "yes" "off" "true"]"#);
        assert_eq!(read("[1, -2, +3, 0x1f, 0o17, 010, 0]"), r#"[1 -2 3 31 15 "010" 0]"#);
        assert_eq!(read("[1.5, .inf, 1e3, inf, nan, +-1, .]"), r#"[float 1.5 float .inf float 1e3 "inf" "nan" "+-1" "."]"#);
        assert_eq!(read("[0x, 0x-1, 0o8, 0x+1]"),         r#"["0x" "0x-1" "0o8" "0x+1"]"#);
        assert_eq!(read("[!!str 5, !!int 5, !!bool true]"), r#"["5" 5 true]"#);
        assert_eq!(read("!!int x"),                       "the tag `!!int` cannot be applied here");
        assert_eq!(read("!secret x"),                     "the tag `!secret` cannot be applied here");
        assert_eq!(read("! 5"),                           r#""5""#);
        assert_eq!(read("a: 10s\nb: 0.0.0.0:46357"),      r#"{a="10s" b="0.0.0.0:46357"}"#);
        assert_eq!(read("340282366920938463463374607431768211456"), "float 340282366920938463463374607431768211456");
    }

    #[test]
    #[rustfmt::skip]
    fn structure() {
        assert_eq!(read(""),                   "null");
        assert_eq!(read("# only a comment\n"), "null");
        assert_eq!(read("a: &x {b: 1}\nc: *x"), "{a={b=1} c={b=1}}");
        assert_eq!(read("a: 1\na: 2"),         r#"duplicate entry with key "a""#);
        assert_eq!(read("a: 1\n---\nb: 2"),    "more than one YAML document in the file");
        assert_eq!(read("[a]: 1"),             "a key must be a plain word or a string");
        assert_eq!(read("1: x\ntrue: y"),      r#"{1="x" true="y"}"#);
    }

    #[test]
    fn places_are_lines_and_columns_from_one() {
        let node = parse("a:\n  - b: x\n").expect("valid");
        let Value::Map(entries) = &node.value else { panic!("a mapping") };
        let Value::List(items) = &entries[0].1.value else { panic!("a list") };
        let Value::Map(inner) = &items[0].value else { panic!("a mapping") };
        assert_eq!(inner[0].0.place, Place { line: 2, column: 5 });
        assert_eq!(inner[0].1.place, Place { line: 2, column: 8 });
        assert_eq!(parse("a: 1\nb: ]").expect_err("no start").place().map(|place| place.line), Some(2));
    }

    #[test]
    fn bounds_hold() {
        assert_eq!(read(&("[".repeat(65) + &"]".repeat(65))), "nested deeper than 64 levels");
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..20 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert_eq!(read(&laughs), "more than 100000 keys and values");
        let mut tower = String::from("a0: &a0 [x]\n");
        for level in 1..70 {
            tower.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert_eq!(read(&tower), "nested deeper than 64 levels");
        assert_eq!(read("a: &a [*a]"), "an alias to something that is not complete yet");
        assert!(read(&" ".repeat(FILE_OCTETS_MAX + 1)).starts_with("the file has"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}") { let _ = parse(&text); }

        /// Text made of what YAML is made of gets further into the parser than random characters.
        #[test]
        fn never_panics_on_yaml_like_text(text in "([a-c]|: |- |\n|  |\\[|\\]|\\{|\\}|&a|\\*a|!!str |'|\"|\\||>|#|~|,|\\?|---|\t|é){0,60}") {
            let _ = parse(&text);
        }
    }
}
