//! A YAML text as a tree of values, and where in the text each of them stands.
//!
//! `serde_yaml` says what the text means. It forgets positions once a value is built, and most
//! mistakes are seen only later, so a second, event-based parser notes where everything stands.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::iter::Peekable;
use std::rc::Rc;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, Span, StrInput};
use serde_yaml::Value;

use crate::open::{MOST_OPEN, too_many_open};
use crate::problem::{Place, Problem};
use crate::repeated::{MOST_REPEATED, too_much_repeated};

/// One step from a value to one inside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Key(Arc<str>),
    Index(usize),
}

/// How a value is reached from the document's root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Path(Vec<Step>);

impl Path {
    /// The path of a field in it.
    #[must_use]
    pub fn key(&self, key: &str) -> Path {
        self.step(Step::Key(key.into()))
    }

    /// The path of an item in it, counted from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Path {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Path {
        let mut steps = self.0.clone();
        steps.push(step);
        Path(steps)
    }

    /// Whether it leads to or into what another leads to.
    pub fn starts_with(&self, start: &Path) -> bool {
        self.0.starts_with(&start.0)
    }

    /// Whether it leads to the document as a whole.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what stands here must not be shown.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(self.0.last(), Some(Step::Key(key)) if &**key == "password")
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Which part of a field is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its name; the value where it has none, as in a list.
    Key,
    /// What stands behind the name.
    Value,
}

/// A parsed text.
pub struct Document {
    file: Arc<str>,
    text: String,
    /// What it means.
    pub value: Value,
    root: Option<Rc<Spot>>,
}

impl Document {
    /// Makes text of a file's bytes, for [`parse`](Self::parse); `file` is only for messages.
    ///
    /// # Errors
    ///
    /// Where they are not text, and from which place on.
    pub fn text(file: &str, bytes: Vec<u8>) -> Result<String, Problem> {
        String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let good = String::from_utf8_lossy(&error.as_bytes()[..good]);
            let line = good.split('\n').next_back().unwrap_or_default();
            let place = Place::File {
                file: file.into(),
                line: good.matches('\n').count() + 1,
                column: line.chars().count() + 1,
                excerpt: None,
            };
            Problem::new(Some(place), "this is not text in UTF-8").help("save the file as UTF-8")
        })
    }

    /// Parses a text; `file` is only for messages.
    ///
    /// # Errors
    ///
    /// Where it is not YAML.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problem> {
        let file: Arc<str> = file.into();
        let text = text.strip_prefix(MARK).unwrap_or(text).to_owned();
        if let Some(at) = text.find(MARK) {
            return Err(stray_mark(&file, &text, at));
        }
        if let Some((line, column)) = too_many_open(&text) {
            // Asked first: the parsers need hours for braces in braces before they refuse them.
            let at = place(&file, &text, line, column, 1, false);
            return Err(Problem::new(
                Some(at),
                format!("more than {MOST_OPEN} brackets are open here"),
            )
            .help("see that every bracket is closed"));
        }
        if let Some((line, column)) = too_much_repeated(&text) {
            let at = place(&file, &text, line, column, 1, false);
            let message =
                format!("the aliases up to here stand for more than {MOST_REPEATED} values");
            return Err(Problem::new(Some(at), message)
                .help("write out what differs, or divide what is repeated among several files"));
        }
        let parsed = serde_yaml::from_str(&text).and_then(|mut value: Value| {
            value.apply_merge()?;
            Ok(value)
        });
        match parsed {
            Ok(value) => {
                let root = Spots::of(&text).map(|spots| spots.root);
                Ok(Document { file, text, value, root })
            }
            Err(error) => Err(match Spots::of(&text).and_then(|spots| spots.doubled) {
                Some((name, first, second)) => doubled_field(&file, &text, &name, &first, &second),
                None => syntax_problem(&file, &text, &error),
            }),
        }
    }

    /// Whether it is known where its values stand. Not so where the two parsers disagree, as about a
    /// flow mapping whose second line begins further left than it may: one takes it, as kubelets do, and
    /// the other, which knows the places, does not.
    pub fn has_places(&self) -> bool {
        self.root.is_some()
    }

    /// Where a value stands, or the innermost one around it that stands anywhere.
    pub fn place(&self, path: &Path, part: Part) -> Option<Place> {
        let mut spot = self.root.as_ref()?;
        let mut complete = true;
        for step in &path.0 {
            match spot.child(step) {
                Some(child) => spot = child,
                None => {
                    complete = false;
                    break;
                }
            }
        }
        let span = match (part, spot.key) {
            (Part::Key, Some(key)) => key,
            // A field that is missing is missed in the value that its name introduces.
            (Part::Value, Some(key)) if !complete => key,
            _ => spot.value,
        };
        Some(place(
            &self.file,
            &self.text,
            span.start.line(),
            span.start.col() + 1,
            width(&span),
            path.is_secret(),
        ))
    }

    /// Whether the document has this path, even if nothing stands there.
    pub fn has(&self, path: &Path) -> bool {
        let mut value = &self.value;
        for step in &path.0 {
            let inner = match step {
                Step::Key(key) => value.get(&**key),
                Step::Index(index) => value.get(*index),
            };
            match inner {
                Some(inner) => value = inner,
                None => return false,
            }
        }
        true
    }
}

