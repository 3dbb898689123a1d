//! `conclave podmaster`: podmaster's command line, flag for flag, for set-ups that only change
//! the image.
//!
//! It becomes the same [`Config`] that a YAML file becomes. Every `--key` is a cluster of its
//! own with one election of the same name, so that the same `--whoami` can live in several; the
//! lock and the state are in `.conclave/` beside the destination, one directory for each key. As
//! with podmaster the destination belongs to us, whatever stands there.

mod duration;
mod flags;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conclave_core::{ElectionName, NodeName};

use crate::config::{
    Config, ConfigErrors, DEFAULT_POLICY, ElectionConfig, ElectionPlaces, EtcdConfig,
    ManifestConfig, NodeConfig, Occasion, OnPolicyFailure, Place, PoliciesConfig, Problem,
    StoreConfig, TimingsConfig, Warning, canonical, encode_name,
};
use crate::config::{
    canonical_destination, check_endpoint, destination_mistake, host_name, name_mistake,
    readable_file,
};
use flags::{Flag, Given, Takes};

/// What has to be said at every start in this mode, in one line.
pub const OVERLAP_NOTICE: &str = "removing a manifest is not stopping its pod: after a change of leader the old pod can run \
     beside the new one for up to 50s (20s until a kubelet notices, 30s of grace); `conclave run` has \
     stop checks and takeover delays against that";

const FLAGS: &[Flag] = &[
    Flag {
        name: "etcd-servers",
        takes: Takes::Value,
        value: "URLS",
        about: "etcd's client URLs, separated by commas",
    },
    Flag {
        name: "key",
        takes: Takes::Value,
        value: "NAME",
        about: "what is elected; podmasters with the same key compete",
    },
    Flag {
        name: "whoami",
        takes: Takes::Value,
        value: "NAME",
        about: "this node's name (default: the host's name)",
    },
    Flag {
        name: "source-file",
        takes: Takes::Value,
        value: "FILE",
        about: "the manifest to copy on the leader",
    },
    Flag {
        name: "dest-file",
        takes: Takes::Value,
        value: "FILE",
        about: "where the kubelet finds it",
    },
    Flag {
        name: "ttl-secs",
        takes: Takes::Value,
        value: "SECONDS",
        about: "how long a silent leader keeps the lead (default: 30)",
    },
    Flag {
        name: "sleep",
        takes: Takes::Value,
        value: "DURATION",
        about: "time between second looks; changes are seen at once (default: 5s)",
    },
    Flag {
        name: "v",
        takes: Takes::Value,
        value: "LEVEL",
        about: "log level; 2 and above log every step",
    },
    Flag {
        name: "logtostderr",
        takes: Takes::Truth,
        value: "",
        about: "accepted; logs always go to standard error",
    },
    Flag {
        name: "alsologtostderr",
        takes: Takes::Truth,
        value: "",
        about: "accepted, without effect",
    },
    Flag {
        name: "stderrthreshold",
        takes: Takes::Value,
        value: "LEVEL",
        about: "accepted, without effect",
    },
    Flag {
        name: "vmodule",
        takes: Takes::Value,
        value: "PATTERNS",
        about: "accepted, without effect",
    },
    Flag {
        name: "log-dir",
        takes: Takes::Value,
        value: "DIRECTORY",
        about: "accepted, without effect",
    },
    Flag {
        name: "log-backtrace-at",
        takes: Takes::Value,
        value: "PLACE",
        about: "accepted, without effect",
    },
    Flag {
        name: "log-flush-frequency",
        takes: Takes::Value,
        value: "DURATION",
        about: "accepted, without effect",
    },
];

/// A command line of podmaster, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// Run with this.
    Run(Box<Podmaster>),
    /// Print this and exit with success.
    Help(String),
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Podmaster {
    /// As from a configuration file.
    pub config: Config,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
    /// `--v`: 2 and above ask for every step in the log.
    pub verbosity: u64,
}

/// Whether the binary was called under podmaster's name.
pub fn is_podmaster(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new("podmaster"))
}

/// Reads podmaster's arguments, the program's name not among them.
///
/// # Errors
///
/// Everything that is wrong with them, at once.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, ConfigErrors> {
    interpret(arguments, Occasion::Start)
}

