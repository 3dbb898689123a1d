//! The policy `spread` on real nodes: many elections are shared out, also after a node died and came
//! back, and each of them has one holder throughout.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use conclave_tests::node::Node;
use conclave_tests::observer::Observer;
use conclave_tests::{Outcome, PATIENCE, eventually, pod, scratch};
use serde_json::{Value, json};

const ELECTIONS: usize = 9;

fn file(number: usize) -> String {
    format!("shard-{number}.yaml")
}

fn config(store: &Path) -> Value {
    let election = |number: usize| {
        let file = file(number);
        json!({
            "name": format!("shard-{number}"),
            "policy": "spread",
            "policy_config": { "settle_seconds": 1 },
            "overlap": "accepted",
            "manifests": [{ "source": format!("src/{file}"), "destination": format!("dst/{file}") }],
        })
    };
    json!({
        "cluster": "spread",
        "store": { "embedded": { "path": store } },
        "timings": { "ttl": "2s", "minimum_term": "1s" },
        "elections": (0..ELECTIONS).map(election).collect::<Vec<_>>(),
    })
}

fn node(name: &str, store: &Path) -> Result<Node> {
    let node = Node::new(name, config(store))?;
    for number in 0..ELECTIONS {
        fs::write(node.sources().join(file(number)), pod::manifest(&format!("shard-{number}")))?;
    }
    Ok(node)
}

/// Waits until the nodes have so many of the elections' manifests each, in their order.
fn wait_for_shares(nodes: &[Node], either: &[[usize; 3]]) -> Result<()> {
    let count = |node: &Node| {
        let has = |number: &usize| node.destinations().join(file(*number)).exists();
        (0..ELECTIONS).filter(has).count()
    };
    eventually(&format!("shares of {either:?}"), PATIENCE, || {
        let shares: Vec<usize> = nodes.iter().map(count).collect();
        either.iter().any(|expected| shares == expected).then_some(())
    })
}

#[test]
fn elections_are_shared_out_and_each_has_one_holder() -> Outcome {
    let shared = scratch::directory("spread")?;
    let store = shared.path().join("store.db");
    let mut nodes: Vec<Node> =
        ["a", "b", "c"].iter().map(|name| node(name, &store)).collect::<Result<_>>()?;
    let seen: Vec<(String, PathBuf)> =
        nodes.iter().map(|node| (node.name().to_owned(), node.destinations())).collect();
    let observer = Observer::start(seen.iter().map(|(name, path)| (&**name, path.as_path())))?;

    nodes.iter_mut().try_for_each(Node::start)?;
    wait_for_shares(&nodes, &[[3, 3, 3]])?;

    // What a node that goes held is shared out among the others, and it gets its share when it comes
    // back and has settled.
    nodes[2].stop()?;
    wait_for_shares(&nodes, &[[5, 4, 0], [4, 5, 0]])?;
    nodes[2].start()?;
    wait_for_shares(&nodes, &[[3, 3, 3]])?;

    for node in &mut nodes {
        node.stop()?;
    }
    let story = observer.finish()?;
    for number in 0..ELECTIONS {
        story.at_most_one_holder(&[&file(number)])?;
    }
    Ok(())
}