/// How many characters of the first line a span covers; zero stands for "to the line's end".
fn width(span: &Span) -> usize {
    if span.start.line() == span.end.line() { span.end.col() - span.start.col() } else { 0 }
}

/// Lines of more bytes are not repeated: no terminal shows them well.
const LONGEST_EXCERPT: usize = 500;

fn place(
    file: &Arc<str>,
    text: &str,
    line: usize,
    column: usize,
    width: usize,
    secret: bool,
) -> Place {
    let content = text.lines().nth(line.saturating_sub(1)).unwrap_or("").trim_end();
    let rest = content.chars().count().saturating_sub(column - 1).max(1);
    let width = if width == 0 { rest } else { width.min(rest) };
    let readable = !content.is_empty() && content.len() <= LONGEST_EXCERPT;
    let excerpt = (!secret && readable).then(|| (Arc::from(content), width));
    Place::File { file: file.clone(), line, column, excerpt }
}

/// The byte order mark, which some editors put before a text.
const MARK: char = '\u{feff}';

/// Parsers disagree about one inside a text, and nobody sees it.
fn stray_mark(file: &Arc<str>, text: &str, at: usize) -> Problem {
    let before = &text[..at];
    let line = before.split('\n').next_back().unwrap_or_default();
    let (line, column) = (before.matches('\n').count() + 1, line.chars().count() + 1);
    let message = "a byte order mark (U+FEFF) stands here, where nobody sees it";
    Problem::new(Some(place(file, text, line, column, 1, false)), message)
        .help("delete it, perhaps by writing the word anew: it comes with text that is pasted")
}

fn doubled_field(file: &Arc<str>, text: &str, name: &str, first: &Span, second: &Span) -> Problem {
    let at = place(file, text, second.start.line(), second.start.col() + 1, width(second), false);
    Problem::new(Some(at), format!("the field `{name}` is there twice"))
        .help(format!("the other one is in line {}; keep one of them", first.start.line()))
}

fn syntax_problem(file: &Arc<str>, text: &str, error: &serde_yaml::Error) -> Problem {
    let place = error
        .location()
        .map(|at| place(file, text, at.line().max(1), at.column().max(1), 1, false));
    let mut message = error.to_string();
    if let Some(at) = error.location() {
        // The position is shown in its own line.
        let suffix = format!(" at line {} column {}", at.line(), at.column());
        message = message.replacen(&suffix, "", 1);
    }
    Problem::new(place, format!("this is not valid YAML: {message}"))
        .help("YAML nests by indentation with blanks, never tabs; quote text that contains `: `, `#` or a leading `*`, `&`, `!`, `%`, `@`, `[` or `{`")
}

