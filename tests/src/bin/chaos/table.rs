//! What every kind of fault cost, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use conclave_tests::chaos::arena::Design;
use conclave_tests::chaos::availability::Cost;
use conclave_tests::chaos::expiry::Withdrawal;
use conclave_tests::chaos::fault::{Group, Kind};
use conclave_tests::chaos::orphan::Orphan;
use conclave_tests::chaos::record::{Cause, millis};
use conclave_tests::chaos::verdict::{Verdict, bound};
use conclave_tests::quantile::quantile;

/// Whose costs a row has together: a kind, `None` for several at once, and whether the holder was
/// struck.
pub(crate) type Row = (Option<Kind>, bool);

/// A run's table.
pub(crate) struct Table {
    /// The costs, by row.
    pub(crate) rows: BTreeMap<Row, Vec<Cost>>,
    head: Vec<String>,
    foot: Vec<String>,
}

/// A row's name.
pub(crate) fn name((kind, holder): Row) -> String {
    let Some(kind) = kind else { return "several at once".to_owned() };
    match (kind.group(), holder) {
        (Group::Store, _) => kind.name().to_owned(),
        (_, true) => format!("{}, holder", kind.name()),
        (_, false) => format!("{}, standby", kind.name()),
    }
}

impl Table {
    /// Puts a run's table together.
    pub(crate) fn new(verdict: &Verdict, design: &Design, seed: u64, took: Duration) -> Self {
        let mut rows: BTreeMap<Row, Vec<Cost>> = BTreeMap::new();
        for cost in &verdict.costs {
            let row = (cost.kind, cost.kind.is_some() && cost.holder);
            rows.entry(row).or_default().push(cost.clone());
        }
        let Design { nodes, ttl, version, .. } = design;
        let head = vec![
            format!(
                "{} faults in {} steps, seed {seed}, {nodes} nodes, TTL {ttl:?}, etcd {} with 3 members, {:.0} s",
                verdict.record.strikes.len(),
                verdict.record.steps.len(),
                version.name(),
                took.as_secs_f64(),
            ),
            format!("{} binary", if cfg!(debug_assertions) { "debug" } else { "release" }),
        ];
        Table { rows, head, foot: foot(verdict, design) }
    }
}

fn foot(verdict: &Verdict, design: &Design) -> Vec<String> {
    let mut foot = vec![
        format!(
            "two holders, orphans apart: {}; all violations: {}",
            count(verdict, "OneHolder"),
            verdict.violations.len()
        ),
        format!(
            "terms in the store: {}; changes of files seen: {}",
            verdict.history.terms.len(),
            verdict.story.all_sightings().len()
        ),
    ];
    let recoveries: Vec<f64> = verdict.costs.iter().map(|cost| millis(cost.recovery)).collect();
    if !recoveries.is_empty() {
        let bound = bound(design.ttl, design.nodes);
        let beyond = recoveries.iter().filter(|ms| **ms > millis(bound)).count();
        foot.push(format!(
            "healed to led again: median {:.0} ms, p95 {:.0} ms, max {:.0} ms; beyond the {:.0} ms of S7: {beyond}",
            quantile(&recoveries, 0.5),
            quantile(&recoveries, 0.95),
            quantile(&recoveries, 1.0),
            millis(bound),
        ));
    }
    foot.push(stalls(verdict, design.ttl / 5));
    foot.extend(withdrawals(verdict));
    let causes = [Cause::Killed, Cause::Frozen, Cause::Disk];
    foot.extend(causes.into_iter().filter_map(|cause| orphans(verdict, cause)));
    let ended = &verdict.record.ended;
    if !ended.is_empty() {
        let codes: Vec<String> =
            ended.iter().map(|end| format!("{} with {:?}", end.node, end.code)).collect();
        foot.push(format!("guards that ended by themselves: {}", codes.join(", ")));
    }
    foot.extend(verdict.violations.iter().map(|violation| format!("VIOLATION {violation}")));
    foot
}

fn count(verdict: &Verdict, rule: &str) -> usize {
    verdict.violations.iter().filter(|violation| format!("{:?}", violation.rule) == rule).count()
}

/// How busy the machine was, in a line.
fn stalls(verdict: &Verdict, limit: Duration) -> String {
    let spans = verdict.stalls.iter().filter_map(|stall| Some(stall.to? - stall.from));
    let spans: Vec<f64> = spans.map(millis).collect();
    format!(
        "a bystander's write took longer than {limit:?} {} times, {:.0} s together, faults of etcd included",
        spans.len(),
        spans.iter().sum::<f64>() / 1e3,
    )
}

/// How nodes withdrew that could not renew their sessions, in a line.
fn withdrawals(verdict: &Verdict) -> Option<String> {
    let all = &verdict.withdrawals;
    let spare: Vec<f64> = all.iter().filter_map(Withdrawal::spare_ms).collect();
    if spare.is_empty() {
        return None;
    }
    let past = all.iter().filter(|one| one.spare_ms().is_none_or(|spare| spare < 0.0)).count();
    Some(format!(
        "silent for longer than the TTL: {}; withdrawn before the expiry by median {:.0} ms, least {:.0} ms; past it: {past}",
        all.len(),
        quantile(&spare, 0.5),
        quantile(&spare, 0.0),
    ))
}

