//! Whether an answer is what a case expects, and how it differs.

use std::collections::{BTreeMap, BTreeSet};

use conclave_core::NodeName;
use conclave_core::ranking::effective_order;
use conclave_core::record::Attributes;
use conclave_core::view::{ManifestView, Placement, View};
use conclave_policy::{Problem, Ranks};

use crate::case::Expectation;
use crate::diff::{Item, Line, diff};

/// What a policy answered, checked by the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Ranks(Ranks),
    Placements(BTreeMap<NodeName, Vec<Placement>>),
    Facts(Attributes),
    Problems(Vec<Problem>),
}

/// How an answer differs from what was expected.
pub(crate) struct Difference {
    pub(crate) what: String,
    pub(crate) lines: Vec<Line>,
}

/// What an answer is judged with.
pub(crate) enum Asked<'a> {
    Rank(&'a View),
    Place(&'a [ManifestView]),
    Other,
}

/// `None` where the answer is as expected. Expectations are checked against the question when they
/// are read, so one of another kind never comes here.
pub(crate) fn judge(
    expectation: &Expectation,
    found: &Found,
    asked: &Asked<'_>,
) -> Option<Difference> {
    match (found, asked) {
        (Found::Ranks(ranks), Asked::Rank(view)) => ranking(expectation, ranks, view),
        (Found::Placements(placed), Asked::Place(manifests)) => {
            placements(expectation, placed, manifests)
        }
        (Found::Facts(facts), _) => self::facts(expectation, facts),
        (Found::Problems(problems), _) => self::problems(expectation, problems),
        _ => None,
    }
}

fn texts<'a>(names: impl IntoIterator<Item = &'a NodeName>) -> Vec<String> {
    names.into_iter().map(|name| name.as_str().to_owned()).collect()
}

/// What was expected first, and then the rest as it was found.
fn lifted(first: &NodeName, found: &[Item]) -> Vec<String> {
    let rest = found.iter().map(|item| &item.key).filter(|key| *key != first.as_str());
    std::iter::once(first.as_str().to_owned()).chain(rest.cloned()).collect()
}

fn difference(what: String, expected: &[String], found: &[Item]) -> Option<Difference> {
    let same = expected.iter().eq(found.iter().map(|item| &item.key));
    (!same).then(|| Difference { what, lines: diff(expected, found) })
}

fn ranking(expectation: &Expectation, ranks: &Ranks, view: &View) -> Option<Difference> {
    let reasons: BTreeMap<&NodeName, &str> = ranks
        .ranking
        .order
        .iter()
        .chain(&ranks.ranking.excluded)
        .map(|ranked| (&ranked.node, ranked.reason.as_str()))
        .collect();
    let items = |names: &[NodeName]| -> Vec<Item> {
        let remark = |name| reasons.get(name).copied().unwrap_or_default();
        names.iter().map(|name| Item::new(name.as_str(), remark(name))).collect()
    };
    let order: Vec<NodeName> = ranks.ranking.order.iter().map(|r| r.node.clone()).collect();
    match expectation {
        Expectation::Order(expected) => {
            difference("the order differs".into(), &texts(expected), &items(&order))
        }
        Expectation::First(expected) => top("first", expected, &order, items),
        Expectation::Leads(expected) => {
            let order = effective_order(view, Some(&ranks.ranking));
            top("in the lead", expected, &order, items)
        }
        Expectation::Excluded(expected) => excluded(expected, ranks),
        Expectation::Forgotten(expected) => {
            let mut forgotten = ranks.forgotten.clone();
            forgotten.sort();
            let what = "other nodes are in neither list".into();
            difference(what, &texts(expected), &items(&forgotten))
        }
        Expectation::Reasons(expected) => {
            let wrong = |(node, text): (&NodeName, &String)| {
                said(node, text, reasons.get(node).copied().unwrap_or("(it is in neither list)"))
            };
            expected.iter().find_map(wrong)
        }
        _ => None,
    }
}

fn top(
    place: &str,
    expected: &NodeName,
    order: &[NodeName],
    items: impl Fn(&[NodeName]) -> Vec<Item>,
) -> Option<Difference> {
    let first = order.first();
    if first == Some(expected) {
        return None;
    }
    let found = match first {
        Some(first) => format!("`{first}`"),
        None => "nobody".to_owned(),
    };
    let what = format!("{found} is {place}, not `{expected}`");
    let items = items(order);
    difference(what, &lifted(expected, &items), &items)
}

/// Whether what was said contains a text.
fn said(node: &NodeName, expected: &str, found: &str) -> Option<Difference> {
    let what = || format!("the reason for `{node}` is another one");
    let lines = || diff(&[format!("…{expected}…")], &[Item::new(found, "")]);
    (!found.contains(expected)).then(|| Difference { what: what(), lines: lines() })
}

fn excluded(expected: &BTreeMap<NodeName, Option<String>>, ranks: &Ranks) -> Option<Difference> {
    let found: BTreeMap<&NodeName, &str> =
        ranks.ranking.excluded.iter().map(|r| (&r.node, r.reason.as_str())).collect();
    let items: Vec<Item> =
        found.iter().map(|(node, reason)| Item::new(node.as_str(), reason)).collect();
    let differs = difference("other nodes are excluded".into(), &texts(expected.keys()), &items);
    differs.or_else(|| {
        expected.iter().find_map(|(node, text)| said(node, text.as_deref()?, found.get(node)?))
    })
}

