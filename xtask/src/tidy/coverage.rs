//! The coverage page names files and tests; what it names has to be there.

use crate::workspace::Workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The page, relative to the root.
const PAGE: &str = "docs/coverage.md";

/// What the page says between backticks that looks like a file, `file::test`, or `folder/`.
///
/// A folder counts from where it stands to the next heading: names without one are looked for there.
pub(super) fn rule(workspace: &Workspace, files: &[PathBuf], offences: &mut Vec<String>) -> Result<()> {
    let page = fs::read_to_string(workspace.root.join(PAGE)).context(PAGE)?;
    let mut folders: Vec<PathBuf> = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        if line.starts_with('#') {
            folders = vec![PathBuf::new()];
        }
        for name in line.split('`').skip(1).step_by(2) {
            if name.ends_with('/') {
                if !workspace.root.join(name).is_dir() {
                    offences.push(format!("{PAGE}:{number}: no folder {name}"));
                }
                folders.push(PathBuf::from(name));
            } else if let Some((path, item)) = reference(name) {
                let candidates: Vec<_> = folders.iter().map(|folder| folder.join(path)).collect();
                let mut there = candidates.iter().filter(|file| files.contains(file)).peekable();
                if there.peek().is_none() {
                    offences.push(format!("{PAGE}:{number}: no file {path}"));
                } else if !item.is_none_or(|item| there.any(|file| holds(&workspace.root.join(file), item))) {
                    offences.push(format!("{PAGE}:{number}: {name} is not there"));
                }
            }
        }
    }
    Ok(())
}

/// A file's name and what is named in it; `None` for any other word.
fn reference(name: &str) -> Option<(&str, Option<&str>)> {
    let (path, item) = name.split_once("::").map_or((name, None), |(path, item)| (path, Some(item)));
    let kind = Path::new(path).extension()?.to_str()?;
    (KINDS.contains(&kind) && !path.contains(' ')).then_some((path, item))
}

/// Whether a test of this name is in the file; anything that is no plain name only has to occur.
fn holds(file: &Path, item: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let is_name = item.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let is_rust = file.extension().is_some_and(|kind| kind == "rs");
    if is_rust && is_name { text.contains(&format!("fn {item}(")) } else { text.contains(item) }
}

/// What files are called that the page may name.
const KINDS: &[&str] = &["rs", "py", "md", "yaml", "txt", "json", "toml"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_tests_are_told_from_other_words() {
        assert_eq!(reference("a/b.rs"), Some(("a/b.rs", None)));
        assert_eq!(reference("b.rs::c_d"), Some(("b.rs", Some("c_d"))));
        assert_eq!(reference("x.py::some words"), Some(("x.py", Some("some words"))));
        assert_eq!(reference("cargo xtask tidy"), None);
        assert_eq!(reference("slimload"), None);
    }
}