/// Where a value stands and, inside it, everything else.
struct Spot {
    key: Option<Span>,
    value: Span,
    inside: Inside,
}

#[derive(Clone)]
enum Inside {
    Scalar,
    Items(Vec<Rc<Spot>>),
    Fields(Vec<(String, Rc<Spot>)>),
}

/// Where everything in a text stands.
struct Spots {
    root: Rc<Spot>,
    /// A field that is written twice: its name and both places.
    doubled: Option<(String, Span, Span)>,
}

impl Spots {
    /// `None` where the parsers disagree about the text; messages then have no position.
    fn of(text: &str) -> Option<Spots> {
        let mut events = Events {
            parser: Parser::new_from_str(text).peekable(),
            anchors: HashMap::new(),
            doubled: None,
            depth: 0,
        };
        loop {
            let (event, span) = events.next()?;
            if !matches!(event, Event::StreamStart | Event::DocumentStart(_)) {
                let root = events.spot(None, event, span)?;
                return Some(Spots { root, doubled: events.doubled });
            }
        }
    }
}

impl Spot {
    fn child(&self, step: &Step) -> Option<&Rc<Spot>> {
        match (&self.inside, step) {
            (Inside::Items(items), Step::Index(index)) => items.get(*index),
            (Inside::Fields(fields), Step::Key(key)) => {
                let named = |name: &str| {
                    fields.iter().find(|(field, _)| field == name).map(|(_, spot)| spot)
                };
                named(key).or_else(|| named("<<").and_then(|merged| merged.child(step)))
            }
            _ => None,
        }
    }
}

struct Events<'a> {
    parser: Peekable<Parser<'a, StrInput<'a>>>,
    anchors: HashMap<usize, Inside>,
    /// The first field found that is written twice: its name and both places.
    doubled: Option<(String, Span, Span)>,
    depth: usize,
}

/// How deep values may stand in one another: as deep as `serde_yaml` reads them.
const DEEPEST: usize = 128;

impl<'a> Events<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        self.parser.next()?.ok()
    }

    /// Whether the list or mapping that is being read ends here; takes its end.
    fn ends(&mut self) -> bool {
        let ends =
            matches!(self.parser.peek(), Some(Ok((Event::SequenceEnd | Event::MappingEnd, _))));
        if ends {
            self.parser.next();
        }
        ends
    }

    fn spot(&mut self, key: Option<Span>, event: Event<'a>, value: Span) -> Option<Rc<Spot>> {
        if self.depth == DEEPEST {
            return None;
        }
        self.depth += 1;
        let (anchor, inside) = match event {
            Event::Scalar(_, _, anchor, _) => (anchor, Inside::Scalar),
            Event::Alias(anchor) => (0, self.anchors.get(&anchor)?.clone()),
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                while !self.ends() {
                    let (event, span) = self.next()?;
                    items.push(self.spot(None, event, span)?);
                }
                (anchor, Inside::Items(items))
            }
            Event::MappingStart(anchor, _) => (anchor, Inside::Fields(self.fields()?)),
            _ => return None,
        };
        self.depth -= 1;
        if anchor != 0 {
            self.anchors.insert(anchor, inside.clone());
        }
        Some(Rc::new(Spot { key, value, inside }))
    }

    fn fields(&mut self) -> Option<Vec<(String, Rc<Spot>)>> {
        let mut fields = Vec::new();
        let mut seen = HashMap::new();
        while !self.ends() {
            let (event, key) = self.next()?;
            let name = match &event {
                Event::Scalar(name, ..) => {
                    let name = name.to_string();
                    if let Some(first) = seen.insert(name.clone(), key) {
                        self.doubled.get_or_insert_with(|| (name.clone(), first, key));
                    }
                    name
                }
                _ => {
                    self.spot(None, event, key)?;
                    String::new()
                }
            };
            let (event, span) = self.next()?;
            fields.push((name, self.spot(Some(key), event, span)?));
        }
        Some(fields)
    }
}
