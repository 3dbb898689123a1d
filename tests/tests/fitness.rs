//! Checks decide who is fit: a leader gives way to a node that is, and to no other.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::node::Node;
use conclave_tests::{Outcome, PATIENCE, eventually};
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A TTL that outlasts the test: whatever happens did not happen because a session ran out.
fn patient() -> Plan {
    Plan { ttl: "60s", ..Plan::default() }
}

/// What must be there for a node to be healthy, by its checks.
fn healthy(node: &Node) -> PathBuf {
    node.root().join("healthy")
}

/// Three nodes whose configuration was changed so, all of them healthy; one leads.
fn checked(change: impl Fn(&mut Value)) -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::prepare(&NAMES, &patient())?;
    for node in &mut cluster.nodes {
        fs::write(healthy(node), "")?;
        change(node.config());
        node.start()?;
    }
    cluster.settle()?;
    Ok(cluster)
}

/// Waits until a node is published as fit or unfit.
fn wait_until(cluster: &Cluster, name: &str, fit: bool) -> anyhow::Result<Value> {
    eventually(&format!("{name} to be published, fit: {fit}"), PATIENCE, || {
        let candidacy = cluster.candidacy(name).ok()?;
        (candidacy["fitness"]["fit"] == json!(fit)).then_some(candidacy)
    })
}

/// The leader falls ill while the others are, then one of those recovers, and then the leader.
fn gives_way_only_to_a_fit_node(cluster: &mut Cluster, check: &str) -> Outcome {
    let leader = cluster.leader()?;
    let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != leader).collect();
    for name in others.iter().copied().chain([&*leader]) {
        fs::remove_file(healthy(cluster.node(name)))?;
        let candidacy = wait_until(cluster, name, false)?;
        assert_eq!(candidacy["fitness"]["checks"][check], json!(false), "{candidacy}");
        let reasons = candidacy["fitness"]["reasons"].to_string();
        assert!(reasons.contains(&format!("check {check} fails")), "{reasons}");
    }
    cluster.leads_for(&leader, Duration::from_secs(1))?;
    fs::write(healthy(cluster.node(others[1])), "")?;
    assert_eq!(cluster.leader_after(&leader)?, others[1]);
    // Recovered, it stands again, and leadership stays where it is.
    fs::write(healthy(cluster.node(&leader)), "")?;
    let candidacy = wait_until(cluster, &leader, true)?;
    assert_eq!(candidacy["fitness"]["checks"][check], json!(true), "{candidacy}");
    cluster.leads_for(others[1], Duration::from_secs(1))?;
    fs::remove_file(healthy(cluster.node(others[1])))?;
    assert_eq!(cluster.leader_after(others[1])?, leader, "the other one is still ill");
    Ok(())
}

#[test]
fn a_leader_gives_way_only_to_a_node_for_which_the_elections_checks_hold() -> Outcome {
    let mut cluster = checked(|config| {
        let check = json!({ "name": "health", "file": "healthy", "interval": "20ms" });
        config["elections"][0]["fitness"] = json!([check]);
    })?;
    gives_way_only_to_a_fit_node(&mut cluster, "health")?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_nodes_own_checks_count_in_its_elections() -> Outcome {
    let mut cluster = checked(|config| {
        let check = json!({ "name": "health", "command": ["test", "-e", "healthy"] });
        config["node"]["fitness"] = json!([check]);
        config["node"]["fitness"][0]["interval"] = json!("50ms");
    })?;
    gives_way_only_to_a_fit_node(&mut cluster, "health")?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_check_that_hangs_fails_and_leaves_nothing_running() -> Outcome {
    let script = "test -e healthy || { sleep 1000 & wait; }";
    let mut cluster = checked(|config| {
        config["elections"][0]["fitness"] = json!([{
            "name": "hangs", "command": ["sh", "-c", script],
            "interval": "50ms", "timeout": "500ms", "rise": 1, "fall": 1,
        }]);
    })?;
    let leader = cluster.leader()?;
    fs::remove_file(healthy(cluster.node(&leader)))?;
    cluster.leader_after(&leader)?;
    let candidacy = wait_until(&cluster, &leader, false)?;
    let reasons = candidacy["fitness"]["reasons"].to_string();
    assert!(reasons.contains("no answer within 500ms"), "{reasons}");
    // The last look that hung is over before the first that holds.
    fs::write(healthy(cluster.node(&leader)), "")?;
    wait_until(&cluster, &leader, true)?;
    let daemon = cluster.node(&leader).daemon()?;
    let guard = cluster.node(&leader).guard()?;
    eventually("nothing but guard and daemon", PATIENCE, || {
        guard.family().iter().all(|pid| [daemon, guard.pid()].contains(pid)).then_some(())
    })?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_single_failure_of_several_that_are_allowed_moves_nothing() -> Outcome {
    let mut cluster = checked(|config| {
        // Every third look is bad, and it takes three in a row.
        let script =
            "n=$(cat looks 2>/dev/null || echo 0); echo $((n + 1)) >looks; [ $((n % 3)) != 2 ]";
        config["elections"][0]["fitness"] = json!([{
            "name": "shaky", "command": ["sh", "-c", script], "interval": "20ms", "fall": 3,
        }]);
    })?;
    let leader = cluster.leader()?;
    let looks = cluster.node(&leader).root().join("looks");
    let count = || fs::read_to_string(&looks).ok()?.trim().parse::<u32>().ok();
    let before = count().unwrap_or(0);
    eventually("several bad looks", PATIENCE, || (count()? > before + 12).then_some(()))?;
    for name in NAMES {
        assert_eq!(wait_until(&cluster, name, true)?["fitness"]["checks"]["shaky"], json!(true));
    }
    let story = cluster.finish()?;
    assert_eq!(story.holdings(&conclave_tests::pod::EXCLUSIVE).len(), 1, "{story}");
    Ok(())
}
