//! Case files: where they are, and what stands in them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path as FilePath, PathBuf};

use conclave_core::NodeName;
use conclave_core::view::{ManifestView, NodeView};
use conclave_policy::BUILT_IN;
use conclave_yaml::{Document, Part, Path, Place, Problem, Problems, Resolver, decode, similar};

use crate::build::{self, Built};
use crate::case::{Case, Question};
use crate::expect;
use crate::raw;

/// The directory beside a policy where its cases are.
const DIRECTORY: &str = "tests";
/// Larger files are something else.
const LARGEST: u64 = 4 << 20;

/// Which policy a suite tests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicySource {
    /// One that is built in.
    BuiltIn(String),
    /// A component.
    File(PathBuf),
}

impl PolicySource {
    /// A built-in policy by its name, anything else as a path that starts at `base`.
    pub fn new(text: &str, base: &FilePath) -> Self {
        if BUILT_IN.contains(&text) {
            PolicySource::BuiltIn(text.to_owned())
        } else {
            PolicySource::File(base.join(text))
        }
    }
}

/// The cases of one file.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The policy.
    pub policy: PolicySource,
    /// Where the policy is named.
    pub policy_place: Option<Place>,
    /// The configuration of all cases that have none of their own.
    pub config: String,
    /// The cases, in the order of the file.
    pub cases: Vec<Case>,
}

/// The case files that a path stands for: itself, or in a directory the `*.yaml` of its `tests`, or
/// else its own.
///
/// # Errors
///
/// When it cannot be looked at.
pub fn find(path: &FilePath) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        std::fs::metadata(path)?;
        return Ok(vec![path.to_owned()]);
    }
    let inside = path.join(DIRECTORY);
    let found = if inside.is_dir() { yaml_files(&inside)? } else { Vec::new() };
    if found.is_empty() { yaml_files(path) } else { Ok(found) }
}

fn yaml_files(directory: &FilePath) -> io::Result<Vec<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
        if yaml && !hidden && path.is_file() {
            // `./tests/a.yaml` reads worse.
            files.insert(path.strip_prefix(".").map(FilePath::to_owned).unwrap_or(path));
        }
    }
    Ok(files.into_iter().collect())
}

impl Suite {
    /// Reads a case file. `policy` stands in for the one that it names.
    ///
    /// # Errors
    ///
    /// Every mistake in it.
    pub fn read(file: &FilePath, policy: Option<PolicySource>) -> Result<Self, Problems> {
        let unreadable = |error: io::Error| {
            Problem::new(None, format!("cannot read the case file {}: {error}", file.display()))
        };
        if std::fs::metadata(file).map_err(unreadable)?.len() > LARGEST {
            let message = format!("{} is larger than a case file may be", file.display());
            return Err(Problem::new(None, message).help("the most is 4 MiB").into());
        }
        let bytes = std::fs::read(file).map_err(unreadable)?;
        Suite::parse(file, &Document::text(&file.display().to_string(), bytes)?, policy)
    }

    /// As [`read`](Self::read), for a text that was read already.
    ///
    /// # Errors
    ///
    /// Every mistake in it.
    pub fn parse(
        file: &FilePath,
        text: &str,
        policy: Option<PolicySource>,
    ) -> Result<Self, Problems> {
        let document = Document::parse(&file.display().to_string(), text)?;
        let decoded = decode::<Option<raw::Root>>(&document)?;
        let base = file.parent().unwrap_or(FilePath::new(""));
        let (mut r, root) = Resolver::new(&document, decoded, "the file", base);
        let suite = suite(&mut r, root.unwrap_or_default(), file, policy);
        r.finish(suite, false).map(|(suite, _)| suite)
    }
}

fn suite(
    r: &mut Resolver<'_>,
    root: raw::Root,
    file: &FilePath,
    policy: Option<PolicySource>,
) -> Option<Suite> {
    let top = Path::default();
    let policy_place = r.document().place(&top.key("policy"), Part::Value);
    let policy = match policy {
        Some(policy) => Some(policy),
        None => named(r, root.policy, &top),
    };
    let config = config(r, root.config, &top.key("config")).unwrap_or_else(|| "{}".to_owned());
    const HELP: &str = "write a list of cases: `- {name: …, rank: {candidates: 3}, expect: {…}}`";
    let list = top.key("cases");
    let raw = r.required(&top, "cases", root.cases, HELP)?;
    if raw.is_empty() && !r.is_faulty(&list) {
        r.wrong_field(&list, "there is no case here", HELP);
    }
    let mut cases: Vec<Case> = Vec::new();
    for (path, raw) in r.items(&list, raw.len()).into_iter().zip(raw) {
        let Some(case) = case(r, raw, &config, &path) else { continue };
        if cases.iter().any(|other| other.name == case.name) {
            let message = format!("there are two cases `{}`", case.name);
            r.wrong(&path.key("name"), message, "say what each of them shows");
        }
        cases.push(case);
    }
    Some(Suite { file: file.to_owned(), policy: policy?, policy_place, config, cases })
}

