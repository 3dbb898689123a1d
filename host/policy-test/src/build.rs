//! Builds views, nodes and manifests from what a case says of them; what it does not say is ordinary.

use std::collections::BTreeMap;

use conclave_core::record::{Attributes, Fitness};
use conclave_core::view::{
    CandidateView, IncumbentView, ManifestView, NodeView, PreviousView, TransferView, View,
    round_ms,
};
use conclave_core::{ElectionName, NodeName};
use conclave_yaml::{Part, Path, Problem, Resolver, Span, quoted, similar};

use crate::raw::{self, NameOr, Reasons};

/// The election that is asked about, where the case names none.
pub(crate) const ELECTION: &str = "masters";
/// How long a candidate has stood, where nothing else is said.
pub(crate) const STANDING_MS: u64 = 3_600_000;
/// How long the leader has held the term, where nothing else is said.
pub(crate) const HELD_MS: u64 = 600_000;
/// Why a candidate is unfit, where no reason is given.
pub(crate) const UNFIT: &str = "unfit";
/// Larger views are no test cases.
const MOST_CANDIDATES: u64 = 1_000;

/// A view, and what only the nodes themselves know.
pub(crate) struct Built {
    pub(crate) view: View,
    pub(crate) variables: BTreeMap<NodeName, Attributes>,
}

impl Built {
    /// A candidate as its own policy sees it.
    pub(crate) fn node(&self, candidate: &CandidateView) -> NodeView {
        NodeView {
            name: candidate.name.clone(),
            labels: candidate.labels.clone(),
            variables: self.variables.get(&candidate.name).cloned().unwrap_or_default(),
        }
    }
}

/// The name of a candidate that has only a number: a to z, then aa, ab and so on.
pub(crate) fn letters(mut number: u64) -> String {
    let mut name = Vec::new();
    loop {
        name.push(char::from(b'a' + (number % 26) as u8));
        match (number / 26).checked_sub(1) {
            Some(rest) => number = rest,
            None => return name.into_iter().rev().collect(),
        }
    }
}

