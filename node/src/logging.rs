//! Log lines as SLIM operators know them: one per event on stdout, level and target filters, `RUST_LOG` over all.

use slimline_config::Tracing;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// Installs the log subscriber of this process.
///
/// Source: slim-config §3. Colours appear only on a terminal, and never with `NO_COLOR`.
pub fn install(tracing: &Tracing, env: &impl Fn(&str) -> Option<String>) {
    let colours = std::io::stdout().is_terminal() && env("NO_COLOR").is_none_or(|value| value.is_empty());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter(tracing, env("RUST_LOG")))
        .with_timer(SystemTime)
        .with_thread_names(tracing.display_thread_names)
        .with_thread_ids(tracing.display_thread_ids)
        .with_line_number(true)
        .with_ansi(colours)
        .try_init();
}

fn filter(tracing: &Tracing, rust_log: Option<String>) -> EnvFilter {
    EnvFilter::builder().parse_lossy(directives(tracing, rust_log))
}

/// The filter as text: `RUST_LOG` wins and is complete; else the configured level for everything, then `filters`.
fn directives(tracing: &Tracing, rust_log: Option<String>) -> String {
    if let Some(text) = rust_log.filter(|text| !text.trim().is_empty()) {
        let has_level =
            text.split(',').any(|item| !item.contains('=') && item.trim().parse::<tracing::Level>().is_ok())
                || text.split(',').any(|item| item.trim() == "off");
        return if has_level { text } else { format!("{text},off") };
    }
    let level = tracing.log_level.as_str();
    let mut text = level.to_owned();
    for filter in tracing.filters.iter().flatten() {
        text.push(',');
        text.push_str(filter);
        if !filter.contains('=') {
            text.push('=');
            text.push_str(level);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use slimline_config::LogLevel;

    #[test]
    fn what_decides_what_is_logged() {
        let tracing = |filters: Option<&[&str]>| Tracing {
            log_level: LogLevel::Info,
            display_thread_names: true,
            display_thread_ids: false,
            filters: filters.map(|filters| filters.iter().map(|&filter| filter.to_owned()).collect()),
        };
        assert_eq!(directives(&tracing(None), None), "info");
        assert_eq!(directives(&tracing(Some(&["a", "b=debug"])), None), "info,a=info,b=debug");
        assert_eq!(directives(&tracing(None), Some("slimline=debug".into())), "slimline=debug,off");
        assert_eq!(directives(&tracing(None), Some("debug".into())), "debug");
        assert_eq!(directives(&tracing(None), Some(String::new())), "info");
    }
}
