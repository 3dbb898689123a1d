//! podmaster's command lines, from arguments to the configuration.

use super::*;
use tempfile::TempDir;

/// A node's directories, and a command line that fits them.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        for directory in ["src", "dst"] {
            std::fs::create_dir(place.path(directory)).unwrap();
        }
        std::fs::write(place.path("src/scheduler.yaml"), "x").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    /// Parses a line in which `SRC` and `DST` stand for this place's directories.
    fn parse(&self, line: &str) -> Result<Parsed, ConfigErrors> {
        let line = line
            .replace("SRC", self.path("src").to_str().unwrap())
            .replace("DST", self.path("dst").to_str().unwrap());
        parse(line.split_whitespace().map(OsString::from))
    }

    fn run(&self, line: &str) -> Podmaster {
        match self.parse(line) {
            Ok(Parsed::Run(podmaster)) => *podmaster,
            Ok(Parsed::Help(_)) => panic!("{line} asks for help"),
            Err(errors) => panic!("{errors}"),
        }
    }

    fn mistakes(&self, line: &str) -> Vec<String> {
        let errors = self.parse(line).err().unwrap_or_else(|| panic!("{line} has no mistake"));
        errors.problems().iter().map(|problem| problem.message.clone()).collect()
    }
}

const LINE: &str = "--etcd-servers=http://10.0.0.1:4001 --key=scheduler --whoami=10.0.0.3 \
                    --source-file=SRC/scheduler.yaml --dest-file=DST/scheduler.yaml";

#[test]
fn the_references_command_line_means_what_podmaster_means() {
    let place = Place::new();
    let podmaster = place.run(LINE);
    let config = podmaster.config;
    assert_eq!(podmaster.warnings, []);
    assert_eq!(podmaster.verbosity, 0);
    assert_eq!(config.cluster, "scheduler");
    assert_eq!(config.node.name.as_str(), "10.0.0.3");
    let StoreConfig::Etcd(etcd) = &config.store else { panic!("{:?}", config.store) };
    assert_eq!(etcd.endpoints, ["http://10.0.0.1:4001"]);
    assert_eq!(config.timings.protocol.ttl, Duration::from_secs(30));
    assert_eq!(config.timings.rescan, Duration::from_secs(5));
    assert_eq!(config.state_directory, place.path("dst/.conclave/scheduler"));
    let [election] = &config.elections[..] else { panic!("{:?}", config.elections) };
    assert_eq!(election.name.as_str(), "scheduler");
    assert_eq!(election.policy, "cold-standby");
    assert!(election.overlap_accepted);
    let [manifest] = &election.manifests[..] else { panic!("{:?}", election.manifests) };
    assert_eq!(manifest.source, place.path("src/scheduler.yaml"));
    assert_eq!(manifest.destination, place.path("dst/scheduler.yaml"));
    assert!(manifest.adopt && manifest.exclusive && !manifest.render);
}

#[test]
fn every_form_that_go_takes_gives_the_same() {
    let place = Place::new();
    let expected = place.run(LINE).config;
    let same = [
        LINE.replace('=', " "),
        LINE.replace("--", "-"),
        LINE.replace("--", "-").replace('=', " "),
        LINE.replace("etcd-servers", "etcd_servers").replace("source-file", "source_file"),
        format!("{LINE} --ttl-secs=30 --sleep 5000ms"),
        format!("{LINE} --logtostderr --alsologtostderr=false --stderrthreshold=2 --vmodule=a=1"),
        format!("-v 2 --log_dir=/tmp --log-backtrace-at=x.go:1 {LINE}"),
        LINE.replace("--key=scheduler", "--key=/scheduler"),
        LINE.replace("http://10.0.0.1:4001", "http://10.0.0.1:4001,"),
    ];
    for line in same {
        assert_eq!(place.run(&line).config, expected, "{line}");
    }
}

#[test]
fn the_other_settings_arrive() {
    let place = Place::new();
    let podmaster = place.run(&format!(
        "{LINE} --ttl-secs 0x0a --sleep 1m30s --v=4 --etcd-servers=http://a:1,http://b:2"
    ));
    let timings = &podmaster.config.timings;
    assert_eq!(timings.protocol.ttl, Duration::from_secs(10));
    assert_eq!(timings.protocol.relist, Duration::from_secs(90));
    assert_eq!(timings.rescan, Duration::from_secs(90));
    assert_eq!(podmaster.verbosity, 4);
    let StoreConfig::Etcd(etcd) = &podmaster.config.store else { panic!() };
    assert_eq!(etcd.endpoints, ["http://a:1", "http://b:2"]);
}

#[test]
fn a_short_sleep_is_no_busy_loop() {
    let timings = Place::new().run(&format!("{LINE} --sleep=0")).config.timings;
    assert_eq!(timings.rescan, TimingsConfig::SHORTEST_RESCAN);
    assert_eq!(timings.protocol.relist, timings.protocol.request_timeout);
    assert_eq!(timings.mistakes(), []);
}

#[test]
fn the_hosts_name_stands_in_for_whoami() {
    for none in ["", "--whoami="] {
        let config = Place::new().run(&LINE.replace("--whoami=10.0.0.3", none)).config;
        assert_eq!(config.node.name.as_str(), host_name(), "{none}");
    }
}

