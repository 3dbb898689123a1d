//! Reading a scenario: who takes part, by which policies, through which story.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use conclave_core::record::Attributes;
use conclave_policy_test::PolicySource;
use conclave_yaml::{Document, NameOr, Path, Problem, Problems, Resolver, Span, decode};

use super::raw;
use super::story::{Action, Kind, Rate, Step};

/// A larger file is no scenario.
const LARGEST: u64 = 1 << 20;

/// More nodes, or elections, are no picture.
const MOST: usize = 20;

/// How long a story may be.
const LONGEST: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// A scenario.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scenario {
    pub(crate) nodes: Vec<(String, Attributes)>,
    pub(crate) elections: Vec<String>,
    pub(crate) ttl: Duration,
    pub(crate) minimum_term: Duration,
    pub(crate) takeover_delay: Duration,
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
    pub(crate) policies: Vec<PolicyChoice>,
    pub(crate) steps: Vec<Step>,
    pub(crate) rates: Vec<Rate>,
}

/// A policy to play the story with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PolicyChoice {
    /// What it is called in the result.
    pub(crate) name: String,
    pub(crate) source: PolicySource,
    /// A JSON object as text.
    pub(crate) config: String,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(crate) fn read(file: &FilePath) -> Result<Self, Problems> {
        let unreadable = |error: std::io::Error| {
            Problem::new(None, format!("cannot read the scenario {}: {error}", file.display()))
                .help("examples/simulate has some to start from")
        };
        if fs::metadata(file).map_err(unreadable)?.len() > LARGEST {
            let message = format!("{} is larger than a scenario may be", file.display());
            return Err(Problem::new(None, message).help("the most is 1 MiB").into());
        }
        let name = file.display().to_string();
        let text = Document::text(&name, fs::read(file).map_err(unreadable)?)?;
        Scenario::parse(file, &text)
    }

    /// As [`read`](Self::read), for a text that was read already.
    pub(crate) fn parse(file: &FilePath, text: &str) -> Result<Self, Problems> {
        let document = Document::parse(&file.display().to_string(), text)?;
        let decoded = decode::<Option<raw::Root>>(&document)?;
        let base = file.parent().unwrap_or(FilePath::new(""));
        let (mut r, root) = Resolver::new(&document, decoded, "the scenario", base);
        let scenario = scenario(&mut r, root.unwrap_or_default());
        r.finish(scenario, false).map(|(scenario, _)| scenario)
    }
}

fn scenario(r: &mut Resolver<'_>, root: raw::Root) -> Option<Scenario> {
    let top = Path::default();
    let nodes = nodes(r, root.nodes, &top);
    let elections = elections(r, root.elections, &top);
    let ttl = bounded(r, root.ttl, &top.key("ttl"), "10s");
    let duration =
        r.required(&top, "duration", root.duration, "say how long it goes on: `10m`, `7d`");
    let duration = duration.map(|span| span.0);
    if let Some(span) = duration.filter(|span| *span > LONGEST || span.is_zero()) {
        let span = humantime::format_duration(span);
        r.wrong(&top.key("duration"), format!("the duration is {span}"), "the longest is 60 days");
    }
    let policies = policies(r, root.policies, &top);
    let names: Vec<&str> = nodes.iter().map(|(name, _)| name.as_str()).collect();
    let mut steps = Vec::new();
    let story = root.story.unwrap_or_default();
    let list = top.key("story");
    for (path, step) in r.items(&list, story.len()).into_iter().zip(story) {
        let step = self::step(r, step, &path, &names);
        if step.as_ref().is_some_and(|step| duration.is_some_and(|whole| step.at >= whole)) {
            r.wrong(&path, "this would happen after the end", "let the story last longer");
        }
        steps.extend(step);
    }
    let rates = rates(r, root.random.unwrap_or_default(), &top.key("random"));
    let span = |written: Option<Span>| written.map(|span| span.0);
    Some(Scenario {
        nodes,
        elections,
        ttl,
        minimum_term: span(root.minimum_term).unwrap_or(Duration::from_secs(30)),
        takeover_delay: span(root.takeover_delay).unwrap_or_default(),
        duration: duration?,
        seed: root.seed.unwrap_or(1),
        policies,
        steps,
        rates,
    })
}

