//! Where and when a run was made, and of which commit.

use crate::peers::slug;
use crate::workspace::Workspace;
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

/// The commit measured; `+` when files differ from it.
pub(super) fn commit(workspace: &Workspace) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(&workspace.root).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let sha = git(&["rev-parse", "--short=12", "HEAD"]);
    // Results of earlier runs do not make the code another one.
    let dirty = !git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!perf-results"]).is_empty();
    format!("{sha}{}", if dirty { "+" } else { "" })
}

/// The name under which a machine is known; a new one is written down.
pub(super) fn machine_name(workspace: &Workspace, machine: &Value) -> Result<String> {
    let text = |key: &str| machine[key].as_str().unwrap_or("").to_owned();
    let host = text("host");
    let name = if host.is_empty() || host == "unnamed" {
        let kind = if machine["virtual_machine"] == true { "vm" } else { "metal" };
        slug(&format!("{}cpu {} {kind}", machine["cpus"], text("cpu")))
    } else {
        slug(&host)
    };
    let path = workspace.root.join("perf-results/machines").join(format!("{name}.toml"));
    if !path.exists() {
        let mut out = String::from("# Written by `cargo xtask bench`.\n");
        out.push_str(&machine_toml(machine));
        fs::create_dir_all(workspace.root.join("perf-results/machines"))?;
        fs::write(path, out)?;
    }
    Ok(name)
}

/// A machine's block: plain values first, since whatever follows a table's head belongs to the table.
fn machine_toml(machine: &Value) -> String {
    let mut out = String::new();
    let fields = || machine.as_object().into_iter().flatten();
    for (key, value) in fields().filter(|(_, value)| !value.is_object()) {
        let _ = writeln!(out, "{key} = {value}");
    }
    for (key, table) in fields().filter_map(|(key, value)| Some((key, value.as_object()?))) {
        let _ = writeln!(out, "\n[{key}]");
        for (key, value) in table {
            let _ = writeln!(out, "{key} = {value}");
        }
    }
    out
}

/// A UTC date of seconds since 1970, as YYYY-MM-DD.
pub(super) fn date(unix_time: u64) -> String {
    // Days since 0000-03-01, in years that begin in March: the leap day comes last.
    let days = unix_time / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_164_800, "2024-02-29"),
            (1_735_689_599, "2024-12-31"),
        ] {
            assert_eq!(date(seconds), wanted);
        }
    }

    #[test]
    fn plain_values_stand_before_tables() {
        let text = machine_toml(&json!({"a": 1, "b": {"c": "d"}, "e": true}));
        assert_eq!(text, "a = 1\ne = true\n\n[b]\nc = \"d\"\n");
    }
}
