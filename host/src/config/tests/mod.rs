//! Whole configurations: what a good one becomes.

mod mistakes;
mod single;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::check::Probe;

/// A directory with manifests, a policy and certificates, as a node has them.
struct Node(TempDir);

impl Node {
    fn new() -> Self {
        let node = Node(tempfile::tempdir().unwrap());
        for directory in ["sources", "pods", "policies"] {
            std::fs::create_dir(node.path(directory)).unwrap();
        }
        for file in ["policies/mine.wasm", "ca.pem", "password"] {
            std::fs::write(node.path(file), "secret\n").unwrap();
        }
        for file in ["sources/scheduler.yaml", "sources/manager.yaml"] {
            std::fs::write(node.path(file), "apiVersion: v1\nkind: Pod\n").unwrap();
        }
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn parse(&self, text: &str) -> Result<(Config, Vec<Warning>), ConfigErrors> {
        let policies = ["cold-standby", "executor-match", "hot-standby"];
        parse(&self.path("conclave.yaml"), text, &policies)
    }

    fn config(&self, text: &str) -> Config {
        self.parse(text).unwrap_or_else(|errors| panic!("{errors}")).0
    }

    /// The rendered mistakes, with this test's directory shown as `/n`.
    fn errors(&self, text: &str) -> String {
        match self.parse(text) {
            Ok(_) => "no mistake found".to_owned(),
            Err(errors) => self.shown(&errors.to_string()),
        }
    }

    fn warnings(&self, text: &str) -> String {
        let (_, warnings) = self.parse(text).unwrap_or_else(|errors| panic!("{errors}"));
        self.shown(&warnings.iter().map(Warning::to_string).collect::<Vec<_>>().join("\n\n"))
    }

    fn shown(&self, text: &str) -> String {
        let directory = self.path("");
        let directory = directory.to_str().unwrap().trim_end_matches('/');
        text.replace(directory, "/n")
    }
}

const GOOD: &str = "\
cluster: test
node: {name: a}
store: {embedded: {path: store.db}}
state_directory: state
elections:
  - name: masters
    overlap: accepted
    manifests:
      - {source: sources/scheduler.yaml, destination: pods/scheduler.yaml}
";

/// The good configuration with one part of it replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

#[track_caller]
fn assert_errors(text: &str, expected: &str) {
    let shown = Node::new().errors(text);
    assert_eq!(shown, expected.trim_start_matches('\n').trim_end(), "\n--- is:\n{shown}\n---");
}

#[test]
fn a_policys_setting_is_found_where_it_stands() {
    let text = GOOD.replacen(
        "name: masters",
        "name: masters\n    policy_config:\n      prefer: [a, b]\n      \"odd/~\": {x: 1}",
        1,
    );
    let (config, _) = Node::new().parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let line = |start: &str| {
        let at = text.lines().position(|line| line.trim_start().starts_with(start));
        at.expect("a line of the text") + 1
    };
    for (pointer, line, column) in [
        ("/prefer/1", line("prefer"), 19),
        ("/prefer/7/x", line("prefer"), 7),
        ("/odd~1~0/x", line("\"odd"), 17),
        ("/perfer", line("policy_config"), 5),
        ("", line("policy_config"), 5),
    ] {
        let place = config.elections[0].places.setting(pointer).map(ToString::to_string);
        let place = place.unwrap_or_else(|| panic!("{pointer:?} stands nowhere"));
        assert!(place.ends_with(&format!(":{line}:{column}")), "{pointer:?} stands at {place}");
    }
}

#[test]
fn where_nobody_excluded_may_lead_the_election_holds_when_its_policy_fails() {
    let node = Node::new();
    let on_failure = |more: &str| {
        let more = format!("    overlap: accepted\n    policy: executor-match{more}");
        node.config(&GOOD.replace("    overlap: accepted", &more)).elections[0].on_policy_failure
    };
    assert_eq!(on_failure(""), OnPolicyFailure::Hold);
    assert_eq!(on_failure("\n    on_policy_failure: builtin"), OnPolicyFailure::Builtin);
}

#[test]
fn a_short_configuration_gets_the_protocols_defaults() {
    let node = Node::new();
    let (config, warnings) = node.parse(GOOD).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warnings, []);
    assert_eq!(config.cluster, "test");
    assert_eq!(config.node.name.as_str(), "a");
    assert_eq!(config.store, StoreConfig::Embedded { path: node.path("store.db") });
    assert_eq!(config.timings, TimingsConfig::for_ttl(Duration::from_secs(10)));
    assert_eq!(config.state_directory, node.path("state"));
    let election = &config.elections[0];
    assert_eq!(election.policy, "cold-standby");
    assert_eq!(election.policy_config, serde_json::json!({}));
    assert_eq!(election.on_policy_failure, OnPolicyFailure::Builtin);
    let manifest = &election.manifests[0];
    assert_eq!(manifest.name, "scheduler");
    assert_eq!(manifest.source, node.path("sources/scheduler.yaml"));
    assert_eq!(manifest.destination, node.path("pods/scheduler.yaml"));
    assert!(manifest.exclusive && !manifest.render && !manifest.adopt);
}

