//! The examples that come with the project mean what they say.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use conclave::config::{Config, parse};
use conclave::podmaster::{self, Parsed};

const BUILTIN: &[&str] =
    &["cold-standby", "executor-match", "hot-standby", "oldest-version", "preferred", "spread"];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn config(file: &Path, text: &str) -> Config {
    let (config, warnings) = parse(file, text, BUILTIN).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warnings, [], "an example should not need a warning");
    config
}

/// Makes settings of the lines that show defaults, `#name: value`.
fn with_defaults_written_out(text: &str) -> String {
    let line = |line: &str| {
        let shown = line.trim_start();
        match shown.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => {
                format!("{}{setting}\n", &line[..line.len() - shown.len()])
            }
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

/// Without the places, which move when lines become settings.
fn placeless(mut config: Config) -> Config {
    for election in &mut config.elections {
        election.places = Default::default();
        for manifest in &mut election.manifests {
            manifest.place = None;
        }
    }
    config
}

#[test]
fn the_commented_example_loads_and_the_defaults_it_shows_are_the_defaults() {
    let file = examples().join("two-nodes/conclave.yaml");
    let node = tempfile::tempdir().unwrap();
    // A kubelet's directory, as this machine may have none.
    let text = read(&file).replace("/etc/kubernetes/manifests", node.path().to_str().unwrap());
    let written_out = with_defaults_written_out(&text);
    assert!(
        written_out.lines().filter(|line| line.trim_start().starts_with("rescan:")).count() == 1
    );
    let short = config(&file, &text);
    assert_eq!(placeless(config(&file, &written_out)), placeless(short.clone()));
    let names: Vec<&str> = short.elections[0].manifests.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["scheduler", "controller-manager", "apiserver"]);
}

#[test]
fn every_example_manifest_is_a_pod() {
    let mut seen = 0;
    for directory in ["two-nodes/manifests", "reference"] {
        for entry in fs::read_dir(examples().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let pod: serde_yaml::Value = serde_yaml::from_str(&read(&path)).unwrap();
            assert_eq!(pod["apiVersion"], "v1", "{}", path.display());
            assert_eq!(pod["kind"], "Pod", "{}", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 7);
}

#[test]
fn the_references_pod_runs_two_podmasters_that_share_nothing() {
    let pod: serde_yaml::Value =
        serde_yaml::from_str(&read(&examples().join("reference/podmaster.yaml"))).unwrap();
    let node = tempfile::tempdir().unwrap();
    let (sources, destinations) = (examples().join("reference"), node.path().join("manifests"));
    fs::create_dir(&destinations).unwrap();
    let mut configs = Vec::new();
    for container in pod["spec"]["containers"].as_sequence().unwrap() {
        let command = container["command"].as_sequence().unwrap();
        let mounted = command.iter().map(|argument| {
            // What the volumes do.
            argument
                .as_str()
                .unwrap()
                .replace("/src/manifests", sources.to_str().unwrap())
                .replace("/dst/manifests", destinations.to_str().unwrap())
        });
        let mut command = mounted.map(OsString::from);
        assert!(podmaster::is_podmaster(&command.next().unwrap()));
        match podmaster::parse(command).unwrap_or_else(|errors| panic!("{errors}")) {
            Parsed::Run(podmaster) => {
                assert_eq!(podmaster.warnings, []);
                configs.push(podmaster.config);
            }
            Parsed::Help(_) => panic!("the pod asks for help"),
        }
    }
    let [scheduler, controller] = &configs[..] else { panic!("{} containers", configs.len()) };
    assert_eq!(scheduler.node.name, controller.node.name);
    assert_ne!(scheduler.cluster, controller.cluster);
    assert_ne!(scheduler.state_directory, controller.state_directory);
}
