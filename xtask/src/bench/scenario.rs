//! What this program has to know of a scenario file; the load generator checks the rest.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// One measurement of a scenario file.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) file: PathBuf,
    /// The command it runs.
    pub(crate) command: String,
    /// Its label; a file without cases is one measurement.
    pub(crate) label: Option<String>,
    /// How long it takes against one node, about.
    pub(crate) seconds: f64,
}

/// Names a node takes in a second while a storm of subscriptions goes on, about: to say how long it will take.
const SUBSCRIPTIONS_PER_S: f64 = 150_000.0;
/// Connections a generator opens in a second, about.
const CONNECTIONS_PER_S: f64 = 3_000.0;
/// What starting and stopping takes.
const AROUND_S: f64 = 0.4;

impl Case {
    /// The cases of a file, in order; only those called one of `wanted`, if any are.
    ///
    /// Errors: the file is none, or a wanted case is not in it.
    pub(crate) fn read(file: &Path, wanted: &[String]) -> Result<Vec<Self>> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let scenario: Value = toml::from_str(&text).with_context(|| file.display().to_string())?;
        let command = scenario["command"].as_str().unwrap_or_default().to_owned();
        let case = |label: Option<String>, options: &Value| Self {
            file: file.to_owned(),
            command: command.clone(),
            label,
            seconds: seconds(options, &scenario["options"]),
        };
        let mut cases = Vec::new();
        for one in scenario["cases"].as_array().into_iter().flatten() {
            let label = one["label"].as_str().context("a case without a label")?;
            cases.push(case(Some(label.to_owned()), &one["options"]));
        }
        if cases.is_empty() {
            cases.push(case(None, &Value::Null));
        }
        for wanted in wanted {
            let is_there = cases.iter().any(|case| case.is_called(wanted));
            ensure!(is_there, "no case of {} is called `{wanted}`", file.display());
        }
        cases.retain(|case| wanted.is_empty() || wanted.iter().any(|wanted| case.is_called(wanted)));
        Ok(cases)
    }

    /// Whether the words name this case: its label, or a part of it; a file without cases answers to anything.
    fn is_called(&self, words: &str) -> bool {
        self.label.as_ref().is_none_or(|label| label.contains(words))
    }

    /// The file's name without its ending.
    pub(crate) fn stem(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn seconds(options: &Value, below: &Value) -> f64 {
    let of = |key: &str| options.get(key).or_else(|| below.get(key));
    let number = |key: &str, default: f64| of(key).and_then(Value::as_f64).unwrap_or(default);
    let count = |key: &str| of(key).and_then(Value::as_array).map_or(0, Vec::len);
    // Shares of the capacity need a closed window before them.
    let steps = if count("load") > 0 { count("load") + 1 } else { count("rate").max(1) };
    let each = number("duration", 5.0) + number("warmup", 1.0);
    let before = number("names", 0.0) / SUBSCRIPTIONS_PER_S + number("connections", 0.0) / CONNECTIONS_PER_S;
    AROUND_S + before + each * f64::from(u32::try_from(steps).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/scenarios");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect()
    }

    /// The generator picks cases by a part of their label: no label may be a part of another.
    #[test]
    fn a_label_names_one_case() {
        for file in shipped() {
            let cases = Case::read(&file, &[]).unwrap();
            for case in &cases {
                let Some(label) = &case.label else { continue };
                let named = cases.iter().filter(|other| other.is_called(label)).count();
                assert_eq!(named, 1, "{}: {label}", file.display());
            }
        }
    }

    #[test]
    fn ladders_take_as_long_as_their_steps() {
        let options = serde_json::json!({"duration": 2.0, "warmup": 0.5, "load": [0.1, 0.5]});
        assert!((seconds(&Value::Null, &options) - 7.9).abs() < 1e-9);
        assert!((seconds(&serde_json::json!({"warmup": 0.0}), &options) - 6.4).abs() < 1e-9);
    }
}