fn nodes(
    r: &mut Resolver<'_>,
    written: Option<Vec<NameOr<raw::Node>>>,
    top: &Path,
) -> Vec<(String, Attributes)> {
    const HELP: &str =
        "name the nodes: `nodes: [a, b, c]`, or with labels `{name: a, labels: {rack: r1}}`";
    let list = top.key("nodes");
    let Some(written) = r.required(top, "nodes", written, HELP) else { return Vec::new() };
    if written.len() > MOST || (written.is_empty() && !r.is_faulty(&list)) {
        let message = format!("{} nodes make no story", written.len());
        r.wrong_field(&list, message, format!("name 1 to {MOST}"));
    }
    let mut nodes: Vec<(String, Attributes)> = Vec::new();
    for (path, node) in r.items(&list, written.len()).into_iter().zip(written) {
        let (name, labels) = match node {
            NameOr::Name(name) => (Some(name), Attributes::new()),
            NameOr::Full(node) => {
                (r.required(&path, "name", node.name, HELP), node.labels.unwrap_or_default())
            }
        };
        let Some(name) = name else { continue };
        if nodes.iter().any(|(other, _)| *other == name) || name.is_empty() || name == "all" {
            r.wrong(&path, format!("`{name}` is no name for another node"), HELP);
        }
        nodes.push((name, labels));
    }
    nodes
}

fn elections(r: &mut Resolver<'_>, written: Option<Vec<String>>, top: &Path) -> Vec<String> {
    let written = written.unwrap_or_else(|| vec!["service".to_owned()]);
    let mut sorted = written.clone();
    sorted.sort();
    sorted.dedup();
    if sorted.len() != written.len() || written.is_empty() || written.len() > MOST {
        let help = format!("name 1 to {MOST}, each once, or leave it out for one");
        r.wrong_field(&top.key("elections"), "these elections make no story", help);
    }
    written
}

fn bounded(r: &mut Resolver<'_>, written: Option<Span>, path: &Path, default: &str) -> Duration {
    let span =
        written.map_or_else(|| humantime::parse_duration(default).unwrap_or_default(), |it| it.0);
    if span < Duration::from_millis(500) || span > Duration::from_secs(3600) {
        r.wrong(
            path,
            format!("{path} is {}", humantime::format_duration(span)),
            "it is 500ms to 1h",
        );
        return Duration::from_secs(10);
    }
    span
}

fn policies(
    r: &mut Resolver<'_>,
    written: Option<Vec<NameOr<raw::Policy>>>,
    top: &Path,
) -> Vec<PolicyChoice> {
    const HELP: &str =
        "name policies to compare: `policies: [cold-standby, {policy: preferred, config: {…}}]`";
    let list = top.key("policies");
    let written = written.unwrap_or_else(|| vec![NameOr::Name("cold-standby".to_owned())]);
    if written.is_empty() && !r.is_faulty(&list) {
        r.wrong_field(&list, "there is no policy to play it with", HELP);
    }
    let mut all: Vec<PolicyChoice> = Vec::new();
    for (path, policy) in r.items(&list, written.len()).into_iter().zip(written) {
        let (policy, config, name, at) = match policy {
            NameOr::Name(policy) => (Some(policy), None, None, path.clone()),
            NameOr::Full(it) => {
                let at = path.key("policy");
                (r.required(&path, "policy", it.policy, HELP), it.config, it.name, at)
            }
        };
        let Some(policy) = policy else { continue };
        let config = config.unwrap_or_else(|| serde_json::json!({}));
        if !config.is_object() {
            r.wrong(&path.key("config"), "the policy's configuration is no mapping", HELP);
        }
        let source = match PolicySource::new(&policy, FilePath::new("")) {
            PolicySource::File(_) => PolicySource::File(file(r, &policy, &at)),
            built_in @ PolicySource::BuiltIn(_) => built_in,
        };
        let name = name.unwrap_or(policy);
        if all.iter().any(|other| other.name == name) {
            r.wrong(&path, format!("there are two policies `{name}`"), "give one of them a `name`");
        }
        all.push(PolicyChoice { name, source, config: config.to_string() });
    }
    all
}

