//! Just enough Rust lexing to tell code from comments and literals.

/// The numbers (from 1) of lines whose code, not comments or literals, holds `word` as a whole word.
pub(super) fn lines_with_word(text: &str, word: &str) -> Vec<usize> {
    let code = code_only(text);
    (1..).zip(code.lines()).filter(|(_, line)| has_word(line, word)).map(|(number, _)| number).collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

/// The text with comments and literals blanked; line breaks stay where they are.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == 'r' && !code.ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            raw_string(rest).unwrap_or(0)
        } else if first == '\'' {
            char_literal(rest).unwrap_or(0)
        } else {
            0
        };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (blanked, after) = rest.split_at(length);
            code.extend(blanked.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
        }
    }
    code
}

/// Length of the block comment at the front; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the literal at the front, up to its unescaped closing quote.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + c.len_utf8();
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

/// Length of the raw string at the front, if it is one.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|&b| b == b'#').count();
    let open = 1 + hashes;
    if text.as_bytes().get(open) != Some(&b'"') {
        return None; // an identifier, raw or not
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let end = text[open + 1..].find(&close)?;
    Some(open + 1 + end + close.len())
}

/// Length of the character literal at the front; `None` for a lifetime.
fn char_literal(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        return Some(quoted(text, '\''));
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_word_is_found_in_code_only() {
        let found = |text: &str| !lines_with_word(text, "unsafe").is_empty();
        assert!(found("unsafe { x() }"));
        assert!(found("let c = 'u'; unsafe fn f<'a>() {}"));
        assert!(found("/* why /* nested */ */ unsafe impl Send for X {}"));
        assert!(found("let s = \"a \\\" b\"; unsafe { x() }"));
        assert!(found("let r = r#\"a \" b\"#; unsafe { x() }"));
        assert!(!found("#![forbid(unsafe_code)]"));
        assert!(!found("// unsafe is a word"));
        assert!(!found("let s = \"unsafe\";"));
        assert!(!found("let s = r\"unsafe \\\";"));
        assert!(!found("let s = '\"'; let t = \"unsafe\";"));
    }

    #[test]
    fn lines_are_counted_through_blanked_text() {
        assert_eq!(lines_with_word("/*\n*/\n\"\n\"\nunsafe {}", "unsafe"), [5]);
    }
}