/// As [`parse`], for arguments that were good once: mistakes are warnings then, for a node that
/// runs has to live with what has changed around it.
///
/// # Errors
///
/// As [`parse`], where what is wrong leaves nothing to go on with.
pub fn parse_again(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, ConfigErrors> {
    interpret(arguments, Occasion::Again)
}

fn interpret(
    arguments: impl IntoIterator<Item = OsString>,
    occasion: Occasion,
) -> Result<Parsed, ConfigErrors> {
    let mut unreadable = Vec::new();
    let texts = arguments.into_iter().map(|argument| {
        argument.into_string().unwrap_or_else(|argument| {
            let message = format!("the argument {argument:?} is not valid UTF-8");
            let help = "use names and paths of plain characters";
            unreadable.push(Problem::new(None, message).help(help));
            argument.to_string_lossy().into_owned()
        })
    });
    let (given, mut problems) = flags::read(texts.collect::<Vec<_>>(), FLAGS);
    if given.help {
        return Ok(Parsed::Help(help()));
    }
    problems.extend(unreadable);
    let mut reader = Reader { given, problems, warnings: Vec::new() };
    let podmaster = reader.podmaster();
    let Reader { mut problems, mut warnings, .. } = reader;
    if occasion == Occasion::Again && podmaster.is_some() {
        warnings.extend(problems.drain(..).map(Warning));
    }
    match podmaster {
        Some(podmaster) if problems.is_empty() => {
            Ok(Parsed::Run(Box::new(Podmaster { warnings, ..podmaster })))
        }
        // What is absent has been reported.
        _ => Err(ConfigErrors::some(problems)),
    }
}

fn help() -> String {
    let mut text = "\
Copies a manifest into the kubelet's directory on the one node that leads; podmaster's command line.

Usage: conclave podmaster --etcd-servers=URLS --key=NAME --source-file=FILE --dest-file=FILE [flags]

Flags:
"
    .to_owned();
    for flag in FLAGS {
        let left = match flag.takes {
            Takes::Value => format!("--{} {}", flag.name, flag.value),
            Takes::Truth => format!("--{}", flag.name),
        };
        let _ = writeln!(text, "  {left:<30}  {}", flag.about);
    }
    text
}

/// The flags' meanings.
struct Reader {
    given: Given,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Reader {
    fn podmaster(&mut self) -> Option<Podmaster> {
        self.strays();
        self.missing();
        self.unused();
        let verbosity = self.number("v", 0);
        let endpoints = self.endpoints();
        // podmaster's keys were paths; a leading slash says nothing more.
        let key = self.text("key").map(|key| key.trim_start_matches('/').to_owned());
        let key = key.map(|key| self.name("key", key));
        // As in podmaster, a name that is empty is none.
        let whoami = self.text("whoami").unwrap_or_else(host_name);
        let whoami = self.name("whoami", whoami);
        let timings = self.timings();
        let manifest = self.manifest();
        let config = config(&key?, &whoami, endpoints, timings?, manifest?);
        Some(Podmaster { config, warnings: Vec::new(), verbosity })
    }

    fn wrong(&mut self, flag: &str, message: impl Into<String>, help: impl Into<String>) {
        let place = Some(Place::Flag(format!("--{flag}").into()));
        self.problems.push(Problem::new(place, message).help(help));
    }

    /// Both flag packages ignore what belongs to no flag; it is still worth a word.
    fn strays(&mut self) {
        for stray in std::mem::take(&mut self.given.strays) {
            let problem = Problem::new(
                None,
                format!("the argument `{stray}` belongs to no flag and is ignored"),
            )
            .help("a truth value needs an equals sign, as in --logtostderr=true");
            self.warnings.push(Warning(problem));
        }
    }

    fn missing(&mut self) {
        let required = ["etcd-servers", "key", "source-file", "dest-file"];
        let missing: Vec<String> = required
            .iter()
            .filter(|flag| self.given.value(flag).is_none_or(str::is_empty))
            .map(|flag| format!("--{flag}"))
            .collect();
        if !missing.is_empty() {
            let problem =
                Problem::new(None, format!("required flags are missing: {}", missing.join(", ")))
                    .help("`conclave podmaster --help` says what they mean");
            self.problems.push(problem);
        }
    }

    /// Flags that have no effect here are read all the same, so that a slip in them is not
    /// passed over.
    fn unused(&mut self) {
        for flag in ["logtostderr", "alsologtostderr"] {
            if let Some(value) = self.given.value(flag).map(str::to_owned)
                && flags::truth(&value).is_none()
            {
                self.wrong(flag, format!("`{value}` is not a truth value"), "write true or false");
            }
        }
    }

    fn number(&mut self, flag: &'static str, default: u64) -> u64 {
        let Some(value) = self.given.value(flag).map(str::to_owned) else { return default };
        flags::number(&value).unwrap_or_else(|| {
            self.wrong(
                flag,
                format!("`{value}` is not a whole number"),
                format!("write for instance --{flag}={default}"),
            );
            default
        })
    }

    /// A flag that is given and not empty.
    fn text(&self, flag: &str) -> Option<String> {
        self.given.value(flag).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn name(&mut self, flag: &'static str, name: String) -> String {
        if let Some(mistake) = name_mistake(&name) {
            self.wrong(flag, format!("the name `{name}` {mistake}"), "choose a short, plain name");
        }
        name
    }

    fn endpoints(&mut self) -> Vec<String> {
        let Some(list) = self.text("etcd-servers") else { return Vec::new() };
        let endpoints: Vec<String> = list
            .split(',')
            .map(str::trim)
            .filter(|url| !url.is_empty())
            .map(str::to_owned)
            .collect();
        if endpoints.is_empty() {
            self.wrong(
                "etcd-servers",
                format!("`{list}` names no server"),
                "write for instance --etcd-servers=http://10.0.0.1:2379",
            );
        }
        for endpoint in &endpoints {
            if endpoint.starts_with("https://") {
                self.wrong(
                    "etcd-servers",
                    format!("the endpoint `{endpoint}` wants TLS, and podmaster's command line has no flags for certificates"),
                    "use `conclave run` with a configuration file, which has",
                );
            } else if let Err((message, help)) = check_endpoint(endpoint, false) {
                self.wrong("etcd-servers", message, help);
            }
        }
        endpoints
    }

    fn timings(&mut self) -> Option<TimingsConfig> {
        let seconds = self.number("ttl-secs", 30);
        let sleep = match self.given.value("sleep").map(str::to_owned) {
            None => Some(Duration::from_secs(5)),
            Some(text) => match duration::parse(&text) {
                Ok(sleep) => Some(sleep),
                Err(error) => {
                    self.wrong(
                        "sleep",
                        format!("`{text}` cannot be slept: {error}"),
                        "write for instance --sleep=5s, --sleep=500ms or --sleep=1m30s",
                    );
                    None
                }
            },
        };
        let mut timings = TimingsConfig::for_ttl(Duration::from_secs(seconds));
        for mistake in timings.mistakes() {
            self.wrong("ttl-secs", mistake.message, mistake.help);
        }
        // Looking again more often than an answer may take would only queue.
        timings.protocol.relist = sleep?.max(timings.protocol.request_timeout);
        timings.rescan = sleep?.max(TimingsConfig::SHORTEST_RESCAN);
        Some(timings)
    }

    fn manifest(&mut self) -> Option<ManifestConfig> {
        let (source, destination) = (self.text("source-file"), self.text("dest-file"));
        let (source, destination) = (absolute(&source?), absolute(&destination?));
        let destination = canonical_destination(&destination);
        if let Err(error) = readable_file(&source) {
            // A podmaster without a source waits for one; it only must not lead.
            let problem = Problem::new(
                Some(Place::Flag("--source-file".into())),
                format!("the source {error}"),
            )
            .help("this node will not lead until it can be read");
            self.warnings.push(Warning(problem));
        }
        let directory = destination.parent().map(Path::to_path_buf).unwrap_or_default();
        if let Some((message, _)) = destination_mistake(&destination) {
            self.wrong("dest-file", message, "name the file that the kubelet shall find");
        } else if !directory.is_dir() {
            let message = format!("the directory {} does not exist", directory.display());
            self.wrong("dest-file", message, "make it, or mount it into this container");
        } else if canonical(&source).parent() == Some(&directory) {
            self.wrong(
                "source-file",
                "the source is in the destination's directory: the kubelet would run it there on every node",
                "keep sources in a directory of their own, for instance /srv/kubernetes/manifests",
            );
        }
        Some(ManifestConfig {
            name: destination
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default(),
            source,
            destination,
            exclusive: true,
            render: false,
            adopt: true,
            place: Some(Place::Flag("--source-file".into())),
        })
    }
}

fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}

fn config(
    key: &str,
    whoami: &str,
    endpoints: Vec<String>,
    timings: TimingsConfig,
    manifest: ManifestConfig,
) -> Config {
    let directory = manifest.destination.parent().unwrap_or(Path::new("/"));
    let state_directory = directory.join(".conclave").join(encode_name(key));
    let election = ElectionConfig {
        name: ElectionName::new(key),
        policy: DEFAULT_POLICY.to_owned(),
        policy_config: serde_json::Value::Object(serde_json::Map::new()),
        shadow: None,
        on_policy_failure: OnPolicyFailure::Builtin,
        manifests: vec![manifest],
        manifest_directory: None,
        fitness: Vec::new(),
        stop_check: None,
        takeover_delay: Duration::ZERO,
        overlap_accepted: true,
        role_file: None,
        on_stuck: None,
        hooks: None,
        command: None,
        places: ElectionPlaces::default(),
    };
    Config {
        cluster: key.to_owned(),
        node: NodeConfig {
            name: NodeName::new(whoami),
            labels: Default::default(),
            variables: Default::default(),
            fitness: Vec::new(),
        },
        store: StoreConfig::Etcd(EtcdConfig { endpoints, tls: None, login: None }),
        timings,
        policies: PoliciesConfig::default(),
        state_directory,
        http: None,
        elections: vec![election],
    }
}

#[cfg(test)]
mod tests;