fn file(r: &mut Resolver<'_>, policy: &str, at: &Path) -> PathBuf {
    let file = r.file(at, policy);
    if !file.is_file() {
        r.wrong(
            at,
            format!("there is no policy `{policy}`"),
            "name a built-in one (cold-standby, hot-standby, preferred, spread, oldest-version, executor-match), or a component's file",
        );
    }
    file
}

/// What a step says that happens, by the fields that are there.
fn actions(step: &raw::Step) -> Vec<(&'static str, Kind, Option<String>)> {
    let named = [
        ("crash", Kind::Crash, &step.crash),
        ("kill_daemon", Kind::KillDaemon, &step.kill_daemon),
        ("suspend", Kind::Suspend, &step.suspend),
        ("cut_off", Kind::CutOff, &step.cut_off),
        ("unfit", Kind::Unfit, &step.unfit),
        ("cordon", Kind::Cordon, &step.cordon),
        ("restart", Kind::Restart, &step.restart),
        ("transfer_to", Kind::TransferTo, &step.transfer_to),
    ];
    let flags =
        [("store_down", Kind::StoreDown, step.store_down), ("pause", Kind::Pause, step.pause)];
    let named = named
        .into_iter()
        .filter_map(|(field, kind, node)| Some((field, kind, Some(node.clone()?))));
    let flags = flags.into_iter().filter(|(.., set)| *set == Some(true));
    named.chain(flags.map(|(field, kind, _)| (field, kind, None))).collect()
}

fn step(r: &mut Resolver<'_>, step: raw::Step, path: &Path, nodes: &[&str]) -> Option<Step> {
    const HELP: &str = "write one thing that happens, and when: `{at: 10s, crash: a, lasts: 30s}`";
    let found = actions(&step);
    let [(field, kind, node)] = &found[..] else {
        r.wrong(path, format!("{} things happen in this step", found.len()), HELP);
        return None;
    };
    let (at, every) = match (step.at, step.every) {
        (Some(at), every) => (at.0, every.map(|span| span.0)),
        (None, Some(every)) => (every.0, Some(every.0)),
        (None, None) => {
            r.missing(path, "at", HELP);
            return None;
        }
    };
    if every.is_some_and(|every| every < Duration::from_secs(1)) {
        r.wrong(&path.key("every"), "this happens too often to be told", "the least is `1s`");
        return None;
    }
    let nodes = match node.as_deref() {
        None => Vec::new(),
        Some("all") => (0..nodes.len()).collect(),
        Some(name) => match nodes.iter().position(|node| *node == name) {
            Some(at) => vec![at],
            None => {
                let help = format!("the nodes are {}, or `all`", nodes.join(", "));
                r.wrong(&path.key(field), format!("there is no node `{name}`"), help);
                return None;
            }
        },
    };
    if *kind == Kind::TransferTo && nodes.len() != 1 {
        r.wrong(&path.key(field), "a term moves to one node", "name it");
        return None;
    }
    let lasts = step.lasts.map(|span| span.0).or(kind.usual());
    Some(Step { at, every, action: Action { kind: *kind, nodes, lasts } })
}