fn placements(
    expectation: &Expectation,
    placed: &BTreeMap<NodeName, Vec<Placement>>,
    manifests: &[ManifestView],
) -> Option<Difference> {
    let running = |node: &NodeName| -> BTreeSet<&str> {
        let placements = placed.get(node).into_iter().flatten().filter(|placement| placement.run);
        placements.map(|placement| placement.manifest.as_str()).collect()
    };
    match expectation {
        Expectation::Runs(expected) => expected.iter().find_map(|(node, names)| {
            let found: Vec<Item> =
                running(node).into_iter().map(|name| Item::new(name, "")).collect();
            let names: Vec<String> = names.iter().cloned().collect();
            difference(format!("other manifests run on `{node}`"), &names, &found)
        }),
        Expectation::ExclusiveOnlyOn(leader) => placed.keys().find_map(|node| {
            let exclusive = |name: &&str| manifests.iter().any(|m| m.exclusive && m.name == **name);
            let found: Vec<Item> =
                running(node).into_iter().filter(exclusive).map(|n| Item::new(n, "")).collect();
            let all = manifests.iter().filter(|manifest| manifest.exclusive && node == leader);
            let mut names: Vec<String> = all.map(|manifest| manifest.name.clone()).collect();
            names.sort();
            difference(format!("other exclusive manifests run on `{node}`"), &names, &found)
        }),
        Expectation::Variables(expected) => expected.iter().find_map(|(node, of_manifests)| {
            of_manifests.iter().find_map(|(manifest, variables)| {
                let placements = placed.get(node).into_iter().flatten();
                let found = placements.filter(|p| p.manifest == *manifest).map(|p| &p.variables);
                let found: Vec<Item> =
                    found.flatten().map(|(name, value)| Item::new(pair(name, value), "")).collect();
                let what = format!("the variables of `{manifest}` on `{node}` differ");
                difference(what, &pairs(variables), &found)
            })
        }),
        _ => None,
    }
}

fn pair(key: &str, value: &str) -> String {
    format!("{key}: {value}")
}

fn pairs(attributes: &Attributes) -> Vec<String> {
    attributes.iter().map(|(key, value)| pair(key, value)).collect()
}

fn facts(expectation: &Expectation, found: &Attributes) -> Option<Difference> {
    let items = |keep: &dyn Fn(&String) -> bool| -> Vec<Item> {
        let kept = found.iter().filter(|(key, _)| keep(key));
        kept.map(|(key, value)| Item::new(pair(key, value), "")).collect()
    };
    match expectation {
        Expectation::Facts(expected) => {
            difference("the facts differ".into(), &pairs(expected), &items(&|_| true))
        }
        Expectation::HasFacts(expected) => {
            let found = items(&|key| expected.contains_key(key));
            difference("facts are missing".into(), &pairs(expected), &found)
        }
        _ => None,
    }
}

fn problems(expectation: &Expectation, found: &[Problem]) -> Option<Difference> {
    let Expectation::Problems(expected) = expectation else { return None };
    let line = |path: &str, message: &str| format!("{path:?}: {message}");
    let fits = |problem: &Problem| {
        let text = expected.get(&problem.path);
        text.is_some_and(|text| problem.message.contains(text.as_str()))
    };
    let all_found = expected.iter().all(|(path, _)| found.iter().any(|p| p.path == *path));
    if all_found && found.iter().all(fits) {
        return None;
    }
    // A message that contains what it should is shown as expected.
    let expected: Vec<String> = expected
        .iter()
        .flat_map(|(path, text)| {
            let fitting: Vec<String> = found
                .iter()
                .filter(|problem| problem.path == *path && fits(problem))
                .map(|problem| line(path, &problem.message))
                .collect();
            if fitting.is_empty() { vec![line(path, &format!("…{text}…"))] } else { fitting }
        })
        .collect();
    let found: Vec<Item> =
        found.iter().map(|problem| Item::new(line(&problem.path, &problem.message), "")).collect();
    Some(Difference { what: "the problems differ".into(), lines: diff(&expected, &found) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_manifest_that_the_leader_lacks_or_another_has_is_found() {
        let manifest = |name: &str, exclusive| ManifestView {
            name: name.into(),
            exclusive,
            content: String::new(),
        };
        let manifests = [manifest("x", true), manifest("y", false)];
        let judged = |a: &[&str], b: &[&str]| {
            let place = |running: &[&str]| -> Vec<Placement> {
                let placement = |manifest: &ManifestView| Placement {
                    manifest: manifest.name.clone(),
                    run: running.contains(&manifest.name.as_str()),
                    variables: Attributes::new(),
                };
                manifests.iter().map(placement).collect()
            };
            let placed = BTreeMap::from([("a".into(), place(a)), ("b".into(), place(b))]);
            let expectation = Expectation::ExclusiveOnlyOn("a".into());
            let found = judge(&expectation, &Found::Placements(placed), &Asked::Place(&manifests));
            found.map(|difference| difference.what)
        };
        assert_eq!(judged(&["x", "y"], &["y"]), None);
        assert_eq!(judged(&["x"], &[]), None);
        for (a, b, node) in [(&["y"][..], &["y"][..], "a"), (&["x"], &["x"], "b")] {
            let what = format!("other exclusive manifests run on `{node}`");
            assert_eq!(judged(a, b), Some(what));
        }
    }
}
