//! Whole configurations: the exact words for every mistake.

use super::*;

#[test]
fn an_unreadable_file_is_named() {
    let error = load(std::path::Path::new("/nowhere/conclave.yaml"), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: cannot read the configuration file /nowhere/conclave.yaml: No such file or directory (os error 2)\n  = help: name the file with --config; examples/two-nodes/conclave.yaml is one to start from"
    );
}

#[test]
fn broken_yaml_is_reported_where_it_breaks() {
    assert_errors(
        "cluster: test\nnode: {name: a\nstore: {}\n",
        "
error: this is not valid YAML: did not find expected ',' or '}', while parsing a flow mapping at line 2 column 7
 --> /n/conclave.yaml:3:6
  |
3 | store: {}
  |      ^
  = help: YAML nests by indentation with blanks, never tabs; quote text that contains `: `, `#` or a leading `*`, `&`, `!`, `%`, `@`, `[` or `{`
",
    );
    assert_errors(
        "\u{feff}cluster: test\nnode: {name: x\u{feff}y}\n",
        "
error: a byte order mark (U+FEFF) stands here, where nobody sees it
 --> /n/conclave.yaml:2:15
  |
2 | node: {name: x\u{feff}y}
  |               ^
  = help: delete it, perhaps by writing the word anew: it comes with text that is pasted
",
    );
    assert_errors(
        "cluster: test\ncluster: again\n",
        "
error: the field `cluster` is there twice
 --> /n/conclave.yaml:2:1
  |
2 | cluster: again
  | ^^^^^^^
  = help: the other one is in line 1; keep one of them
",
    );
}

#[test]
fn all_mistakes_of_reading_are_reported_together() {
    assert_errors(
        r#"
cluster: 7
node:
  name: a
  label: {zone: a}
store: {embedded: store.db}
timings: {ttl: 10, beat: soon}
elections:
  - name: masters
    polcy: cold-standby
    overlap: agreed
    manifests:
      - {source: sources/scheduler.yaml, destination: pods/, exclusive: maybe}
  - just text
"#,
        r#"
error: cluster: expected text, found 7, which YAML does not read as text
 --> /n/conclave.yaml:2:10
  |
2 | cluster: 7
  |          ^
  = help: put it in quotes: "7"

error: unknown field `label`
 --> /n/conclave.yaml:5:3
  |
5 |   label: {zone: a}
  |   ^^^^^
  = help: did you mean `labels`?

error: store.embedded: expected the field `path`, found `store.db`
 --> /n/conclave.yaml:6:19
  |
6 | store: {embedded: store.db}
  |                   ^^^^^^^^

error: timings.ttl: expected a duration with its unit, such as `10s`, `500ms` or `1m 30s`, found the number 10
 --> /n/conclave.yaml:7:16
  |
7 | timings: {ttl: 10, beat: soon}
  |                ^^

error: timings.beat: expected a duration with its unit, such as `10s`, `500ms` or `1m 30s`, found `soon`
 --> /n/conclave.yaml:7:26
  |
7 | timings: {ttl: 10, beat: soon}
  |                          ^^^^

error: unknown field `polcy`
  --> /n/conclave.yaml:10:5
   |
10 |     polcy: cold-standby
   |     ^^^^^
   = help: did you mean `policy`?

error: elections[0].overlap: `agreed` means nothing here
  --> /n/conclave.yaml:11:14
   |
11 |     overlap: agreed
   |              ^^^^^^
   = help: write `accepted`

error: elections[0].manifests[0].exclusive: expected `true` or `false`, found `maybe`
  --> /n/conclave.yaml:13:73
   |
13 |       - {source: sources/scheduler.yaml, destination: pods/, exclusive: maybe}
   |                                                                         ^^^^^

error: elections[1]: expected an election: the fields `name`, `policy`, `manifests` and so on, found `just text`
  --> /n/conclave.yaml:14:5
   |
14 |   - just text
   |     ^^^^^^^^^
"#,
    );
}