fn rates(r: &mut Resolver<'_>, written: raw::Random, path: &Path) -> Vec<Rate> {
    let all: BTreeMap<&str, (Kind, Option<raw::Rate>)> = BTreeMap::from([
        ("crash", (Kind::Crash, written.crash)),
        ("restart", (Kind::Restart, written.restart)),
        ("suspend", (Kind::Suspend, written.suspend)),
        ("cut_off", (Kind::CutOff, written.cut_off)),
        ("unfit", (Kind::Unfit, written.unfit)),
        ("store_down", (Kind::StoreDown, written.store_down)),
    ]);
    let mut rates = Vec::new();
    for (field, (kind, rate)) in all {
        let Some(rate) = rate else { continue };
        let at = path.key(field);
        const HELP: &str =
            "write `{every: 12h, lasts: 5m}`: how far apart, and how long, in the mean";
        let every = r.required(&at, "every", rate.every, HELP);
        let lasts = r.required(&at, "lasts", rate.lasts, HELP);
        let (Some(every), Some(lasts)) = (every, lasts) else { continue };
        if every.0 < Duration::from_secs(1) || lasts.0.is_zero() {
            r.wrong(&at, "this happens too often to be told", HELP);
            continue;
        }
        rates.push(Rate { kind, every: every.0, lasts: lasts.0 });
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
nodes: [a, {name: b, labels: {rack: r1}}, c]
duration: 10m
policies: [cold-standby, {policy: preferred, name: mine, config: {weights: {b: 1}}}]
story:
  - {at: 1m, crash: a, lasts: 30s}
  - {every: 2m, restart: all}
random:
  cut_off: {every: 1h, lasts: 20s}
";

    fn parse(text: &str) -> Result<Scenario, Problems> {
        Scenario::parse(FilePath::new("/s/scenario.yaml"), text)
    }

    #[test]
    fn a_scenario_says_who_takes_part_and_what_happens() {
        let scenario = parse(GOOD).unwrap_or_else(|problems| panic!("{problems}"));
        let names: Vec<&str> = scenario.nodes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(scenario.nodes[1].1["rack"], "r1");
        assert_eq!(scenario.elections, ["service"]);
        assert_eq!(scenario.ttl, Duration::from_secs(10));
        let policies: Vec<&str> = scenario.policies.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(policies, ["cold-standby", "mine"]);
        assert_eq!(scenario.steps[0].action.lasts, Some(Duration::from_secs(30)));
        assert_eq!(scenario.steps[1].every, Some(Duration::from_secs(120)));
        assert_eq!(scenario.steps[1].action.nodes, [0, 1, 2]);
        assert_eq!(scenario.rates[0].kind, Kind::CutOff);
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        for (from, to, place, message) in [
            ("crash: a", "crash: z", "5:21", "there is no node `z`"),
            ("crash: a", "crahs: a", "5:14", "unknown field `crahs`"),
            ("crash: a", "crash: a, pause: true", "5:5", "2 things happen in this step"),
            ("at: 1m, ", "", "5:5", "has no `at`"),
            ("at: 1m", "at: soon", "5:10", "expected a duration"),
            ("duration: 10m", "duration: 1000d", "2:11", "the duration is"),
            ("duration: 10m\n", "", "1:1", "has no `duration`"),
            ("at: 1m", "at: 10m", "5:5", "after the end"),
            ("[a, {", "[a, a, {", "1:12", "`a` is no name for another node"),
            ("name: mine", "name: cold-standby", "3:26", "there are two policies `cold-standby`"),
            ("cold-standby,", "cold-stanby,", "3:12", "there is no policy `cold-stanby`"),
            ("lasts: 20s}", "}", "8:12", "has no `lasts`"),
            ("every: 2m", "every: 1ms", "6:13", "too often"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let problems = parse(&GOOD.replacen(from, to, 1)).expect_err(to).to_string();
            let at = format!("/s/scenario.yaml:{place}");
            assert!(problems.contains(message) && problems.contains(&at), "{to}:\n{problems}");
        }
    }
}
