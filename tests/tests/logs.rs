//! What a node logs for programs, and that every change of its role can be told from it.

use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::node::ELECTION;
use conclave_tests::proxy::Mode;
use conclave_tests::{Outcome, PATIENCE, eventually};
use serde_json::Value;

#[test]
fn every_change_of_role_is_a_line_of_json_that_says_which_and_why() -> Outcome {
    let mut cluster = Cluster::prepare(&["a", "b"], &Plan::default())?;
    for node in &mut cluster.nodes {
        node.start_as(|mut command| {
            command.env("CONCLAVE_LOG_FORMAT", "json");
            command
        })?;
    }
    let first = cluster.settle()?;
    let second = cluster.other(&first);
    cluster.transfer(&second)?;
    cluster.leader_after(&first)?;
    cluster.link(&second, Mode::BlackHole)?;
    cluster.leader_after(&second)?;
    cluster.link(&second, Mode::Pass)?;
    cluster.wait_for_candidates(2)?;

    for (node, message, reason) in [
        (&first, "term began", "why"),
        (&first, "leading: exclusive effects in place", "token"),
        (&first, "leading no more: withdrawing", "reason"),
        (&first, "term ended", "why"),
        (&second, "term began", "why"),
        (&second, "leading no more: withdrawing", "reason"),
    ] {
        let what = format!("{node} to tell `{message}`");
        let line = eventually(&what, PATIENCE, || {
            let output = cluster.node(node).output().ok()?;
            let mut lines = output.lines().filter_map(|line| serde_json::from_str(line).ok());
            lines.find(|line: &Value| line["message"] == message)
        })?;
        assert_eq!(line["election"], ELECTION, "{line}");
        assert!(!line["token"].is_null() && !line[reason].is_null(), "{line}");
    }
    for node in [&first, &second] {
        let output = cluster.node(node).output()?;
        for line in output.lines() {
            let line: Value = serde_json::from_str(line)?;
            let whole = ["timestamp", "level", "message", "target"];
            assert!(whole.iter().all(|field| line[field].is_string()), "{line}");
        }
        assert!(output.contains("conclave::guard"), "the guard logs alike: {output}");
    }
    cluster.finish()?;
    Ok(())
}