#[test]
fn every_field_arrives() {
    let node = Node::new();
    let config = node.config(
        r#"
cluster: test
node:
  name: a
  labels: {zone: "1"}
  variables: {MY_IP: 10.0.0.3}
  fitness: [{name: kubelet, command: [/bin/true], fall: 1}]
store:
  etcd:
    endpoints: ["https://10.0.0.1:2379", "https://[::1]:2379/"]
    tls: {ca: ca.pem, certificate: ca.pem, key: ca.pem, server_name: etcd}
    user: conclave
    password_file: password
timings:
  ttl: 2s
  beat: 300ms
  margin: 250ms
  request_timeout: 350ms
  clock_rate_error: 500ppm
  stagger: 60ms
  minimum_term: 1m
  relist: 7s
  rescan: 3s
policies:
  directory: policies
  limits_of: {mine: {fuel: 7}}
  digests: {mine: "sha256:0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"}
  limits: {time: 50ms, fuel: 1000, memory_mib: 16, answer_kib: 8, log_kib: 4}
elections:
  - name: masters
    policy: mine
    policy_config: {prefer: [a, b], weight: 1.5, nested: {deep: true}}
    on_policy_failure: hold
    manifests:
      - {name: s, source: sources/scheduler.yaml, destination: pods/, exclusive: false, render: true, adopt: true}
    fitness:
      - {http: "http://127.0.0.1:8080/healthz", interval: 2s, timeout: 3s, rise: 4, fall: 5}
    stop_check: {tcp: "127.0.0.1:10251", interval: 100ms, timeout: 200ms, within: 30s}
    takeover_delay: 50s
    role_file: role.json
    on_stuck: [/bin/true, masters]
  - name: others
    overlap: accepted
    manifest_directory: {source: sources, destination: others, render: true}
"#,
    );
    let StoreConfig::Etcd(etcd) = &config.store else { panic!("{:?}", config.store) };
    assert_eq!(etcd.endpoints, ["https://10.0.0.1:2379", "https://[::1]:2379/"]);
    let tls = etcd.tls.as_ref().unwrap();
    assert_eq!(tls.identity, Some((node.path("ca.pem"), node.path("ca.pem"))));
    assert_eq!(tls.server_name.as_deref(), Some("etcd"));
    assert_eq!(etcd.login.as_ref().unwrap().password.read().unwrap(), "secret");
    let timings = &config.timings.protocol;
    assert_eq!((timings.clock_rate_error_ppm, timings.relist), (500, Duration::from_secs(7)));
    assert_eq!(
        (timings.beat, timings.margin),
        (Duration::from_millis(300), Duration::from_millis(250))
    );
    assert_eq!(config.timings.rescan, Duration::from_secs(3));
    assert_eq!(config.policies.limits.memory, Some(16 << 20));
    assert_eq!(config.policies.limits_of["mine"].fuel, Some(7));
    assert_eq!(config.policies.digests["mine"], "0123456789abcdef".repeat(4));
    assert_eq!(config.node.fitness[0].name, "kubelet");
    assert_eq!((config.node.fitness[0].rise, config.node.fitness[0].fall), (2, 1));
    let election = &config.elections[0];
    assert_eq!(election.policy_config["nested"], serde_json::json!({"deep": true}));
    assert_eq!(election.manifests[0].destination, node.path("pods/scheduler.yaml"));
    assert_eq!(election.fitness[0].name, "http http://127.0.0.1:8080/healthz");
    assert_eq!((election.fitness[0].rise, election.fitness[0].fall), (4, 5));
    assert!(
        matches!(&election.stop_check.as_ref().unwrap().probe, Probe::Tcp(address) if address.port == 10251)
    );
    assert_eq!(election.takeover_delay, Duration::from_secs(50));
    assert_eq!(election.role_file, Some(node.path("role.json")));
    let directory = config.elections[1].manifest_directory.as_ref().unwrap();
    assert_eq!(directory.destination, node.path("others"));
    assert!(directory.exclusive && directory.render);
}