/// The policy that a file names.
fn named(r: &mut Resolver<'_>, name: Option<String>, top: &Path) -> Option<PolicySource> {
    const HELP: &str = "name a built-in policy, or a component's file: `policy: ../my.wasm`";
    let name = r.required(top, "policy", name, HELP)?;
    let path = top.key("policy");
    let file = r.file(&path, &name);
    match PolicySource::new(&name, FilePath::new("")) {
        PolicySource::File(_) if !name.contains('/') && !name.ends_with(".wasm") => {
            let help = match similar(&name, BUILT_IN) {
                Some(meant) => format!("did you mean `{meant}`? A file ends in `.wasm`"),
                None => HELP.to_owned(),
            };
            r.wrong(&path, format!("there is no built-in policy `{name}`"), help);
            None
        }
        PolicySource::File(_) => Some(PolicySource::File(file)),
        built_in @ PolicySource::BuiltIn(_) => Some(built_in),
    }
}

/// A policy's configuration as text.
fn config(r: &mut Resolver<'_>, raw: Option<serde_json::Value>, path: &Path) -> Option<String> {
    let value = raw?;
    if !value.is_object() {
        let help = "write the policy's settings: `{prefer: [a]}`";
        r.wrong(path, format!("{path} is no mapping"), help);
    }
    Some(value.to_string())
}

const QUESTIONS: [&str; 4] = ["rank", "place", "describe", "validate"];

fn case(r: &mut Resolver<'_>, raw: raw::Case, config: &str, path: &Path) -> Option<Case> {
    let own = self::config(r, raw.config, &path.key("config"));
    let given =
        [raw.rank.is_some(), raw.place.is_some(), raw.describe.is_some(), raw.validate.is_some()];
    let asked: Vec<&str> = QUESTIONS
        .into_iter()
        .zip(given)
        .filter(|(_, there)| *there)
        .map(|(name, _)| name)
        .collect();
    let &[function] = &asked[..] else {
        question_count(r, &asked, path);
        return None;
    };
    let at = path.key(function);
    let mut settings = own.unwrap_or_else(|| config.to_owned());
    let question = match (raw.rank, raw.place, raw.describe, raw.validate) {
        (Some(raw), ..) => rank(r, raw, &at),
        (_, Some(raw), ..) => place(r, raw, &at),
        (_, _, Some(raw), _) => describe(r, raw, &at),
        (.., validated) => {
            settings = self::config(r, validated, &at).unwrap_or(settings);
            Question::Validate
        }
    };
    let expected = expect::resolve(r, raw.expect.unwrap_or_default(), &question, path);
    let name = raw.name.unwrap_or_else(|| format!("{function} in {path}"));
    let place = r.document().place(&path.key("name"), Part::Key);
    Some(Case { name, place, config: settings, question, expected })
}

fn question_count(r: &mut Resolver<'_>, asked: &[&str], path: &Path) {
    match asked {
        [] if QUESTIONS.iter().any(|field| r.is_faulty(&path.key(field))) => {}
        [] => r.wrong(
            path,
            "this case asks nothing",
            "give it one of `rank`, `place`, `describe` and `validate`",
        ),
        [first, second, ..] => r.wrong_field(
            &path.key(second),
            format!("this case asks `{first}` and `{second}`"),
            "make it several cases",
        ),
        [_] => {}
    }
}

fn rank(r: &mut Resolver<'_>, mut raw: raw::View, path: &Path) -> Question {
    for (field, there) in [("manifests", raw.manifests.is_some()), ("on", raw.on.is_some())] {
        if there {
            let message = format!("`{field}` means nothing to `rank`");
            r.wrong_field(&path.key(field), message, "it belongs to `place`");
        }
    }
    (raw.manifests, raw.on) = (None, None);
    Question::Rank(build::view(r, raw, path).view)
}

fn place(r: &mut Resolver<'_>, mut raw: raw::View, path: &Path) -> Question {
    let manifests = match raw.manifests.take() {
        Some(raw) => build::manifests(r, raw, &path.key("manifests")),
        None => {
            r.missing(
                path,
                "manifests",
                "name them: `[scheduler.yaml, {name: api.yaml, exclusive: false}]`",
            );
            Vec::new()
        }
    };
    let on = raw.on.take();
    let built = build::view(r, raw, path);
    let nodes = nodes(r, &built, on, path);
    Question::Place { view: built.view, nodes, manifests }
}

/// The nodes that `on` names, or every candidate.
fn nodes(
    r: &mut Resolver<'_>,
    built: &Built,
    on: Option<raw::Names>,
    path: &Path,
) -> Vec<NodeView> {
    let candidates = &built.view.candidates;
    let Some(on) = on else { return candidates.iter().map(|c| built.node(c)).collect() };
    let path = path.key("on");
    let paths = if on.listed { r.items(&path, on.names.len()) } else { vec![path] };
    let known = paths.into_iter().zip(on.names).filter_map(|(path, name)| {
        build::known(r, &name, candidates, &path, Part::Value).map(|at| built.node(&candidates[at]))
    });
    known.collect()
}

fn describe(r: &mut Resolver<'_>, raw: raw::Describe, path: &Path) -> Question {
    let manifests = raw.manifests.unwrap_or_default();
    let manifests: Vec<ManifestView> = build::manifests(r, manifests, &path.key("manifests"));
    Question::Describe {
        election: raw.election.as_deref().unwrap_or(build::ELECTION).into(),
        node: NodeView {
            name: NodeName::from(raw.name.as_deref().unwrap_or("a")),
            labels: raw.labels.unwrap_or_default(),
            variables: raw.variables.unwrap_or_default(),
        },
        manifests,
    }
}
