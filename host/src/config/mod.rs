//! The configuration of `conclave run`: from a YAML file to a [`Config`] in which everything is
//! resolved and checked, or to every mistake in it at once.
//!
//! `conclave_yaml` parses the text, knows where everything stands and reads it into the shapes of
//! `raw`; `resolve` with its parts gives those a meaning. Whatever leaves this module needs no further check against itself; what depends on the world (is the
//! store there, does the policy accept its configuration) is for the callers, who find the
//! place to blame in each setting's [`Place`].

mod checks;
mod elections;
mod http;
mod manifests;
mod paths;
mod raw;
mod resolve;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod timings;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conclave_core::record::Attributes;
use conclave_core::{ElectionName, NodeName};
use conclave_yaml::{Document, decode};

use crate::check::{FitnessCheck, StopCheck};

pub use crate::exec::CommandConfig;
pub use conclave_yaml::{Place, Problem, Problems as ConfigErrors, Warning};
pub use paths::{SourceError, canonical, encode_name};
pub use raw::OnPolicyFailure;
pub use settings::Instance;
pub use timings::{TimingMistake, TimingsConfig};

pub(crate) use manifests::destination_mistake;
pub(crate) use paths::{canonical_destination, name_mistake, readable_file};
pub(crate) use resolve::host_name;
pub(crate) use store::check_endpoint;

/// Where state is kept unless the configuration says otherwise.
pub const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/conclave";

/// Where a node answers over HTTP unless its configuration says otherwise: this machine alone.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8437";

/// The policy of an election that names none.
pub const DEFAULT_POLICY: &str = "cold-standby";

/// Everything that a guard and its daemon need to know, checked against itself. All paths are
/// absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cluster: its name is part of every key in the store.
    pub cluster: String,
    /// This node.
    pub node: NodeConfig,
    /// Where the nodes meet.
    pub store: StoreConfig,
    /// The durations.
    pub timings: TimingsConfig,
    /// Where policies come from and what they may use.
    pub policies: PoliciesConfig,
    /// Where this node keeps its ledger, lock and caches.
    pub state_directory: PathBuf,
    /// Where it answers what it is doing, if it does.
    pub http: Option<HttpConfig>,
    /// The elections that this node takes part in; never empty, names unique.
    pub elections: Vec<ElectionConfig>,
}

/// Where a node answers over HTTP what it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// By which certificate, where callers are to speak TLS.
    pub tls: Option<HttpTls>,
    /// The file of the token that callers have to show, if any.
    pub token_file: Option<PathBuf>,
}

/// A certificate and its key, as PEM files; they are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    /// The certificate, with those that vouch for it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name, unique in the cluster.
    pub name: NodeName,
    /// What policies see of it.
    pub labels: Attributes,
    /// Values for `${NAME}` in rendered manifests.
    pub variables: Attributes,
    /// What must hold for it to be fit, in every election.
    pub fitness: Vec<FitnessCheck>,
}

/// Where the nodes meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// Servers that speak etcd's v3 protocol.
    Etcd(EtcdConfig),
    /// A file, for several daemons on one machine.
    Embedded {
        /// The file.
        path: PathBuf,
    },
}

/// How etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs of the members: `http://` or, with [`tls`](Self::tls), `https://`; never empty.
    pub endpoints: Vec<String>,
    /// Certificates, for `https://` endpoints.
    pub tls: Option<TlsConfig>,
    /// User and password.
    pub login: Option<Login>,
}

/// Certificates as PEM files; they are read again for every new connection, so that they can be
/// replaced while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Whom to trust.
    pub ca: PathBuf,
    /// Our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the servers' certificates, where it is not the endpoints' host.
    pub server_name: Option<String>,
}

/// An etcd user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// How the user proves it.
    pub password: Password,
}

