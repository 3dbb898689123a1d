//! The examples for monitoring, with a real Prometheus: the alert rules and their tests, and whether every panel of the
//! dashboard shows something.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use conclave_tests::address::Loopback;
use conclave_tests::answering::Answering;
use conclave_tests::http::ask;
use conclave_tests::process::Process;
use conclave_tests::{Outcome, PATIENCE, beside, eventually, scratch};
use serde_json::Value;

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/monitoring").join(name)
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() -> Outcome {
    let rules = fs::read_to_string(example("alerts.yaml"))?;
    let tests = fs::read_to_string(example("alerts_test.yaml"))?;
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}")), "{alert} has no test");
    }
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let mut promtool = beside::command("usr/bin/promtool")?;
        let output = promtool.args(arguments).current_dir(example("")).output()?;
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

/// A Prometheus that reads the nodes.
struct Prometheus {
    at: SocketAddr,
    _process: Process,
    _address: Loopback,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// As the example has it, but for the addresses, and more often.
    fn start(answering: &Answering) -> Result<Self> {
        let (dir, address) = (scratch::directory("prometheus")?, Loopback::claim()?);
        let at = address.port(9090);
        let nodes: Vec<String> = answering.at.values().map(|at| format!("\"{at}\"")).collect();
        let config = fs::read_to_string(example("prometheus.yaml"))?
            .replace(r#""10.0.0.11:8437", "10.0.0.12:8437", "10.0.0.13:8437""#, &nodes.join(", "))
            .replace(
                "scrape_interval: 15s",
                "scrape_interval: 500ms\n  evaluation_interval: 500ms",
            );
        fs::write(dir.path().join("prometheus.yaml"), config)?;
        fs::copy(example("alerts.yaml"), dir.path().join("alerts.yaml"))?;
        let mut command = beside::command("usr/bin/prometheus")?;
        command
            .arg(format!("--web.listen-address={at}"))
            .args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data"])
            .current_dir(dir.path());
        let process = Process::start("prometheus", dir.path(), command)?;
        eventually("Prometheus to be ready", PATIENCE, || {
            (ask(at, "GET", "/-/ready").ok()?.0 == 200).then_some(())
        })?;
        Ok(Prometheus { at, _process: process, _address: address, _dir: dir })
    }

    /// The values of an expression now.
    fn values(&self, expression: &str) -> Result<Vec<f64>> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (status, text) = ask(self.at, "GET", &format!("/api/v1/query?query={encoded}"))?;
        ensure!(status == 200, "{expression}: {text}");
        let answer: Value = serde_json::from_str(&text)?;
        let samples = answer["data"]["result"].as_array().context("samples")?;
        let value = |sample: &Value| sample["value"][1].as_str()?.parse().ok();
        Ok(samples.iter().filter_map(value).collect())
    }
}

#[test]
fn every_panel_shows_something_and_every_rule_can_be_evaluated() -> Outcome {
    let answering = Answering::start("10s")?;
    let prometheus = Prometheus::start(&answering)?;
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(example("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut waiting: Vec<String> = targets
        .filter_map(|target| target["expr"].as_str())
        .map(|expression| {
            let ranged = expression.replace("$__rate_interval", "30s").replace("$__range", "2m");
            ranged.replace("$cluster", "production")
        })
        .collect();
    assert!(waiting.len() >= 12, "{waiting:?}");
    let (first, second) = {
        let first = answering.cluster.leader()?;
        (first.clone(), answering.cluster.other(&first))
    };
    // Counters count from when they are first seen: terms have to move more than once.
    let mut moves = [&second, &first].into_iter().cycle();
    eventually("every panel to show something", PATIENCE, || {
        answering.cluster.transfer(moves.next()?).ok();
        waiting.retain(|expression| {
            let values = prometheus.values(expression).unwrap_or_default();
            !values.iter().any(|value| value.is_finite())
        });
        std::thread::sleep(std::time::Duration::from_secs(1));
        waiting.is_empty().then_some(())
    })
    .with_context(|| format!("nothing of {waiting:#?}"))?;
    let (_, rules) = ask(prometheus.at, "GET", "/api/v1/rules")?;
    let rules: Value = serde_json::from_str(&rules)?;
    let rules = rules["data"]["groups"][0]["rules"].as_array().context("rules")?;
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        let critical = rule["labels"]["severity"] == "critical";
        assert!(!critical || rule["state"] != "firing", "nothing is wrong here: {rule:#}");
    }
    answering.cluster.finish()?;
    Ok(())
}