#[test]
fn two_keys_on_one_destination_directory_share_nothing() {
    let place = Place::new();
    let first = place.run(LINE).config;
    let second = place
        .run(&LINE.replace("--key=scheduler", "--key=a/b").replace("DST/scheduler", "DST/other"))
        .config;
    assert_eq!(second.state_directory, place.path("dst/.conclave/a%2Fb"));
    assert_ne!(first.state_directory, second.state_directory);
    assert_ne!(first.cluster, second.cluster);
}

#[test]
fn mistakes() {
    let place = Place::new();
    let table = [
        (
            String::new(),
            vec!["required flags are missing: --etcd-servers, --key, --source-file, --dest-file"],
        ),
        (
            "--key= --whoami=a".to_owned(),
            vec!["required flags are missing: --etcd-servers, --key, --source-file, --dest-file"],
        ),
        (format!("{LINE} --ttl=3"), vec!["unknown flag: --ttl"]),
        (format!("{LINE} --key=/"), vec!["the name `` is empty"]),
        (format!("{LINE} --key=."), vec!["the name `.` would be taken for a directory"]),
        (format!("{LINE} --etcd-servers=,"), vec!["`,` names no server"]),
        (format!("{LINE} --dest-file=/"), vec!["the destination / is a directory"]),
        (
            format!("{LINE} --ttl-secs=5s --sleep=-1s"),
            vec!["`5s` is not a whole number", "`-1s` cannot be slept: it is negative"],
        ),
        (format!("{LINE} --sleep 5"), vec!["`5` cannot be slept: it has no unit"]),
        (format!("{LINE} --v=many"), vec!["`many` is not a whole number"]),
        (format!("{LINE} --logtostderr=maybe"), vec!["`maybe` is not a truth value"]),
        (format!("{LINE} --ttl-secs"), vec!["flag needs an argument: --ttl-secs"]),
        (
            LINE.replace("http:", "https:"),
            vec![
                "the endpoint `https://10.0.0.1:4001` wants TLS, and podmaster's command line has no flags for certificates",
            ],
        ),
        (
            LINE.replace("http://", ""),
            vec!["the endpoint `10.0.0.1:4001` does not say how to connect"],
        ),
        (
            LINE.replace("DST/scheduler.yaml", "SRC/other.yaml"),
            vec![
                "the source is in the destination's directory: the kubelet would run it there on every node",
            ],
        ),
    ];
    for (line, expected) in table {
        assert_eq!(place.mistakes(&line), expected, "{line}");
    }
    let zero = place.mistakes(&format!("{LINE} --ttl-secs=0"));
    assert!(zero.iter().any(|mistake| mistake == "ttl must be longer than nothing"), "{zero:?}");
}

#[test]
fn unreadable_arguments_are_told_of_together_with_what_else_is_wrong() {
    use std::os::unix::ffi::OsStringExt as _;
    let odd = |text: &[u8]| OsString::from_vec(text.to_vec());
    let errors = parse([odd(b"--key=\xff"), odd(b"--whoami=\xfe"), "--ttl=3".into()]).unwrap_err();
    let messages: Vec<&str> = errors.problems().iter().map(|p| p.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "unknown flag: --ttl",
            "the argument \"--key=\\xFF\" is not valid UTF-8",
            "the argument \"--whoami=\\xFE\" is not valid UTF-8",
            "required flags are missing: --etcd-servers, --source-file, --dest-file",
        ]
    );
}

#[test]
fn a_missing_directory_or_a_directory_for_a_file_is_refused() {
    let place = Place::new();
    let missing = place.mistakes(&LINE.replace("DST/", "DST/no/"));
    assert_eq!(
        missing,
        [format!("the directory {} does not exist", place.path("dst/no").display())]
    );
    std::fs::create_dir(place.path("dst/sub")).unwrap();
    let directory = place.mistakes(&LINE.replace("DST/scheduler.yaml", "DST/sub"));
    assert_eq!(
        directory,
        [format!("the destination {} is a directory", place.path("dst/sub").display())]
    );
}

#[test]
fn a_missing_source_is_waited_for() {
    let place = Place::new();
    let podmaster = place.run(&LINE.replace("SRC/scheduler", "SRC/nothing"));
    assert_eq!(
        podmaster.warnings[0].to_string(),
        format!(
            "warning: the source {} does not exist\n --> --source-file\n  = help: this node will not lead until it can be read",
            place.path("src/nothing.yaml").display()
        )
    );
}

#[test]
fn stray_arguments_are_said_and_ignored_as_go_does() {
    let podmaster = Place::new().run(&format!("--logtostderr true {LINE}"));
    assert_eq!(
        podmaster.warnings[0].0.message,
        "the argument `true` belongs to no flag and is ignored"
    );
}

#[test]
fn help_names_every_flag() {
    let Ok(Parsed::Help(text)) = Place::new().parse("--help") else { panic!("no help") };
    for flag in FLAGS {
        assert!(text.contains(&format!("--{}", flag.name)), "{}", flag.name);
    }
}

#[test]
fn the_name_podmaster_is_known_with_and_without_a_directory() {
    for (program, expected) in [
        ("podmaster", true),
        ("/podmaster", true),
        ("/usr/bin/conclave", false),
        ("podmaster2", false),
        ("", false),
    ] {
        assert_eq!(is_podmaster(OsStr::new(program)), expected, "{program}");
    }
}

#[test]
fn the_notice_names_the_seconds_in_one_line() {
    assert!(!OVERLAP_NOTICE.contains('\n'));
    assert!(OVERLAP_NOTICE.contains("50s"));
}
