//! `${env:NAME}` and `${file:PATH}`: values that live outside the file.
//!
//! They are resolved after parsing and before typing, on whole string values only: a key, a part of a string, or a value
//! that came out of a reference is never looked at. The result is always a string, whatever it looks like.

use crate::block::join;
use crate::error::{ConfigError, Warning};
use crate::yaml::{Node, Text, Value};

/// Replaces every reference in `node` and below.
///
/// Errors: an unset variable, an unreadable file, an unknown provider, each with the key's path and place.
pub(crate) fn resolve(
    node: &mut Node,
    path: &str,
    env: &impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<Warning>,
) -> Result<(), ConfigError> {
    match &mut node.value {
        Value::Text(text) => {
            let Some(inner) = text.text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
                return Ok(());
            };
            let failed = || ConfigError::new(Some(node.place), path, "config provider error");
            let value = match inner.split_once(':') {
                Some(("env", name)) => env(name).ok_or_else(|| {
                    failed()
                        .because("environment variable error")
                        .because("environment variable not found")
                        .help(format!("set {name} in the environment the node is started with"))
                })?,
                Some(("file", file)) => {
                    let value = std::fs::read_to_string(file).map_err(|error| {
                        failed()
                            .because(format!("file error: {file}"))
                            .because(error.to_string())
                            .help("the file has to be readable by the node's user and hold UTF-8 text")
                    })?;
                    if value.ends_with('\n') {
                        warnings.push(Warning {
                            source_name: String::new(),
                            place: node.place,
                            path: path.to_owned(),
                            text: format!("{file} ends with a newline, which is part of the value"),
                        });
                    }
                    value
                }
                _ => {
                    return Err(failed().because(format!("{} not found", text.text)).help(
                        "only ${env:NAME} and ${file:PATH} are known; a reference is the whole value, never a part of it",
                    ));
                }
            };
            let reference = std::mem::replace(&mut text.text, value);
            *text = Text { text: std::mem::take(&mut text.text), reference: Some(reference) };
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                resolve(item, &format!("{path}[{index}]"), env, warnings)?;
            }
        }
        Value::Map(entries) => {
            for (key, item) in entries {
                resolve(item, &join(path, &key.text), env, warnings)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    fn run(text: &str) -> Result<Value, String> {
        let mut node = yaml::parse(text).expect("valid YAML");
        let env = |name: &str| match name {
            "A" => Some("alpha".to_owned()),
            "NESTED" => Some("${env:A}".to_owned()),
            "" => Some("nameless".to_owned()),
            _ => None,
        };
        resolve(&mut node, "", &env, &mut Vec::new()).map_err(|error| error.to_string())?;
        let Value::Map(mut entries) = node.value else { panic!("a mapping") };
        Ok(entries.remove(0).1.value)
    }

    fn text(text: &str, reference: Option<&str>) -> Result<Value, String> {
        Ok(Value::Text(Text { text: text.to_owned(), reference: reference.map(str::to_owned) }))
    }

    #[test]
    #[rustfmt::skip]
    fn table() {
        assert_eq!(run("k: ${env:A}"),      text("alpha", Some("${env:A}")));
        assert_eq!(run("k: '${env:A}'"),    text("alpha", Some("${env:A}")));
        assert_eq!(run("k: ${env:}"),       text("nameless", Some("${env:}")));
        assert_eq!(run("k: x${env:A}"),     text("x${env:A}", None));          // no embedding
        assert_eq!(run("k: '${env:A} '"),   text("${env:A} ", None));
        assert_eq!(run("k: ${env:NESTED}"), text("${env:A}", Some("${env:NESTED}"))); // once, not again
        assert_eq!(run("${env:A}: v"),      text("v", None));                  // keys are left alone
        assert_eq!(run("k: 5"),             Ok(Value::Int(5)));
        let refused = |line| run(line).expect_err("refused");
        assert!(refused("k: ${env:B}").contains(": k: config provider error: environment variable error: environment variable not found"));
        assert!(refused("k: [{x: '${env:B}'}]").contains(": k[0].x: "));
        assert!(refused("k: ${vault:B}").contains("${vault:B} not found"));
        assert!(refused("k: ${A}").contains("${A} not found"));
        assert!(refused("k: '${}'").contains("${} not found"));
        assert!(refused("k: ${file:/no/such/file}").contains("file error: /no/such/file: No such file or directory (os error 2)"));
    }

    #[test]
    fn file_content_is_taken_verbatim_and_its_newline_is_pointed_out() {
        let path = std::env::temp_dir().join(format!("slimline-reference-{}", std::process::id()));
        std::fs::write(&path, "secret\n").expect("temporary file");
        let mut node = yaml::parse(&format!("k: ${{file:{}}}", path.display())).expect("valid YAML");
        let mut warnings = Vec::new();
        let result = resolve(&mut node, "", &|_: &str| None, &mut warnings);
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(result, Ok(()));
        let Value::Map(entries) = &node.value else { panic!("a mapping") };
        let Value::Text(text) = &entries[0].1.value else { panic!("text") };
        assert_eq!(text.text, "secret\n");
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].path, "k");
    }
}
