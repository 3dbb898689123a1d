//! What is wrong with a text, where, and what to do about it.

use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File {
        /// The file, as the operator named it.
        file: Arc<str>,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// The whole line, and how many of its characters are meant; absent where the line must
        /// not be repeated because it may hold a secret.
        excerpt: Option<(Arc<str>, usize)>,
    },
    /// On the command line.
    Flag(Arc<str>),
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { file, line, column, .. } => write!(f, "{file}:{line}:{column}"),
            Place::Flag(name) => f.write_str(name),
        }
    }
}

/// One mistake, or one thing to be aware of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it has a place.
    pub place: Option<Place>,
    /// What is wrong: one sentence without a full stop.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub fn new(place: Option<Place>, message: impl Into<String>) -> Self {
        Problem { place, message: message.into(), help: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn render(&self, level: &str) -> String {
        let mut out = format!("{level}: {}", self.message);
        let mut gutter = 1;
        if let Some(place) = &self.place {
            if let Place::File { line, .. } = place {
                gutter = line.to_string().len();
            }
            let _ = write!(out, "\n{:gutter$}--> {place}", "");
            if let Place::File { line, column, excerpt: Some((text, width)), .. } = place {
                let _ = write!(out, "\n{:gutter$} |\n{line} | {text}", "");
                let _ = write!(
                    out,
                    "\n{:gutter$} | {}{}",
                    "",
                    indent(text, *column),
                    "^".repeat(*width)
                );
            }
        }
        if let Some(help) = &self.help {
            let _ = write!(out, "\n{:gutter$} = help: {help}", "");
        }
        out
    }
}

/// Blanks as wide as what stands before a column, tabs kept so that the caret stays under it.
fn indent(text: &str, column: usize) -> String {
    let before = text.chars().take(column.saturating_sub(1));
    before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect()
}

/// Every mistake that was found; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|problem| problem.render("error")).collect::<Vec<_>>().join("\n\n"))]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The mistakes, in the order of their places. `None` where there is none.
    pub fn new(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then(|| Problems::some(problems))
    }

    /// Mistakes of which there is one at least.
    pub fn some(mut problems: Vec<Problem>) -> Self {
        sort(&mut problems);
        Problems(problems)
    }

    /// The single mistakes.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Problems(vec![problem])
    }
}

/// Something that works but that its author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Problem);

impl Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.render("warning"))
    }
}

/// Problems of a file stand in the order of their lines, the others behind them.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| match &problem.place {
        Some(Place::File { line, column, .. }) => (0, *line, *column),
        Some(Place::Flag(_)) | None => (1, 0, 0),
    });
}

/// The known name that somebody probably meant.
pub fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness =
        |candidate: &str| strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase());
    known
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Names in backquotes, separated by commas.
pub fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
