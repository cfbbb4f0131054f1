//! A failure as it is shown on stderr.

use std::error::Error;
use std::fmt;

/// The context, then the chain of causes (slim-config §1).
pub(crate) struct Failure {
    report: Option<String>,
    context: String,
    causes: Vec<String>,
}

impl Failure {
    pub(crate) fn new(context: impl Into<String>) -> Self {
        Self { report: None, context: context.into(), causes: Vec::new() }
    }

    /// A report that is complete as it stands.
    pub(crate) fn report(text: String) -> Self {
        Self { report: Some(text), context: String::new(), causes: Vec::new() }
    }

    /// `error` and everything behind it become the causes.
    pub(crate) fn because(context: impl Into<String>, error: &dyn Error) -> Self {
        let mut causes = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            causes.push(error.to_string());
            next = error.source();
        }
        Self { report: None, context: context.into(), causes }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(report) = &self.report {
            return writeln!(f, "{}", report.trim_end());
        }
        writeln!(f, "Error: {}", self.context)?;
        if let [only] = self.causes.as_slice() {
            write!(f, "\nCaused by:\n    {only}\n")?;
        } else if !self.causes.is_empty() {
            writeln!(f, "\nCaused by:")?;
            for (index, cause) in self.causes.iter().enumerate() {
                writeln!(f, "    {index}: {cause}")?;
            }
        }
        Ok(())
    }
}
