//! Single mistakes in an otherwise good configuration, as a table.

use super::*;

#[test]
fn single_mistakes() {
    let manifest = "{source: sources/scheduler.yaml, destination: pods/scheduler.yaml}";
    let table = [
        ("cluster: test", "cluster: a/b", "the cluster's name `a/b` contains a slash"),
        ("cluster: test", "cluster: ''", "the cluster's name `` is empty"),
        (
            "{name: a}",
            "[a]",
            "node: expected the fields `name`, `labels`, `variables` and `fitness`, found a list",
        ),
        (
            "cluster: test",
            "cluster: test\ntimings: {minimum_term: 101y}",
            "timings.minimum_term: expected a duration of a hundred years at most, found `101y`",
        ),
        ("cluster: test", "cluster: ~", "cluster is empty"),
        ("{name: a}", "{name: ' a'}", "the node's name ` a` begins or ends with a blank"),
        (
            "{name: a}",
            "{name: a, variables: {CONCLAVE_X: b}}",
            "the variable `CONCLAVE_X` has a name that is kept for Conclave's own",
        ),
        ("{name: a}", "{name: a, variables: {MY-IP: b}}", "`MY-IP` cannot be used as ${MY-IP}"),
        ("{embedded: {path: store.db}}", "{}", "store has neither `etcd` nor `embedded`"),
        (
            "{path: store.db}",
            "{path: no/store.db}",
            "the directory of /n/no/store.db does not exist",
        ),
        ("{path: store.db}", "{path: pods}", "/n/pods is a directory"),
        ("{embedded: {path: store.db}}", "{etcd: {}}", "store.etcd has no `endpoints`"),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: []}}",
            "the list of endpoints is empty",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['h:1']}}",
            "the endpoint `h:1` does not say how to connect",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['ftp://h:1']}}",
            "`ftp` in the endpoint `ftp://h:1` is not spoken by etcd",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['http://u:p@h:1']}}",
            "the endpoint `http://u:p@h:1` is not a URL of host and port",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['http://h:client']}}",
            "the endpoint `http://h:client` is not a URL of host and port",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['http://::1:2379']}}",
            "the endpoint `http://::1:2379` is not a URL of host and port",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['https://h:1']}}",
            "the endpoint `https://h:1` wants TLS, and nothing says whom to trust",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['http://h:1'], tls: {ca: ca.pem}}}",
            "the endpoint `http://h:1` is plain HTTP although `tls` is set",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['https://h:1'], tls: {ca: no.pem}}}",
            "/n/no.pem does not exist",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['https://h:1'], tls: {ca: ca.pem, key: ca.pem}}}",
            "store.etcd.tls has no `certificate`",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['http://h:1'], user: u}}",
            "store.etcd has no `password_file`",
        ),
        (
            "{embedded: {path: store.db}}",
            "{etcd: {endpoints: ['http://h:1'], password_file: password}}",
            "store.etcd has no `user`",
        ),
        ("state_directory: state", "state_directory: ca.pem", "/n/ca.pem is not a directory"),
        (
            "state_directory: state",
            "state_directory: pods/..",
            "the destination directory /n/pods is inside the state directory /n",
        ),
        (
            "state_directory: state",
            "state_directory: ~/state",
            "`~` in state_directory means nothing here",
        ),
        (
            "state_directory: state",
            "policies: {directory: no}",
            "the policy directory /n/no cannot be read: No such file or directory (os error 2)",
        ),
        (
            "state_directory: state",
            "policies: {digests: {cold-standby: abc}}",
            "`abc` is not a SHA-256 digest",
        ),
        (
            "state_directory: state",
            "http: {listen: localhost}",
            "`localhost` is not an address and a port",
        ),
        (
            "state_directory: state",
            "policies: {limits: {fuel: 0}}",
            "with fuel 0 no policy can answer",
        ),
        (
            "state_directory: state",
            "policies: {limits: {fuel: -1}}",
            "policies.limits.fuel: expected a whole number, found the number -1",
        ),
        (
            "state_directory: state",
            "policies: {limits_of: {cold-standby: {fuel: 0}}}",
            "with fuel 0 no policy can answer",
        ),
        (
            "state_directory: state",
            "policies: {limits_of: {cold-stanby: {fuel: 7}}}",
            "there is no policy `cold-stanby`",
        ),
        (
            "state_directory: state",
            "policies: {limits: {memory_mib: 5000}}",
            "memory_mib 5000 is more than a component can address",
        ),
        (
            "state_directory: state",
            "timings: {clock_rate_error: 0.1}",
            "timings.clock_rate_error: expected a share such as `0.1%` or `500ppm`, found the number 0.1",
        ),
        (
            "name: masters",
            "name: masters\n    fitness: {}",
            "elections[0].fitness: expected a list, found a mapping",
        ),
        (
            "name: masters",
            "name: masters\n    policy_config: [1]",
            "elections[0].policy_config is not a mapping",
        ),
        (
            "name: masters",
            "name: masters\n    role_file: pods",
            "the role file /n/pods is a directory",
        ),
        (
            "name: masters",
            "name: masters\n    role_file: sources/scheduler.yaml",
            "the role file /n/sources/scheduler.yaml is where a manifest's source is, in line 10",
        ),
        ("name: masters", "name: masters\n    on_stuck: []", "the command is empty"),
        ("name: masters", "name: masters\n    on_stuck: ['']", "the command is empty"),
        (
            "name: masters",
            "name: masters\n    on_stuck: [/no/such/program]",
            "the program /no/such/program cannot be run: No such file or directory (os error 2)",
        ),
        (
            "name: masters",
            "name: masters\n    fitness: [{command: [no-such-program-at-all, x]}]",
            "the program no-such-program-at-all is in no directory of PATH",
        ),
        (
            "name: masters",
            "name: masters\n    stop_check: {command: [/tmp]}",
            "the program /tmp is a directory",
        ),
        ("name: masters", "name: masters\n    fitness: [{}]", "this check looks at nothing"),
        (
            "name: masters",
            "name: masters\n    fitness: [{tcp: '1:1', file: x}]",
            "this check looks at several things at once",
        ),
        (
            "name: masters",
            "name: masters\n    fitness: [{tcp: 'h:0'}]",
            "`h:0` is not an address such as `127.0.0.1:10251` or `[::1]:10251`",
        ),
        (
            "name: masters",
            "name: masters\n    fitness: [{http: 'https://h'}]",
            "`https://h` is not plain HTTP, and TLS is not spoken here: use a command such as `curl -fsS`",
        ),
        (
            "name: masters",
            "name: masters\n    fitness: [{file: x, interval: 0s}]",
            "interval must be longer than nothing",
        ),
        (
            "name: masters",
            "name: masters\n    fitness: [{file: x, timeout: 2days}]",
            "timeout 2days is longer than 1day",
        ),
        (
            "name: masters",
            "name: masters\n    takeover_delay: 2days",
            "takeover_delay 2days is longer than 1day",
        ),
        (
            "node: {name: a}",
            "node: {name: a, fitness: [{file: x, fall: 0}]}",
            "fall must be at least 1",
        ),
        (
            "name: masters",
            "name: masters\n    fitness: [{file: x, rise: 0}]",
            "rise must be at least 1",
        ),
        (
            "name: masters",
            "name: masters\n    fitness: [{file: x}, {file: x}]",
            "there are two checks `file /n/x`",
        ),
        (
            "name: masters",
            "name: masters\n    stop_check: {file: x, within: 1ms}",
            "within 1ms is shorter than interval 200ms",
        ),
        (
            manifest,
            "{source: sources, destination: pods/}",
            "the source /n/sources is a directory, not a file",
        ),
        (
            manifest,
            "{source: sources/scheduler.yaml, destination: pods}",
            "the destination /n/pods is a directory",
        ),
        (
            manifest,
            "{source: sources/scheduler.yaml, destination: pods/..}",
            "the destination /n/pods/.. is a directory",
        ),
        (
            manifest,
            "{source: sources/scheduler.yaml, destination: pods/.x.yaml}",
            "the destination /n/pods/.x.yaml is a hidden file",
        ),
        (
            "    manifests:\n      - {source: sources/scheduler.yaml, destination: pods/scheduler.yaml}\n",
            "",
            "this election has nothing that follows its leader",
        ),
    ];
    for (from, to, expected) in table {
        let shown = Node::new().errors(&with(from, to));
        let messages: Vec<&str> =
            shown.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        assert_eq!(messages, [expected], "{to}\n{shown}");
        assert!(shown.contains("--> /n/conclave.yaml:"), "{to} has no place\n{shown}");
        assert!(
            shown.contains("= help: ") || shown.contains("expected "),
            "{to} says not what to do\n{shown}"
        );
    }
}