#[test]
fn what_is_missing_is_said_where_it_is_missed() {
    assert_errors(
        "elections:\n  - policy: cold-standby\n    manifests:\n      - source: sources/scheduler.yaml\n",
        r#"
error: the configuration has no `cluster`
 --> /n/conclave.yaml:1:1
  |
1 | elections:
  | ^^^^^^^^^^
  = help: name the set of nodes that elect among themselves, for instance `cluster: production`

error: the configuration has no `store`
 --> /n/conclave.yaml:1:1
  |
1 | elections:
  | ^^^^^^^^^^
  = help: write `store: {etcd: {endpoints: ["http://10.0.0.1:2379"]}}`, or `store: {embedded: {path: …}}` for several daemons on one machine

error: elections[0] has no `name`
 --> /n/conclave.yaml:2:5
  |
2 |   - policy: cold-standby
  |     ^^^^^^^^^^^^^^^^^^^^
  = help: name the election, for instance `name: masters`

error: elections[0].manifests[0] has no `destination`
 --> /n/conclave.yaml:4:9
  |
4 |       - source: sources/scheduler.yaml
  |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: name the file in the kubelet's static-pod directory, for instance `/etc/kubernetes/manifests/scheduler.yaml`
"#,
    );
}

#[test]
fn an_empty_file_says_what_belongs_there() {
    let shown = Node::new().errors("");
    assert!(shown.starts_with("error: the configuration /n/conclave.yaml is empty"), "{shown}");
    let shown = Node::new().errors("- a\n");
    assert!(shown.contains("expected the fields `cluster`, `node`"), "{shown}");
}

#[test]
fn timings_that_cannot_work_name_both_values() {
    assert_errors(
        &with("state_directory: state", "timings:\n  ttl: 2s\n  beat: 1500ms\n  margin: 200ms"),
        "
error: beat 1s 500ms and request_timeout 400ms together exceed ttl 2s less margin 200ms: one slow beat would end the session
 --> /n/conclave.yaml:6:9
  |
6 |   beat: 1500ms
  |         ^^^^^^
  = help: for this ttl both are 400ms by default
",
    );
    assert_errors(
        &with("state_directory: state", "timings: {ttl: 200ms}"),
        "
error: ttl 200ms is shorter than 500ms: ordinary pauses of a machine or its store would end terms
 --> /n/conclave.yaml:4:16
  |
4 | timings: {ttl: 200ms}
  |                ^^^^^
  = help: raise it, or add `allow_short_ttl: true` if you measured that your store and machines are quick enough
",
    );
}

#[test]
fn a_destination_is_given_to_one_manifest_only() {
    assert_errors(
        &(GOOD.to_owned()
            + "  - name: others\n    overlap: accepted\n    manifests:\n      - {source: sources/manager.yaml, destination: sources/../pods/scheduler.yaml}\n"),
        "
error: the manifest `scheduler` of election `others` has the destination /n/pods/scheduler.yaml, which is taken
  --> /n/conclave.yaml:13:53
   |
13 |       - {source: sources/manager.yaml, destination: sources/../pods/scheduler.yaml}
   |                                                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: the manifest `scheduler` of election `masters` goes there, in line 9; every file needs a place of its own
",
    );
}

#[test]
fn an_unknown_policy_is_answered_with_the_known_ones() {
    assert_errors(
        &with("    overlap: accepted", "    overlap: accepted\n    policy: cold-stanby"),
        "
error: there is no policy `cold-stanby`
 --> /n/conclave.yaml:8:13
  |
8 |     policy: cold-stanby
  |             ^^^^^^^^^^^
  = help: did you mean `cold-standby`? the policies here are `cold-standby`, `executor-match`, `hot-standby`
",
    );
}

#[test]
fn kubelets_must_not_find_sources_or_files_of_ours() {
    assert_errors(
        &with(
            "    manifests:",
            "    role_file: pods/role.json\n    manifests:\n      - {source: pods/x.yaml, destination: pods/manager.yaml}",
        )
        .replace("store.db", "pods/store.db"),
        "
error: the store /n/pods/store.db is in a directory that a kubelet reads
 --> /n/conclave.yaml:3:26
  |
3 | store: {embedded: {path: pods/store.db}}
  |                          ^^^^^^^^^^^^^
  = help: keep it elsewhere: the kubelet would take it for a manifest

error: the role file /n/pods/role.json is in a directory that a kubelet reads
 --> /n/conclave.yaml:8:16
  |
8 |     role_file: pods/role.json
  |                ^^^^^^^^^^^^^^
  = help: keep it elsewhere: the kubelet would take it for a manifest

error: the source /n/pods/x.yaml does not exist
  --> /n/conclave.yaml:10:18
   |
10 |       - {source: pods/x.yaml, destination: pods/manager.yaml}
   |                  ^^^^^^^^^^^
   = help: put the manifest there, or correct the path; relative paths start at this file's directory

error: the source is in a directory that a kubelet reads: it would run there on every node
  --> /n/conclave.yaml:10:18
   |
10 |       - {source: pods/x.yaml, destination: pods/manager.yaml}
   |                  ^^^^^^^^^^^
   = help: keep sources in a directory of their own, for instance /srv/kubernetes/manifests
",
    );
}

