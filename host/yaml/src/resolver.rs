//! Where the written fields get their meaning: what was read, the text's places, and where to
//! report what is wrong.

use std::collections::HashSet;
use std::path::{Path as FilePath, PathBuf};

use crate::decode::Decoded;
use crate::document::{Document, Part, Path};
use crate::problem::{Problem, Problems, Warning, sort};

/// What everything that gives fields a meaning needs: the text's places, and where to report.
pub struct Resolver<'a> {
    document: &'a Document,
    /// What the text is, for messages: `the configuration`.
    what: &'a str,
    left_out: HashSet<Path>,
    base: &'a FilePath,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    /// Goes on with what was read. Relative paths in it start at `base`.
    pub fn new<T>(
        document: &'a Document,
        decoded: Decoded<T>,
        what: &'a str,
        base: &'a FilePath,
    ) -> (Self, T) {
        let Decoded { value, problems, left_out } = decoded;
        (Resolver { document, what, left_out, base, problems, warnings: Vec::new() }, value)
    }

    /// The text.
    pub fn document(&self) -> &'a Document {
        self.document
    }

    /// Reports a mistake.
    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Reports a mistake in a value.
    pub fn wrong(&mut self, path: &Path, message: impl Into<String>, help: impl Into<String>) {
        let place = self.document.place(path, Part::Value);
        self.report(Problem::new(place, message).help(help));
    }

    /// Reports a mistake that a field as a whole is.
    pub fn wrong_field(
        &mut self,
        path: &Path,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let place = self.document.place(path, Part::Key);
        self.report(Problem::new(place, message).help(help));
    }

    /// Reports something to be aware of.
    pub fn warn(&mut self, path: &Path, message: impl Into<String>, help: impl Into<String>) {
        let place = self.document.place(path, Part::Value);
        self.warnings.push(Problem::new(place, message).help(help));
    }

    /// Reports a field that is not there, unless it is and was reported for what it says.
    pub fn missing(&mut self, parent: &Path, field: &str, help: impl Into<String>) {
        let path = parent.key(field);
        if self.is_faulty(&path) {
            return;
        }
        let owner = if parent.is_root() { self.what.to_owned() } else { parent.to_string() };
        let (place, message) = if self.document.has(&path) {
            (self.document.place(&path, Part::Key), format!("{path} is empty"))
        } else {
            (self.document.place(parent, Part::Value), format!("{owner} has no `{field}`"))
        };
        self.report(Problem::new(place, message).help(help));
    }

    /// A field that must be there.
    pub fn required<T>(
        &mut self,
        parent: &Path,
        field: &str,
        value: Option<T>,
        help: impl Into<String>,
    ) -> Option<T> {
        if value.is_none() {
            self.missing(parent, field, help);
        }
        value
    }

    /// Whether something at or inside this path could not be read.
    pub fn is_faulty(&self, path: &Path) -> bool {
        self.left_out.iter().any(|left_out| left_out.starts_with(path))
    }

    /// The paths of a list's items that could be read, in their order.
    pub fn items(&self, list: &Path, count: usize) -> Vec<Path> {
        let read =
            (0..).map(|index| list.index(index)).filter(|item| !self.left_out.contains(item));
        read.take(count).collect()
    }

    /// A path, absolute; relative ones start at the text's file.
    pub fn file(&mut self, path: &Path, text: &str) -> PathBuf {
        if text.is_empty() || text.contains('\0') {
            self.wrong(
                path,
                format!("{path} is not a path"),
                "write an absolute path, or one relative to this file",
            );
        } else if text.starts_with("~/") {
            self.wrong(
                path,
                format!("`~` in {path} means nothing here"),
                "write the directory out",
            );
        }
        self.base.join(text)
    }

    /// What was made of the text, with the warnings, or everything that is wrong. That there is
    /// nothing must have been reported. `lenient` makes warnings of mistakes where something is
    /// left to go on with.
    ///
    /// # Errors
    ///
    /// The mistakes.
    pub fn finish<T>(self, made: Option<T>, lenient: bool) -> Result<(T, Vec<Warning>), Problems> {
        let Resolver { mut problems, mut warnings, .. } = self;
        if lenient && made.is_some() {
            warnings.append(&mut problems);
        }
        match made {
            Some(made) if problems.is_empty() => {
                sort(&mut warnings);
                Ok((made, warnings.into_iter().map(Warning).collect()))
            }
            _ => Err(Problems::some(problems)),
        }
    }
}