/// A password, or where it stands.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// In the configuration.
    Text(Arc<str>),
    /// In a file, without its trailing line break; read when the store is opened.
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::Text(_) => f.write_str("Text(…)"),
            Password::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Password {
    /// The password itself.
    ///
    /// # Errors
    ///
    /// The file's, where it cannot be read as text.
    pub fn read(&self) -> std::io::Result<String> {
        match self {
            Password::Text(text) => Ok(text.to_string()),
            Password::File(path) => {
                let text = std::fs::read_to_string(path)?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }
}

/// Where policies come from and what one call may use.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PoliciesConfig {
    /// Every `*.wasm` in it is a policy named after its file.
    pub directory: Option<PathBuf>,
    /// SHA-256 digests, in lower-case hexadecimal, that components must have, by policy name.
    pub digests: BTreeMap<String, String>,
    /// Limits of one call; `None` stands for the policy host's default.
    pub limits: PolicyLimits,
    /// Those of single policies, by name; `None` stands for what holds for all.
    pub limits_of: BTreeMap<String, PolicyLimits>,
}

impl PoliciesConfig {
    /// How long the slowest policy may think, where the configuration says so.
    pub fn longest_time(&self) -> Option<Duration> {
        self.limits_of.values().chain([&self.limits]).filter_map(|limits| limits.time).max()
    }
}

/// What one call of a policy may use; `None` stands for the policy host's default.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PolicyLimits {
    /// Wall-clock time.
    pub time: Option<Duration>,
    /// wasmtime's fuel.
    pub fuel: Option<u64>,
    /// Linear memory, in bytes.
    pub memory: Option<usize>,
    /// The answer's size, in bytes.
    pub answer: Option<usize>,
    /// What it logs, in bytes.
    pub log: Option<usize>,
}

/// One election.
#[derive(Clone, Debug, PartialEq)]
pub struct ElectionConfig {
    /// Its name, unique in the cluster.
    pub name: ElectionName,
    /// The policy's name.
    pub policy: String,
    /// What the policy is configured with: a JSON object, empty where nothing was given.
    pub policy_config: serde_json::Value,
    /// What decides while the policy fails.
    pub on_policy_failure: OnPolicyFailure,
    /// A policy that is asked the same, and decides nothing.
    pub shadow: Option<ShadowConfig>,
    /// The manifests that are named one by one; names unique in the election.
    pub manifests: Vec<ManifestConfig>,
    /// A directory of manifests that the policy places one by one.
    pub manifest_directory: Option<DirectoryConfig>,
    /// What must hold for this node to be fit; names unique in the election.
    pub fitness: Vec<FitnessCheck>,
    /// What must hold before a planned handover goes on.
    pub stop_check: Option<StopCheck>,
    /// What a new leader waits after an unclean end.
    pub takeover_delay: Duration,
    /// The operator's word that two copies may run for a while.
    pub overlap_accepted: bool,
    /// Tells pods on this node its role.
    pub role_file: Option<PathBuf>,
    /// The command to run, as arguments, when exclusive effects cannot be withdrawn.
    pub on_stuck: Option<Vec<String>>,
    /// What is run on changes of its roles.
    pub hooks: Option<HooksConfig>,
    /// What runs while this node leads; only `conclave exec` has that.
    pub command: Option<CommandConfig>,
    /// Where this stands.
    pub places: ElectionPlaces,
}

/// Commands, as arguments, that are run on changes of a role, one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HooksConfig {
    /// Once this node leads and everything is in place.
    pub gained: Option<Vec<String>>,
    /// Once it no longer does and everything is withdrawn.
    pub lost: Option<Vec<String>>,
    /// When another node holds the election in store, or nobody.
    pub changed: Option<Vec<String>>,
    /// How long each may take.
    pub timeout: Duration,
}

/// A policy that runs beside the one that decides.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowConfig {
    /// Its name.
    pub policy: String,
    /// What it is configured with: a JSON object.
    pub policy_config: serde_json::Value,
}