/// A kubelet follows the link and runs what it leads to.
#[test]
fn a_link_to_a_source_is_not_left_where_kubelets_look() {
    let node = Node::new();
    std::os::unix::fs::symlink("../sources/manager.yaml", node.path("pods/link.yaml")).unwrap();
    let text =
        GOOD.to_owned() + "      - {source: pods/link.yaml, destination: pods/manager.yaml}\n";
    assert_eq!(
        node.errors(&text),
        "error: the source is in a directory that a kubelet reads: it would run there on every node
  --> /n/conclave.yaml:10:18
   |
10 |       - {source: pods/link.yaml, destination: pods/manager.yaml}
   |                  ^^^^^^^^^^^^^^
   = help: keep sources in a directory of their own, for instance /srv/kubernetes/manifests"
    );
}

/// A candidate publishes both under their names.
#[test]
fn a_check_has_one_name_on_a_node() {
    let text = with("{name: a}", "{name: a, fitness: [{name: disk, file: x}]}")
        .replace("name: masters", "name: masters\n    fitness: [{name: disk, file: y}]");
    assert_errors(
        &text,
        "
error: election `masters` and the node both have a check `disk`
 --> /n/conclave.yaml:6:11
  |
6 |   - name: masters
  |           ^^^^^^^
  = help: give one of them another `name`, or leave the election's out
",
    );
}

#[test]
fn a_secret_is_not_repeated() {
    let text = with(
        "{embedded: {path: store.db}}",
        "{etcd: {endpoints: ['http://h:1'], user: u, password: 123456}}",
    );
    let shown = Node::new().errors(&text);
    assert!(shown.contains("/n/conclave.yaml:3:"), "{shown}");
    assert!(!shown.contains("123456"), "{shown}");
}

/// Each changed part of the good configuration, and the first line of the only mistake in it.
/// Files that no operator wrote on purpose: an answer has to come, and soon.
#[test]
fn monsters_are_refused() {
    let nested = "[".repeat(10_000);
    let laughs: String = (1..40)
        .map(|level| format!("a{level}: &a{level} [*a{0}, *a{0}, *a{0}]\n", level - 1))
        .collect();
    let many: String = (0..20_000).map(|field| format!("field{field}: x\n")).collect();
    let table = [
        (nested.clone(), "error: this is not valid YAML: recursion limit exceeded"),
        (format!("cluster: {nested}"), "error: this is not valid YAML: recursion limit exceeded"),
        // Parsers that look at all of it take hours.
        ("{a: ".repeat(500_000), "error: more than 10000 brackets are open here"),
        (
            format!("a0: &a0 x\n{laughs}"),
            "error: the aliases up to here stand for more than 20000 values\n  --> /n/conclave.yaml:10:10\n",
        ),
        // What else is wrong with it is said once it can be read.
        (
            format!("a0: &a0 {{b: 1, b: 2}}\n{laughs}"),
            "error: the aliases up to here stand for more than 20000 values",
        ),
        (many, "error: unknown field `field0`"),
    ];
    for (text, expected) in table {
        let shown = Node::new().errors(&text);
        assert!(shown.starts_with(expected), "{}", &shown[..shown.len().min(400)]);
        assert!(shown.len() < 20_000, "{} characters of it", shown.len());
    }
}

#[test]
fn a_file_that_is_no_text_is_refused_where_that_begins() {
    let node = Node::new();
    let file = node.path("conclave.yaml");
    std::fs::write(&file, b"cluster: test\nnode: {name: caf\xe9}\n").unwrap();
    assert_eq!(
        node.shown(&load(&file, &[]).unwrap_err().to_string()),
        "error: this is not text in UTF-8\n --> /n/conclave.yaml:2:17\n  = help: save the file as UTF-8"
    );
}

#[test]
fn doubled_names_point_at_each_other() {
    let twice = GOOD.to_owned() + "  - {name: masters, role_file: r}\n";
    let shown = Node::new().errors(&twice);
    assert!(shown.starts_with("error: there are two elections `masters`\n"), "{shown}");
    assert!(shown.contains("the other one is in line 6"), "{shown}");
}
