//! Writes a question as a case, to be pasted into a case file: only what is not ordinary.

use std::time::Duration;

use conclave_core::record::Attributes;
use conclave_core::view::{
    CandidateView, IncumbentView, ManifestView, NodeView, PreviousView, View,
};
use serde_json::Value;

use crate::build::{ELECTION, HELD_MS, STANDING_MS, UNFIT, letters, pod};
use crate::case::Question;

/// What goes beside a question into a case.
pub(crate) struct Beside<'a> {
    /// What the case shows.
    pub(crate) name: &'a str,
    /// The configuration, where it is not the file's.
    pub(crate) config: Option<&'a str>,
    /// A field of `expect` with its value.
    pub(crate) expect: Option<(&'a str, &'a str)>,
}

/// A case as it stands under `cases`, four blanks deep.
pub(crate) fn case(question: &Question, beside: &Beside<'_>) -> String {
    let mut lines = vec![format!("  - name: {}", scalar(beside.name))];
    lines.extend(beside.config.map(|config| format!("    config: {}", settings(config))));
    match question {
        Question::Rank(view) => {
            lines.push("    rank:".to_owned());
            block(&mut lines, self::view(view, &[]));
        }
        Question::Place { view, nodes, manifests } => {
            lines.push("    place:".to_owned());
            let mut fields = self::view(view, nodes);
            fields.push(("manifests", self::manifests(manifests)));
            let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            if !names.iter().copied().eq(view.candidates.iter().map(|c| c.name.as_str())) {
                fields.push(("on", list(names.into_iter().map(scalar))));
            }
            block(&mut lines, fields);
        }
        Question::Describe { election, node, manifests } => {
            let mut fields = Vec::new();
            if election.as_str() != ELECTION {
                fields.push(("election", scalar(election.as_str())));
            }
            fields.push(("name", scalar(node.name.as_str())));
            push_attributes(&mut fields, "labels", &node.labels);
            push_attributes(&mut fields, "variables", &node.variables);
            if !manifests.is_empty() {
                fields.push(("manifests", self::manifests(manifests)));
            }
            lines.push("    describe:".to_owned());
            block(&mut lines, fields);
        }
        Question::Validate => {
            lines.push(format!("    validate: {}", settings(beside.config.unwrap_or("{}"))));
        }
    }
    if let Some((field, value)) = beside.expect {
        lines.push(format!("    expect: {{{field}: {}}}", scalar(value)));
    }
    lines.join("\n") + "\n"
}