fn milliseconds(span: Option<Span>, default: u64) -> u64 {
    let given = span.map(|Span(span)| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    given.map_or(default, round_ms)
}

/// Builds the view that stands at `path`.
pub(crate) fn view(r: &mut Resolver<'_>, raw: raw::View, path: &Path) -> Built {
    let (mut candidates, variables) = candidates(r, raw.candidates, path);
    marks(r, &mut candidates, raw.cordoned, raw.unfit, path);
    let election = ElectionName::from(raw.election.as_deref().unwrap_or(ELECTION));
    let incumbent = raw.leader.and_then(|raw| leader(r, raw, &candidates, &path.key("leader")));
    if let Some(incumbent) = &incumbent {
        for candidate in candidates.iter_mut().filter(|c| c.name == incumbent.name) {
            candidate.holds.push(election.clone());
        }
    }
    for candidate in &mut candidates {
        candidate.holds.sort();
        candidate.holds.dedup();
    }
    // As the host lists them.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.standing_ms));
    let transfer = raw.transfer.and_then(|raw| {
        if incumbent.is_none() && !r.is_faulty(&path.key("leader")) {
            r.wrong_field(
                &path.key("transfer"),
                "a transfer is asked of a leader, and there is none here",
                "say who leads: `leader: a`",
            );
        }
        transfer(r, raw, &candidates, &path.key("transfer"))
    });
    let me = raw.me.as_deref().map(NodeName::from);
    let me = me.or_else(|| candidates.first().map(|c| c.name.clone()));
    let view = View {
        election,
        me: me.unwrap_or_else(|| "a".into()),
        candidates,
        incumbent,
        previous: raw.previous.and_then(|raw| previous(r, raw, &path.key("previous"))),
        transfer,
        paused: raw.paused.unwrap_or(false),
    };
    Built { view, variables }
}

/// A candidate of whom nothing is said.
pub(crate) fn ordinary(name: &str) -> CandidateView {
    CandidateView {
        name: name.into(),
        labels: Attributes::new(),
        facts: Attributes::new(),
        fitness: Fitness::fit(),
        cordoned: false,
        holds: Vec::new(),
        standing_ms: STANDING_MS,
    }
}

fn candidates(
    r: &mut Resolver<'_>,
    raw: Option<raw::Candidates>,
    view: &Path,
) -> (Vec<CandidateView>, BTreeMap<NodeName, Attributes>) {
    let path = view.key("candidates");
    let mut all: Vec<CandidateView> = Vec::new();
    let mut variables = BTreeMap::new();
    match raw {
        None => r.missing(view, "candidates", "say how many, `3`, or which: `[a, b, c]`"),
        Some(raw::Candidates::Count(count)) if count > MOST_CANDIDATES => r.wrong(
            &path,
            format!("{count} candidates are too many"),
            format!("the most is {MOST_CANDIDATES}"),
        ),
        Some(raw::Candidates::Count(count)) => {
            all.extend((0..count).map(|number| ordinary(&letters(number))));
        }
        Some(raw::Candidates::List(list)) => {
            for (path, raw) in r.items(&path, list.len()).into_iter().zip(list) {
                let (candidate, own) = match raw {
                    NameOr::Name(name) => (ordinary(&name), None),
                    NameOr::Full(raw) => match candidate(r, raw, &path) {
                        Some(built) => built,
                        None => continue,
                    },
                };
                if all.iter().any(|other| other.name == candidate.name) {
                    let message = format!("there are two candidates `{}`", candidate.name);
                    r.wrong(&path, message, "a node's name is unique: rename one of them");
                    continue;
                }
                variables.extend(own.map(|own| (candidate.name.clone(), own)));
                all.push(candidate);
            }
        }
    }
    (all, variables)
}

fn candidate(
    r: &mut Resolver<'_>,
    raw: raw::Candidate,
    path: &Path,
) -> Option<(CandidateView, Option<Attributes>)> {
    let name = r.required(path, "name", raw.name, "name the node: `{name: a, …}`")?;
    let fit = raw.fit.unwrap_or(true);
    let reasons = raw.reasons.unwrap_or_else(|| {
        let reason = (!fit).then(|| UNFIT.to_owned());
        reason.into_iter().collect()
    });
    let candidate = CandidateView {
        labels: raw.labels.unwrap_or_default(),
        facts: raw.facts.unwrap_or_default(),
        fitness: Fitness { fit, reasons, checks: raw.checks.unwrap_or_default() },
        cordoned: raw.cordoned.unwrap_or(false),
        holds: raw.holds.unwrap_or_default().iter().map(|name| name.as_str().into()).collect(),
        standing_ms: milliseconds(raw.standing, STANDING_MS),
        ..ordinary(&name)
    };
    Some((candidate, raw.variables))
}

/// Applies `cordoned: [b]` and `unfit: [c]` or `unfit: {c: why}`.
fn marks(
    r: &mut Resolver<'_>,
    candidates: &mut [CandidateView],
    cordoned: Option<Vec<String>>,
    unfit: Option<Reasons>,
    view: &Path,
) {
    let path = view.key("cordoned");
    let names = cordoned.unwrap_or_default();
    for (path, name) in r.items(&path, names.len()).into_iter().zip(names) {
        if let Some(at) = known(r, &name, candidates, &path, Part::Value) {
            candidates[at].cordoned = true;
        }
    }
    let path = view.key("unfit");
    for (path, name, reason) in each(r, unfit, &path) {
        if let Some(at) = known(r, &name, candidates, &path, Part::Key) {
            candidates[at].fitness.fit = false;
            candidates[at].fitness.reasons = vec![reason.unwrap_or_else(|| UNFIT.to_owned())];
        }
    }
}

/// The names in one of the two forms, each with its path and what is said of it.
pub(crate) fn each(
    r: &Resolver<'_>,
    raw: Option<Reasons>,
    path: &Path,
) -> Vec<(Path, String, Option<String>)> {
    match raw {
        None => Vec::new(),
        Some(Reasons::Names(names)) => {
            let paths = r.items(path, names.len());
            paths.into_iter().zip(names).map(|(path, name)| (path, name, None)).collect()
        }
        Some(Reasons::Said(said)) => {
            let item = |(name, reason): (String, String)| (path.key(&name), name, Some(reason));
            said.into_iter().map(item).collect()
        }
    }
}

/// Where a candidate stands in the list; reports a name that none has. The name is this part of what
/// stands at `path`.
pub(crate) fn known(
    r: &mut Resolver<'_>,
    name: &str,
    candidates: &[CandidateView],
    path: &Path,
    part: Part,
) -> Option<usize> {
    let at = candidates.iter().position(|candidate| candidate.name.as_str() == name);
    if at.is_none() && !candidates.is_empty() {
        let names = || candidates.iter().map(|candidate| candidate.name.as_str());
        let help = match similar(name, names()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if candidates.len() > 12 => "see `candidates`".to_owned(),
            None => format!("the candidates are {}", quoted(names())),
        };
        let place = r.document().place(path, part);
        r.report(Problem::new(place, format!("`{name}` is no candidate")).help(help));
    }
    at
}

fn leader(
    r: &mut Resolver<'_>,
    raw: NameOr<raw::Leader>,
    candidates: &[CandidateView],
    path: &Path,
) -> Option<IncumbentView> {
    let (name, raw, at) = match raw {
        NameOr::Name(name) => (name, raw::Leader::default(), path.clone()),
        NameOr::Full(mut raw) => {
            let name = r.required(path, "name", raw.name.take(), "name the node that leads")?;
            (name, raw, path.key("name"))
        }
    };
    // The holder's candidacy may be missing, but more often it is a slip.
    let facts = if raw.candidate == Some(false) {
        None
    } else {
        known(r, &name, candidates, &at, Part::Value).map(|at| candidates[at].facts.clone())
    };
    Some(IncumbentView {
        name: name.as_str().into(),
        facts: raw.facts.or(facts).unwrap_or_default(),
        held_ms: milliseconds(raw.held, HELD_MS),
    })
}

fn previous(r: &mut Resolver<'_>, raw: NameOr<raw::Previous>, path: &Path) -> Option<PreviousView> {
    let raw = match raw {
        NameOr::Name(name) => raw::Previous { name: Some(name), ..Default::default() },
        NameOr::Full(raw) => raw,
    };
    let name = r.required(path, "name", raw.name, "name the node that led before")?;
    Some(PreviousView {
        name: name.as_str().into(),
        facts: raw.facts.unwrap_or_default(),
        clean: raw.clean.unwrap_or(true),
    })
}

fn transfer(
    r: &mut Resolver<'_>,
    raw: NameOr<raw::Transfer>,
    candidates: &[CandidateView],
    path: &Path,
) -> Option<TransferView> {
    let (to, at) = match raw {
        NameOr::Name(name) => (Some(name), path.clone()),
        NameOr::Full(raw) => (raw.to, path.key("to")),
    };
    if let Some(to) = &to {
        known(r, to, candidates, &at, Part::Value)?;
    }
    Some(TransferView { to: to.as_deref().map(NodeName::from) })
}

/// A manifest of which only the name is said.
pub(crate) fn pod(name: &str) -> String {
    let name = name.split('.').next().unwrap_or(name);
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n")
}

/// Builds the manifests that stand at `path`.
pub(crate) fn manifests(
    r: &mut Resolver<'_>,
    raw: Vec<NameOr<raw::Manifest>>,
    path: &Path,
) -> Vec<ManifestView> {
    let mut all: Vec<ManifestView> = Vec::new();
    for (path, raw) in r.items(path, raw.len()).into_iter().zip(raw) {
        let raw = match raw {
            NameOr::Name(name) => raw::Manifest { name: Some(name), ..Default::default() },
            NameOr::Full(raw) => raw,
        };
        let Some(name) = r.required(&path, "name", raw.name, "name the manifest's file") else {
            continue;
        };
        if all.iter().any(|other| other.name == name) {
            r.wrong(&path, format!("there are two manifests `{name}`"), "rename one of them");
        }
        let content = match (raw.content, raw.source) {
            (Some(_), Some(_)) => {
                let message = "`content` and `source` are both there";
                r.wrong_field(&path.key("source"), message, "keep one of them");
                continue;
            }
            (Some(content), None) => content,
            (None, Some(source)) => match read(r, &source, &path.key("source")) {
                Some(content) => content,
                None => continue,
            },
            (None, None) => pod(&name),
        };
        all.push(ManifestView { name, exclusive: raw.exclusive.unwrap_or(true), content });
    }
    all
}

fn read(r: &mut Resolver<'_>, source: &str, path: &Path) -> Option<String> {
    let file = r.file(path, source);
    std::fs::read_to_string(&file)
        .inspect_err(|error| {
            let message = format!("the manifest {} cannot be read: {error}", file.display());
            r.wrong(path, message, "relative paths start at this file");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_letters() {
        let names: Vec<String> = [0, 25, 26, 51, 52, 701, 702].map(letters).into();
        assert_eq!(names, ["a", "z", "aa", "az", "ba", "zz", "aaa"]);
    }
}