#[test]
fn what_was_good_once_lives_with_what_has_changed_around_it() {
    let node = Node::new();
    let file = node.path("conclave.yaml");
    let text = with(
        "overlap: accepted",
        "overlap: accepted\n    policy: mine\n    on_stuck: [policies/page]",
    )
    .replace("state_directory: state", "policies: {directory: policies}")
    .replace("policies/page", node.path("policies/page").to_str().unwrap());
    std::fs::write(node.path("policies/page"), "").unwrap();
    std::fs::set_permissions(node.path("policies/page"), PermissionsExt::from_mode(0o755)).unwrap();
    let (good, _) = node.parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    // Everything around it goes, and a directory stands in the destination's place.
    for gone in ["sources", "policies"] {
        std::fs::remove_dir_all(node.path(gone)).unwrap();
    }
    std::fs::create_dir(node.path("pods/scheduler.yaml")).unwrap();
    let errors = node.parse(&text).unwrap_err().problems().len();
    let (config, warnings) = parse_again(&file, &text, &["cold-standby"]).unwrap();
    assert_eq!(config, good);
    let warnings: Vec<String> =
        warnings.iter().map(|warning| node.shown(&warning.0.message)).collect();
    assert_eq!(
        warnings,
        [
            "the policy directory /n/policies cannot be read: No such file or directory (os error 2)",
            "there is no policy `mine`",
            "the program /n/policies/page cannot be run: No such file or directory (os error 2)",
            "the source /n/sources/scheduler.yaml does not exist",
            "the destination /n/pods/scheduler.yaml is a directory",
        ]
    );
    assert_eq!(errors, warnings.len(), "at a start each of them is a mistake");
}

#[test]
fn the_core_waits_for_a_policy_as_long_as_that_may_take() {
    let waits = |time: &str| {
        let limits = format!("state_directory: state\npolicies: {{limits: {{time: {time}}}}}");
        let config = Node::new().config(&with("state_directory: state", &limits));
        let past = conclave_core::Past::default();
        let instance =
            Instance { nonce: "n".into(), boot_id: "b".into(), addresses: Vec::new(), past };
        config.settings(instance).timings.ranking_timeout
    };
    assert_eq!(waits("50ms"), Duration::from_millis(250));
    assert_eq!(waits("2s"), Duration::from_millis(2_150));
}

#[test]
fn the_core_gets_what_the_configuration_says() {
    let config = Node::new().config(&with(
        "    overlap: accepted",
        "    takeover_delay: 7s\n    on_policy_failure: hold\n    stop_check: {file: x}",
    ));
    let settings = config.settings(Instance {
        nonce: "n".into(),
        boot_id: "b".into(),
        addresses: vec!["here".into()],
        past: conclave_core::Past::default(),
    });
    assert_eq!(settings.node.as_str(), "a");
    assert_eq!(settings.timings, config.timings.protocol);
    let election = &settings.elections[&config.elections[0].name];
    assert_eq!(election.takeover_delay, Duration::from_secs(7));
    assert!(election.stop_check && election.hold_on_policy_failure);
}

#[test]
fn anchors_and_merges_work_and_keep_their_places() {
    let text = with(
        "      - {source: sources/scheduler.yaml, destination: pods/scheduler.yaml}",
        "      - &first {source: sources/scheduler.yaml, destination: pods/scheduler.yaml, render: true}\n      - {<<: *first, source: sources/nowhere.yaml, destination: pods/manager.yaml}",
    );
    assert_errors(
        &text,
        "
error: the source /n/sources/nowhere.yaml does not exist
  --> /n/conclave.yaml:10:30
   |
10 |       - {<<: *first, source: sources/nowhere.yaml, destination: pods/manager.yaml}
   |                              ^^^^^^^^^^^^^^^^^^^^
   = help: put the manifest there, or correct the path; relative paths start at this file's directory
",
    );
    let good = Node::new().config(&text.replace("nowhere", "manager"));
    assert!(good.elections[0].manifests[1].render);
}