type Fields = Vec<(&'static str, String)>;

fn block(lines: &mut Vec<String>, fields: Fields) {
    lines.extend(fields.into_iter().map(|(name, value)| format!("      {name}: {value}")));
}

fn view(view: &View, nodes: &[NodeView]) -> Fields {
    let mut fields = Fields::new();
    if view.election.as_str() != ELECTION {
        fields.push(("election", scalar(view.election.as_str())));
    }
    fields.push(("candidates", candidates(view, nodes)));
    let first = view.candidates.first().map_or("a", |candidate| candidate.name.as_str());
    if view.me.as_str() != first && nodes.is_empty() {
        fields.push(("me", scalar(view.me.as_str())));
    }
    if let Some(incumbent) = &view.incumbent {
        fields.push(("leader", leader(incumbent, view)));
    }
    if let Some(previous) = &view.previous {
        fields.push(("previous", self::previous(previous)));
    }
    if let Some(transfer) = &view.transfer {
        let to = transfer.to.as_ref().map(|to| scalar(to.as_str()));
        fields.push(("transfer", to.unwrap_or_else(|| "{}".to_owned())));
    }
    if view.paused {
        fields.push(("paused", "true".to_owned()));
    }
    fields
}

fn candidates(view: &View, nodes: &[NodeView]) -> String {
    let entries: Vec<Fields> = view.candidates.iter().map(|c| candidate(c, view, nodes)).collect();
    let numbered = view.candidates.iter().enumerate();
    let plain = entries.iter().all(|fields| fields.len() == 1)
        && numbered.clone().all(|(at, c)| c.name.as_str() == letters(at as u64));
    if plain {
        return entries.len().to_string();
    }
    list(entries.into_iter().map(short))
}

fn candidate(candidate: &CandidateView, view: &View, nodes: &[NodeView]) -> Fields {
    let mut fields = vec![("name", scalar(candidate.name.as_str()))];
    push_attributes(&mut fields, "labels", &candidate.labels);
    for node in nodes.iter().filter(|node| node.name == candidate.name) {
        push_attributes(&mut fields, "variables", &node.variables);
    }
    push_attributes(&mut fields, "facts", &candidate.facts);
    let fitness = &candidate.fitness;
    if !fitness.fit {
        fields.push(("fit", "false".to_owned()));
    }
    let usual: &[&str] = if fitness.fit { &[] } else { &[UNFIT] };
    if fitness.reasons != usual {
        fields.push(("reasons", list(fitness.reasons.iter().map(|reason| scalar(reason)))));
    }
    if !fitness.checks.is_empty() {
        let checks = fitness.checks.iter().map(|(name, pass)| (scalar(name), pass.to_string()));
        fields.push(("checks", mapping(checks)));
    }
    if candidate.cordoned {
        fields.push(("cordoned", "true".to_owned()));
    }
    let leads = view.incumbent.as_ref().is_some_and(|i| i.name == candidate.name);
    let said = candidate.holds.iter().filter(|held| !leads || **held != view.election);
    let held: Vec<String> = said.map(|held| scalar(held.as_str())).collect();
    if !held.is_empty() {
        fields.push(("holds", list(held)));
    }
    if candidate.standing_ms != STANDING_MS {
        fields.push(("standing", span(candidate.standing_ms)));
    }
    fields
}

fn leader(incumbent: &IncumbentView, view: &View) -> String {
    let mut fields = vec![("name", scalar(incumbent.name.as_str()))];
    let own = view.candidates.iter().find(|candidate| candidate.name == incumbent.name);
    if own.is_none() {
        fields.push(("candidate", "false".to_owned()));
    }
    if own.map(|own| &own.facts).unwrap_or(&Attributes::new()) != &incumbent.facts {
        fields.push(("facts", attributes(&incumbent.facts)));
    }
    if incumbent.held_ms != HELD_MS {
        fields.push(("held", span(incumbent.held_ms)));
    }
    short(fields)
}

fn previous(previous: &PreviousView) -> String {
    let mut fields = vec![("name", scalar(previous.name.as_str()))];
    push_attributes(&mut fields, "facts", &previous.facts);
    if !previous.clean {
        fields.push(("clean", "false".to_owned()));
    }
    short(fields)
}

fn manifests(manifests: &[ManifestView]) -> String {
    list(manifests.iter().map(|manifest| {
        let mut fields = vec![("name", scalar(&manifest.name))];
        if !manifest.exclusive {
            fields.push(("exclusive", "false".to_owned()));
        }
        if manifest.content != pod(&manifest.name) {
            fields.push(("content", quoted(&manifest.content)));
        }
        short(fields)
    }))
}

/// A mapping, or the name alone where there is nothing else.
fn short(fields: Fields) -> String {
    match &fields[..] {
        [("name", name)] => name.clone(),
        _ => mapping(fields.into_iter().map(|(name, value)| (name.to_owned(), value))),
    }
}

fn push_attributes(fields: &mut Fields, name: &'static str, all: &Attributes) {
    if !all.is_empty() {
        fields.push((name, attributes(all)));
    }
}

fn attributes(attributes: &Attributes) -> String {
    mapping(attributes.iter().map(|(key, value)| (scalar(key), scalar(value))))
}

fn mapping(fields: impl IntoIterator<Item = (String, String)>) -> String {
    let fields = fields.into_iter().map(|(name, value)| format!("{name}: {value}"));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// A configuration, which is JSON, as it would be written by hand.
fn settings(config: &str) -> String {
    serde_json::from_str(config).map_or_else(|_| config.to_owned(), |value| flow(&value))
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => list(items.iter().map(flow)),
        Value::Object(fields) => {
            mapping(fields.iter().map(|(name, value)| (scalar(name), flow(value))))
        }
        plain => plain.to_string(),
    }
}

fn span(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

/// Text, in quotes unless it is plain words that YAML reads as text.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 11] =
        ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./ ".contains(c))
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { quoted(text) }
}

/// Text in double quotes. What JSON reads so, YAML does too, if it looks like one line to both.
fn quoted(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    let json = Value::from(text).to_string();
    json.chars()
        .map(|c| if breaks(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() })
        .collect()
}