/// A manifest that follows the leader, or runs everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestConfig {
    /// Unique in the election.
    pub name: String,
    /// The file that is copied.
    pub source: PathBuf,
    /// The file that it becomes; its directory is canonical where it exists.
    pub destination: PathBuf,
    /// Whether only the term's holder may have it.
    pub exclusive: bool,
    /// Whether `${NAME}` is filled in.
    pub render: bool,
    /// Whether a foreign file at the destination may be replaced or removed.
    pub adopt: bool,
    /// Where this stands.
    pub place: Option<Place>,
}

/// A directory whose files are manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryConfig {
    /// Where the manifests are.
    pub source: PathBuf,
    /// The directory that they are copied to, under their own names; canonical where it exists.
    pub destination: PathBuf,
    /// As in [`ManifestConfig::exclusive`], for each of them.
    pub exclusive: bool,
    /// As in [`ManifestConfig::render`].
    pub render: bool,
    /// As in [`ManifestConfig::adopt`].
    pub adopt: bool,
    /// Where this stands.
    pub place: Option<Place>,
}

/// Where an election's settings stand, for mistakes that only others can see.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ElectionPlaces {
    /// The election as a whole.
    pub election: Option<Place>,
    /// Its policy's name.
    pub policy: Option<Place>,
    /// Its policy's configuration.
    pub policy_config: Option<Place>,
    /// Everything inside that, by JSON pointer.
    pub settings: BTreeMap<String, Place>,
}

impl ElectionPlaces {
    /// Where a setting of the policy stands, by its JSON pointer; otherwise what is around it.
    pub fn setting(&self, mut pointer: &str) -> Option<&Place> {
        loop {
            if let Some(place) = self.settings.get(pointer) {
                return Some(place);
            }
            match pointer.rsplit_once('/') {
                Some((around, _)) => pointer = around,
                None => return self.policy_config.as_ref().or(self.policy.as_ref()),
            }
        }
    }
}

/// When a configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Somebody starts a node, and is there to mend what is wrong.
    Start,
    /// It was good once and has to do: what is wrong now is only warned of.
    Again,
}

/// Reads and checks a configuration file. `builtin_policies` are those that need no directory.
///
/// Relative paths in it are taken from the file's own directory.
///
/// # Errors
///
/// All mistakes that can be found without the store and without running a policy.
pub fn load(
    file: &Path,
    builtin_policies: &[&str],
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    parse(file, &read(file)?, builtin_policies)
}

/// As [`load`], for a text that was read already.
///
/// # Errors
///
/// As [`load`].
pub fn parse(
    file: &Path,
    text: &str,
    builtin_policies: &[&str],
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    interpret(file, text, builtin_policies, Occasion::Start)
}

/// As [`parse`], for a text that was good once, and for those who only look. Mistakes are
/// warnings then: a node that runs has to live with what has changed around it.
///
/// # Errors
///
/// As [`load`], where what is wrong leaves nothing to go on with.
pub fn parse_again(
    file: &Path,
    text: &str,
    builtin_policies: &[&str],
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    interpret(file, text, builtin_policies, Occasion::Again)
}

/// Reads a configuration's text, for [`parse`].
///
/// # Errors
///
/// When the file is not there, or is not text.
pub fn read(file: &Path) -> Result<String, ConfigErrors> {
    let bytes = std::fs::read(file).map_err(|error| {
        let message = format!("cannot read the configuration file {}: {error}", file.display());
        let help =
            "name the file with --config; examples/two-nodes/conclave.yaml is one to start from";
        Problem::new(None, message).help(help)
    })?;
    Ok(Document::text(&file.display().to_string(), bytes)?)
}

fn interpret(
    file: &Path,
    text: &str,
    builtin_policies: &[&str],
    occasion: Occasion,
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let document = Document::parse(&file.display().to_string(), text)?;
    if document.value.is_null() {
        return Err(Problem::new(None, format!("the configuration {} is empty", file.display()))
            .help("start from examples/two-nodes/conclave.yaml")
            .into());
    }
    let decoded = decode(&document)?;
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/"));
    resolve::resolve(&document, decoded, base, builtin_policies, occasion)
}
