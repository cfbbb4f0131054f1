//! What an operator reads when a configuration is refused: what, where, and what to do about it.

use std::fmt;

/// A spot in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a configuration was refused.
///
/// Shape:  the step of the start that failed, a chain of causes (general to particular), the file, line, column and key
///         it happened at, and what to do.
/// `Display` is one line, for logs; [`ConfigError::report`] is the multi-line text for stderr.
/// The last cause is the text operators search for; it does not change between releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Box<Parts>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    step: &'static str,
    source_name: String,
    place: Option<Place>,
    path: String,
    causes: Vec<String>,
    help: Option<String>,
}

/// The steps of reading a configuration, in the order they happen.
pub(crate) mod step {
    pub(crate) const LOAD: &str = "failed to load configuration";
    pub(crate) const RUNTIME: &str = "invalid runtime configuration";
    pub(crate) const TRACING: &str = "invalid tracing configuration";
    pub(crate) const SLIMLINE: &str = "invalid slimline configuration";
    pub(crate) const SERVICES: &str = "error loading services";
}

impl ConfigError {
    /// What a process that stops for this error exits with.
    pub const EXIT_CODE: u8 = 1;

    pub(crate) fn new(place: Option<Place>, path: impl Into<String>, cause: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            step: step::LOAD,
            source_name: String::new(),
            place,
            path: path.into(),
            causes: vec![cause.into()],
            help: None,
        }))
    }

    /// Adds a more particular cause below the ones there are.
    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Says what the operator can do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    pub(crate) fn step(mut self, step: &'static str) -> Self {
        self.0.step = step;
        self
    }

    pub(crate) fn source_name(mut self, source_name: &str) -> Self {
        source_name.clone_into(&mut self.0.source_name);
        self
    }

    /// The line and column of the offending key or value; `None` when the file could not be read at all.
    pub fn place(&self) -> Option<Place> {
        self.0.place
    }

    /// The offending key, e.g. `services.slim/0.dataplane.servers[0].endpoint`; empty for the document as a whole.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The causes, general to particular; never empty.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        self.0.causes.iter().map(String::as_str)
    }

    /// What the operator can do about it, where that is known.
    pub fn advice(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The text for stderr, ending in a newline.
    ///
    /// Shape:  `Error: <step>`, a blank line, `Caused by:`, the causes (numbered when there are several), a blank line,
    ///         `at <file>:<line>:<column>, key <path>`, and `help: …` where there is one.
    pub fn report(&self) -> impl fmt::Display {
        Report(self)
    }

    fn location(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.source_name)?;
        match self.0.place {
            Some(place) => write!(f, ":{place}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location(f)?;
        let path_is_said = self.0.causes[0].starts_with(&self.0.path);
        if !path_is_said {
            write!(f, ": {}", self.0.path)?;
        }
        for cause in &self.0.causes {
            write!(f, ": {cause}")?;
        }
        if let Some(help) = &self.0.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

struct Report<'a>(&'a ConfigError);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.0.0;
        writeln!(f, "Error: {}\n\nCaused by:", parts.step)?;
        match &*parts.causes {
            [only] => writeln!(f, "    {only}")?,
            several => {
                for (index, cause) in several.iter().enumerate() {
                    writeln!(f, "{index:>5}: {cause}")?;
                }
            }
        }
        f.write_str("\nat ")?;
        self.0.location(f)?;
        if !parts.path.is_empty() {
            write!(f, ", key {}", parts.path)?;
        }
        writeln!(f)?;
        if let Some(help) = &parts.help {
            writeln!(f, "help: {help}")?;
        }
        Ok(())
    }
}

/// Something in a configuration that is accepted but probably not what its author meant.
///
/// Such files have to work (they work elsewhere), so this is for a WARN at start, not a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub(crate) source_name: String,
    pub(crate) place: Place,
    pub(crate) path: String,
    pub(crate) text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.source_name, self.place, self.path, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_numbers_causes_only_when_there_are_several() {
        let place = Place { line: 7, column: 19 };
        let one =
            ConfigError::new(Some(place), "foo", "invalid configuration - key foo not valid").source_name("a.yaml");
        assert_eq!(
            one.report().to_string(),
            "Error: failed to load configuration\n\nCaused by:\n    invalid configuration - key foo not valid\n\nat a.yaml:7:19, key foo\n"
        );
        let two = one.because("second").help("remove it");
        assert_eq!(
            two.report().to_string(),
            "Error: failed to load configuration\n\nCaused by:\n    0: invalid configuration - key foo not valid\n    1: second\n\n\
             at a.yaml:7:19, key foo\nhelp: remove it\n"
        );
        assert_eq!(two.to_string(), "a.yaml:7:19: foo: invalid configuration - key foo not valid: second (remove it)");
    }

    #[test]
    fn display_says_a_path_once() {
        let error = ConfigError::new(None, "a.b", "a.b: not supported yet").source_name("x.yaml");
        assert_eq!(error.to_string(), "x.yaml: a.b: not supported yet");
    }
}
