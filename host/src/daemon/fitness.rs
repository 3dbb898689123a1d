//! Whether this node can run an election's manifests: the manifests' word and the checks'.

use std::collections::BTreeMap;

use conclave_core::ElectionName;
use conclave_core::record::Fitness;

use crate::check::Report;

/// What is known of one election's fitness.
#[derive(Clone, Debug, Default)]
struct Known {
    /// `None` until the manifest loop has looked at every source.
    manifests: Option<Fitness>,
    /// The newest judgement of each configured check; `None` before its first look.
    checks: BTreeMap<String, Option<(bool, String)>>,
    /// What keeps the election from the component that is in the plugin directory now.
    plugin: Option<String>,
}

/// The fitness of every election of this node.
#[derive(Clone, Debug)]
pub(crate) struct FitnessBook(BTreeMap<ElectionName, Known>);

impl FitnessBook {
    /// Nothing is known yet about these elections and checks.
    pub(crate) fn new<'c>(
        elections: impl IntoIterator<Item = (ElectionName, Vec<&'c str>)>,
    ) -> Self {
        let known = |checks: Vec<&str>| Known {
            manifests: None,
            checks: checks.into_iter().map(|name| (name.to_owned(), None)).collect(),
            plugin: None,
        };
        Self(elections.into_iter().map(|(name, checks)| (name, known(checks))).collect())
    }

    /// The manifests' judgement changed; returns the election's, once everything is known.
    pub(crate) fn manifests(
        &mut self,
        election: &ElectionName,
        fitness: Fitness,
    ) -> Option<Fitness> {
        let known = self.0.get_mut(election)?;
        known.manifests = Some(fitness);
        known.judge()
    }

    /// A check's judgement changed; returns the election's, once everything is known.
    pub(crate) fn check(&mut self, report: Report) -> Option<Fitness> {
        let known = self.0.get_mut(&report.election)?;
        known.checks.insert(report.check, Some((report.passing, report.reason)));
        known.judge()
    }

    /// The plugin directory was looked at; returns every election's judgement that changed, once
    /// everything is known. A component that is kept out makes nobody unfit, but all can see it.
    pub(crate) fn plugins(
        &mut self,
        kept_out: &BTreeMap<ElectionName, String>,
    ) -> Vec<(ElectionName, Fitness)> {
        let mut changed = Vec::new();
        for (election, known) in &mut self.0 {
            let reason = kept_out.get(election).cloned();
            if known.plugin != reason {
                known.plugin = reason;
                changed.extend(known.judge().map(|fitness| (election.clone(), fitness)));
            }
        }
        changed
    }
}

impl Known {
    fn judge(&self) -> Option<Fitness> {
        let mut fitness = self.manifests.clone()?;
        for (name, judgement) in &self.checks {
            let (passing, reason) = judgement.as_ref()?;
            fitness.checks.insert(name.clone(), *passing);
            if !passing {
                fitness.fit = false;
                fitness.reasons.push(format!("check {name} fails: {reason}"));
            }
        }
        let plugin = self.plugin.iter();
        fitness
            .reasons
            .extend(plugin.map(|reason| format!("its policy stays as it was: {reason}")));
        Some(fitness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(check: &str, passing: bool) -> Report {
        let reason = if passing { String::new() } else { "connection refused".to_owned() };
        Report { election: "e".into(), check: check.to_owned(), passing, reason }
    }

    #[test]
    fn a_node_is_judged_only_when_everything_was_looked_at() {
        let mut book = FitnessBook::new([("e".into(), vec!["api", "disk"])]);
        assert_eq!(book.manifests(&"e".into(), Fitness::fit()), None);
        assert_eq!(book.check(report("api", true)), None);
        let fitness = book.check(report("disk", true)).unwrap();
        assert!(fitness.fit && fitness.checks.len() == 2);
    }

    #[test]
    fn a_failing_check_makes_unfit_and_names_itself() {
        let mut book = FitnessBook::new([("e".into(), vec!["api"])]);
        book.check(report("api", false));
        let fitness = book.manifests(&"e".into(), Fitness::fit()).unwrap();
        assert!(!fitness.fit);
        assert_eq!(fitness.reasons, ["check api fails: connection refused"]);
        assert!(book.check(report("api", true)).unwrap().fit);
    }

    #[test]
    fn a_component_that_is_kept_out_is_seen_and_makes_nobody_unfit() {
        let mut book = FitnessBook::new([("e".into(), vec![]), ("other".into(), vec![])]);
        let kept_out = BTreeMap::from([("e".into(), "it is half a file".to_owned())]);
        assert!(book.plugins(&kept_out).is_empty(), "nothing is known of it yet");
        let fitness = book.manifests(&"e".into(), Fitness::fit()).unwrap();
        assert!(fitness.fit);
        assert_eq!(fitness.reasons, ["its policy stays as it was: it is half a file"]);
        assert!(book.plugins(&kept_out).is_empty(), "no news");
        assert_eq!(book.plugins(&BTreeMap::new()), [("e".into(), Fitness::fit())]);
    }

    #[test]
    fn passing_checks_do_not_mend_manifests() {
        let mut book = FitnessBook::new([("e".into(), vec!["api"])]);
        book.check(report("api", true));
        assert!(!book.manifests(&"e".into(), Fitness::unfit("no source")).unwrap().fit);
    }
}
