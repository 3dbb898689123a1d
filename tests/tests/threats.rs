//! What `docs/threats.md` says of those who can do no more than open connections.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use conclave_tests::address::Loopback;
use conclave_tests::http::ask;
use conclave_tests::node::scheduler_node;
use conclave_tests::{Outcome, PATIENCE, eventually, pod, scratch};
use serde_json::json;

/// How many files the node may have open, connections included; itself it needs a few dozen.
const FILES: usize = 120;

#[test]
fn a_flood_of_connections_keeps_no_node_from_withdrawing() -> Outcome {
    let (dir, address) = (scratch::directory("store")?, Loopback::claim()?);
    let at = address.port(8437);
    let mut node = scheduler_node("a", "threats", &dir.path().join("store.db"), |config| {
        config["http"] = json!({ "listen": at.to_string() });
    })?;
    node.start_as(|usual| {
        let mut limited = Command::new("/bin/sh");
        limited.arg("-c").arg(format!("ulimit -n {FILES} && exec \"$@\"")).arg("sh");
        limited.arg(usual.get_program()).args(usual.get_args());
        limited.current_dir(usual.get_current_dir().unwrap_or(Path::new("/")));
        limited
    })?;
    let placed = node.destinations().join(pod::SCHEDULER);
    eventually("the node to lead", PATIENCE, || placed.exists().then_some(()))?;
    eventually("the node to answer", PATIENCE, || ask(at, "GET", "/livez").ok())?;
    // Until nobody answers any more, or there are more than it could have.
    let connect = || TcpStream::connect_timeout(&at, Duration::from_secs(1)).ok();
    let flood: Vec<_> = std::iter::from_fn(connect).take(2 * FILES).collect();
    assert!(flood.len() >= FILES, "only {} connections", flood.len());
    let status = node.stop()?;
    assert!(status.success(), "{status}: {}", node.output()?);
    assert!(!placed.exists());
    Ok(())
}
