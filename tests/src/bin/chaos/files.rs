//! What a run leaves in a directory: the table, the plot, every fault's cost, and the record that
//! the judgement was made from.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use conclave_tests::chaos::record::{millis, seconds};
use conclave_tests::chaos::verdict::Verdict;
use serde_json::{Value, json};

use crate::plot;
use crate::table::Table;

/// Writes everything; the nodes' logs too, where something happened that must not.
///
/// # Errors
///
/// When a file cannot be written.
pub(crate) fn write(out: &Path, verdict: &Verdict, table: &Table) -> Result<()> {
    fs::create_dir_all(out)?;
    fs::write(out.join("table.md"), table.to_string())?;
    fs::write(out.join("faults.csv"), csv(verdict))?;
    fs::write(out.join("record.json"), format!("{:#}\n", record(verdict)))?;
    plot::draw(&out.join("unavailability.svg"), table)?;
    if !verdict.violations.is_empty() {
        fs::write(out.join("story.txt"), verdict.story.to_string())?;
        for node in &verdict.nodes {
            let log = format!("{}.log", node.name());
            fs::copy(node.root().join(&log), out.join(&log))?;
        }
    }
    Ok(())
}

/// A line per step, so that anybody can count for himself.
fn csv(verdict: &Verdict) -> String {
    let began = verdict.story.began();
    let mut text = String::from(
        "step,at_s,faults,struck,holder,held_ms,unavailable_ms,gap_ms,orphans,recovery_ms\n",
    );
    for cost in &verdict.costs {
        let strikes: Vec<_> = verdict.record.strikes_of(cost.step).collect();
        let join = |each: Vec<&str>| each.join("+");
        let Some(first) = strikes.first() else { continue };
        let healed = strikes.iter().filter_map(|strike| strike.healed).max();
        let held = healed.map_or(0.0, |healed| millis(healed - first.struck));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{:.3},{},{},{},{held:.0},{:.1},{:.1},{},{:.1}",
            cost.step,
            seconds(began, first.struck),
            join(strikes.iter().map(|strike| strike.fault.kind.name()).collect()),
            join(strikes.iter().map(|strike| strike.at.as_str()).collect()),
            cost.holder,
            millis(cost.unavailable),
            millis(cost.gap),
            cost.orphans,
            millis(cost.recovery),
        );
    }
    text
}

/// Everything, times in seconds since the observation began.
fn record(verdict: &Verdict) -> Value {
    let began = verdict.story.began();
    let at = |at: Instant| seconds(began, at);
    let strikes = verdict.record.strikes.iter().map(|strike| {
        json!({
            "step": strike.step,
            "kind": strike.fault.kind.name(),
            "at": strike.at,
            "holder": strike.holder,
            "struck": at(strike.struck),
            "healed": strike.healed.map(at),
            "chance": strike.fault.chance,
        })
    });
    let helpless = verdict.record.helpless.iter().map(|helpless| {
        json!({
            "node": helpless.node,
            "cause": helpless.cause.name(),
            "from": at(helpless.from),
            "to": helpless.to.map(at),
        })
    });
    let orphans = verdict.orphans.iter().map(|orphan| {
        json!({
            "node": orphan.node,
            "cause": orphan.cause.name(),
            "from": at(orphan.from),
            "able": orphan.able.map(at),
            "gone": orphan.gone.map(at),
        })
    });
    let terms = verdict
        .history
        .terms
        .values()
        .map(|term| json!({ "token": term.token, "holder": term.holder, "ended": term.ended }));
    let sightings = verdict.story.all_sightings().iter().map(|seen| {
        json!([at(seen.at), seen.node, seen.file, format!("{:?}", seen.change), seen.term])
    });
    let ended = verdict.record.ended.iter();
    json!({
        "strikes": strikes.collect::<Vec<_>>(),
        "helpless": helpless.collect::<Vec<_>>(),
        "orphans": orphans.collect::<Vec<_>>(),
        "ended": ended.map(|end| json!([at(end.at), end.node, end.code])).collect::<Vec<_>>(),
        "terms": terms.collect::<Vec<_>>(),
        "sightings": sightings.collect::<Vec<_>>(),
        "violations": verdict.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use conclave_tests::chaos::arena::Design;
    use conclave_tests::etcd::Version;
    use conclave_tests::scratch;

    use super::*;
    use crate::table::tests::verdict;

    #[test]
    fn a_line_per_step_and_everything_in_one_directory() {
        let verdict = verdict();
        let text = csv(&verdict);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[1], "0,0.000,links refused,a,true,700,1200.0,300.0,0,600.0");
        let (ttl, version) = (Duration::from_secs(1), Version::V3_4);
        let table = Table::new(&verdict, &Design { nodes: 3, ttl, version, failures: &[] }, 7, ttl);
        let out = scratch::directory("chaos").unwrap();
        write(&out.path().join("new"), &verdict, &table).unwrap();
        let plot = fs::read_to_string(out.path().join("new/unavailability.svg")).unwrap();
        assert!(plot.contains("links refused, holder (2)"), "{plot}");
        let record = fs::read(out.path().join("new/record.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(record["strikes"].as_array().map(Vec::len), Some(3));
    }
}