/// The orphans of a cause, in a line.
fn orphans(verdict: &Verdict, cause: Cause) -> Option<String> {
    let end = verdict.story.all_sightings().last()?.at;
    let of: Vec<&Orphan> = verdict.orphans.iter().filter(|orphan| orphan.cause == cause).collect();
    let lengths: Vec<f64> = of.iter().map(|orphan| millis(orphan.length(end))).collect();
    if lengths.is_empty() {
        return None;
    }
    let last =
        |orphan: &&Orphan| Some(millis(orphan.gone?.saturating_duration_since(orphan.able?)));
    let after: Vec<f64> = of.iter().filter_map(last).collect();
    let gone = match (cause, after.is_empty()) {
        (Cause::Killed, false) => format!(
            "; gone after the restart began: median {:.0} ms, max {:.0} ms",
            quantile(&after, 0.5),
            quantile(&after, 1.0)
        ),
        _ => String::new(),
    };
    Some(format!(
        "orphans ({}): {}, in place for median {:.0} ms, max {:.0} ms{gone}",
        cause.name(),
        lengths.len(),
        quantile(&lengths, 0.5),
        quantile(&lengths, 1.0),
    ))
}

/// Markdown, readable as it is.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(
            f,
            "\n| {:<34} | steps | moved | median ms | p95 ms | max ms | longest gap ms | orphans |",
            "fault"
        )?;
        writeln!(
            f,
            "|:{:-<34}-|------:|------:|----------:|-------:|-------:|---------------:|--------:|",
            ""
        )?;
        for (row, costs) in &self.rows {
            let unavailable: Vec<f64> = costs.iter().map(|cost| millis(cost.unavailable)).collect();
            let gap = costs.iter().map(|cost| cost.gap).max().unwrap_or_default();
            writeln!(
                f,
                "| {:<34} | {:>5} | {:>5} | {:>9.0} | {:>6.0} | {:>6.0} | {:>14.0} | {:>7} |",
                name(*row),
                costs.len(),
                unavailable.iter().filter(|ms| **ms > 0.0).count(),
                quantile(&unavailable, 0.5),
                quantile(&unavailable, 0.95),
                quantile(&unavailable, 1.0),
                millis(gap),
                costs.iter().map(|cost| cost.orphans).sum::<usize>(),
            )?;
        }
        writeln!(f)?;
        self.foot.iter().try_for_each(|line| writeln!(f, "- {line}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Instant;

    use conclave_tests::chaos::fault::{Fault, Target};
    use conclave_tests::chaos::history::History;
    use conclave_tests::chaos::record::{Record, Strike};
    use conclave_tests::etcd::Version;
    use conclave_tests::timeline::Timeline;

    use super::*;

    const TTL: Duration = Duration::from_secs(1);

    /// Three steps of one fault: two struck the holder, and one of these cost 1200 ms.
    pub(crate) fn verdict() -> Verdict {
        let began = Instant::now();
        let (kind, ms) = (Kind::LinksRefused, Duration::from_millis);
        let steps = [(true, 1200), (true, 0), (false, 0)].into_iter().enumerate();
        let (mut strikes, mut costs) = (Vec::new(), Vec::new());
        for (step, (holder, cost)) in steps {
            let struck = began + TTL * step as u32;
            let (target, after) = (Target::Holder, Duration::ZERO);
            strikes.push(Strike {
                fault: Fault { kind, target, after, chance: 0 },
                step,
                at: "a".to_owned(),
                holder,
                struck,
                took: struck,
                healed: Some(struck + ms(700)),
            });
            costs.push(Cost {
                kind: Some(kind),
                holder,
                step,
                unavailable: ms(cost),
                gap: ms(cost / 4),
                orphans: 0,
                recovery: ms(cost / 2),
            });
        }
        Verdict {
            record: Record { strikes, ..Record::default() },
            story: Timeline::new(began, Vec::new(), Vec::new()),
            history: History::default(),
            orphans: Vec::new(),
            withdrawals: Vec::new(),
            stalls: Vec::new(),
            costs,
            violations: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// A table's cells, without what only aligns them.
    fn cells(line: &str) -> Vec<&str> {
        line.trim_matches('|').split('|').map(str::trim).collect()
    }

    #[test]
    fn a_row_for_holders_and_one_for_standbys() {
        let design = Design { nodes: 3, ttl: TTL, version: Version::V3_4, failures: &[] };
        let text = Table::new(&verdict(), &design, 7, TTL).to_string();
        let rows: Vec<_> =
            text.lines().filter(|line| line.contains("refused")).map(cells).collect();
        assert_eq!(
            rows,
            [
                ["links refused, standby", "1", "0", "0", "0", "0", "0", "0"],
                ["links refused, holder", "2", "1", "0", "1200", "1200", "300", "0"],
            ],
            "{text}"
        );
        assert!(text.contains("seed 7") && text.contains("all violations: 0"), "{text}");
        assert!(text.contains("max 600 ms; beyond the 1752 ms of S7: 0"), "{text}");
    }
}