#[test]
fn a_destination_directory_that_is_missing_is_warned_of() {
    let text = with(
        "destination: pods/scheduler.yaml}",
        "destination: kubernets/}\n    manifest_directory: {source: sources, destination: more}",
    );
    assert_eq!(
        Node::new().warnings(&text),
        "\
warning: the destination directory /n/kubernets does not exist
 --> /n/conclave.yaml:9:55
  |
9 |       - {source: sources/scheduler.yaml, destination: kubernets/}
  |                                                       ^^^^^^^^^^
  = help: correct the path, or make it: this node cannot lead before

warning: the destination directory /n/more does not exist
  --> /n/conclave.yaml:10:56
   |
10 |     manifest_directory: {source: sources, destination: more}
   |                                                        ^^^^
   = help: correct the path, or make it: this node cannot lead before"
    );
}

#[test]
fn overlap_is_warned_of_until_it_is_settled() {
    let node = Node::new();
    assert_eq!(
        node.warnings(&with("    overlap: accepted\n", "")),
        "\
warning: after a change of leader in `masters` the old pods can run beside the new ones for up to 50s: a kubelet notices a removed manifest after up to 20s, and the pod then has up to 30s to end
 --> /n/conclave.yaml:6:11
  |
6 |   - name: masters
  |           ^^^^^^^
  = help: set a `stop_check` for planned changes and `takeover_delay: 50s` for crashes, or say `overlap: accepted`"
    );
    for settled in ["overlap: accepted", "takeover_delay: 50s", "stop_check: {file: x}"] {
        assert_eq!(node.warnings(&with("overlap: accepted", settled)), "", "{settled}");
    }
    let everywhere = with("    overlap: accepted\n", "")
        .replace("scheduler.yaml}", "scheduler.yaml, exclusive: false}");
    assert_eq!(node.warnings(&everywhere), "", "nothing exclusive, nothing overlaps");
}

#[test]
fn a_source_that_no_kubelet_would_run_is_a_mistake_unless_it_is_rendered_first() {
    let node = Node::new();
    std::fs::write(node.path("sources/scheduler.yaml"), "kind: ${KIND}\napiVersion: {${A}}\n")
        .unwrap();
    let message = node.errors(GOOD);
    assert!(
        message.starts_with("error: the source /n/sources/scheduler.yaml is not a manifest: "),
        "{message}"
    );
    assert!(message.contains("--> /n/conclave.yaml:9:"), "{message}");
    let rendered = with("pods/scheduler.yaml}", "pods/scheduler.yaml, render: true}");
    assert_eq!(node.errors(&rendered), "no mistake found");
    // What was good when the node was started only keeps it from leading now.
    let again = parse_again(&node.path("conclave.yaml"), GOOD, &["cold-standby"]).unwrap();
    let warned = again.1.iter().any(|warning| warning.to_string().contains("is not a manifest"));
    assert!(warned, "{:?}", again.1);
}

#[test]
fn a_bad_file_in_a_manifest_directory_is_warned_of() {
    let node = Node::new();
    std::fs::write(node.path("sources/manager.yaml"), "just text\n").unwrap();
    let text = with(
        "    manifests:\n      - {source: sources/scheduler.yaml, destination: pods/scheduler.yaml}\n",
        "    manifest_directory: {source: sources, destination: pods}\n",
    );
    let warnings = node.warnings(&text);
    assert!(
        warnings.contains("the source /n/sources/manager.yaml is not a manifest"),
        "{warnings}"
    );
    assert!(!warnings.contains("scheduler.yaml"), "{warnings}");
}

#[test]
fn a_node_answers_on_this_machine_alone_unless_it_is_told_otherwise() {
    let node = Node::new();
    let listening = |section: &str| {
        let text = with("state_directory: state\n", &format!("state_directory: state\n{section}"));
        let http = node.config(&text).http.map(|http| http.listen.to_string());
        let warned = node.warnings(&text).contains("can read names, labels, facts and roles there");
        (http.unwrap_or_default(), warned)
    };
    for (section, listen, warned) in [
        ("", "", false),
        ("http: {}\n", "127.0.0.1:8437", false),
        ("http: {listen: \"[::1]:80\"}\n", "[::1]:80", false),
        ("http: {listen: \"0.0.0.0:8437\"}\n", "0.0.0.0:8437", true),
    ] {
        assert_eq!(listening(section), (listen.to_owned(), warned), "{section}");
    }
}
