//! Gives the written fields their meaning: checks them against each other and against the files
//! of this machine, and fills in what was left out.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use conclave_core::NodeName;
use conclave_yaml::{Decoded, Document, Path, Problem, Resolver, quoted, similar};

use super::paths::{canonical, name_mistake};
use super::{
    Config, ConfigErrors, DEFAULT_STATE_DIRECTORY, ElectionConfig, NodeConfig, Occasion,
    PoliciesConfig, PolicyLimits, Warning, checks, elections, http, raw, store, timings,
};

/// The version of configurations that this program reads.
const VERSION: u32 = 1;

/// What 32 bits address.
const MOST_MEMORY_MIB: u32 = 4096;

/// Makes a configuration of what was read, or lists everything that is wrong.
pub(super) fn resolve(
    document: &Document,
    decoded: Decoded<raw::Root>,
    base: &FilePath,
    builtin_policies: &[&str],
    occasion: Occasion,
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let (mut resolver, root) = Resolver::new(document, decoded, "the configuration", base);
    let config = config(&mut resolver, root, builtin_policies);
    resolver.finish(config, occasion == Occasion::Again)
}

fn config(r: &mut Resolver<'_>, root: raw::Root, builtin_policies: &[&str]) -> Option<Config> {
    let top = Path::default();
    if let Some(version) = root.version.filter(|version| *version != VERSION) {
        r.wrong(
            &top.key("version"),
            format!(
                "this is a configuration of version {version}, and this program reads {VERSION}"
            ),
            "use the version of conclave that it was written for",
        );
    }
    let cluster = r.required(
        &top,
        "cluster",
        root.cluster,
        "name the set of nodes that elect among themselves, for instance `cluster: production`",
    );
    let cluster =
        cluster.map(|cluster| plain_name(r, &top.key("cluster"), "cluster's name", cluster));
    let node = node(r, root.node.unwrap_or_default(), &top.key("node"));
    let store = store::resolve(r, root.store, &top);
    let timings = timings(r, &root.timings.unwrap_or_default(), &top.key("timings"));
    let state_directory =
        state_directory(r, root.state_directory.as_deref(), &top.key("state_directory"));
    let http = root.http.and_then(|written| http::resolve(r, written, &top.key("http")));
    let (policies, known) =
        policies(r, root.policies.unwrap_or_default(), &top.key("policies"), builtin_policies);
    let ours = elections::OurFiles { state_directory: &state_directory, store: store.as_ref() };
    let elections = elections::resolve(r, root.elections, &top, &known, &ours);
    if let Some(node) = &node {
        check_names(r, node, &elections);
    }
    Some(Config {
        cluster: cluster?,
        node: node?,
        store: store?,
        timings,
        policies,
        state_directory,
        http,
        elections,
    })
}

fn node(r: &mut Resolver<'_>, node: raw::Node, path: &Path) -> Option<NodeConfig> {
    let name = match node.name {
        Some(name) => name,
        None if r.is_faulty(&path.key("name")) => return None,
        None => host_name(),
    };
    let name = plain_name(r, &path.key("name"), "node's name", name);
    let variables = node.variables.unwrap_or_default();
    for variable in variables.keys() {
        let at = path.key("variables").key(variable);
        if variable.starts_with("CONCLAVE_") {
            r.wrong_field(
                &at,
                format!("the variable `{variable}` has a name that is kept for Conclave's own"),
                "choose a name that does not begin with CONCLAVE_",
            );
        } else if !is_variable_name(variable) {
            r.wrong_field(
                &at,
                format!("`{variable}` cannot be used as ${{{variable}}}"),
                "a variable's name has letters, digits and underscores and does not begin with a digit",
            );
        }
    }
    Some(NodeConfig {
        name: NodeName::new(name),
        labels: node.labels.unwrap_or_default(),
        variables,
        fitness: checks::fitness(r, node.fitness.unwrap_or_default(), &path.key("fitness")),
    })
}

/// A candidate publishes its checks by name, the node's and the election's together.
fn check_names(r: &mut Resolver<'_>, node: &NodeConfig, elections: &[ElectionConfig]) {
    for election in elections {
        for check in &election.fitness {
            if node.fitness.iter().any(|other| other.name == check.name) {
                let message = format!(
                    "election `{}` and the node both have a check `{}`",
                    election.name, check.name
                );
                let help = "give one of them another `name`, or leave the election's out";
                let place = election.places.election.clone();
                r.report(Problem::new(place, message).help(help));
            }
        }
    }
}

/// Checks a name; `what` it names is for the message.
pub(super) fn plain_name(r: &mut Resolver<'_>, path: &Path, what: &str, name: String) -> String {
    if let Some(mistake) = name_mistake(&name) {
        r.wrong(path, format!("the {what} `{name}` {mistake}"), "choose a short, plain name");
    } else if name.contains('/') {
        r.wrong(
            path,
            format!("the {what} `{name}` contains a slash"),
            "names become parts of keys, file names and addresses: use a dash",
        );
    }
    name
}

/// This machine's name, as podmaster takes it too when no other is given.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn is_variable_name(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn timings(r: &mut Resolver<'_>, written: &raw::Timings, path: &Path) -> timings::TimingsConfig {
    let timings = timings::from_raw(written);
    if r.is_faulty(path) {
        // Judging the defaults of what could not be read would only confuse.
        return timings;
    }
    for mistake in timings.mistakes() {
        r.wrong(&path.key(mistake.field), mistake.message, mistake.help);
    }
    timings
}

fn state_directory(r: &mut Resolver<'_>, written: Option<&str>, path: &Path) -> PathBuf {
    let directory = r.file(path, written.unwrap_or(DEFAULT_STATE_DIRECTORY));
    if directory.exists() && !directory.is_dir() {
        r.wrong(
            path,
            format!("{} is not a directory", directory.display()),
            "name a directory; it is made if it is missing",
        );
    }
    canonical(&directory)
}

/// The policies' settings, and the names of all policies that there are.
fn policies(
    r: &mut Resolver<'_>,
    written: raw::Policies,
    path: &Path,
    builtin: &[&str],
) -> (PoliciesConfig, Vec<String>) {
    let mut known: Vec<String> = builtin.iter().map(|name| (*name).to_owned()).collect();
    let directory = written.directory.map(|text| r.file(&path.key("directory"), &text));
    if let Some(directory) = &directory {
        match components(directory) {
            Ok(found) => known.extend(found),
            Err(error) => r.wrong(
                &path.key("directory"),
                format!("the policy directory {} cannot be read: {error}", directory.display()),
                "make it, or leave `directory` out to use the built-in policies only",
            ),
        }
    }
    known.sort();
    known.dedup();
    let digests = digests(r, written.digests.unwrap_or_default(), &path.key("digests"), &known);
    let limits = limits(r, &written.limits.unwrap_or_default(), &path.key("limits"));
    let at = path.key("limits_of");
    let limits_of = limits_of(r, &written.limits_of.unwrap_or_default(), &at, &known);
    (PoliciesConfig { directory, digests, limits, limits_of }, known)
}

/// The names of the components in a directory.
fn components(directory: &FilePath) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    Ok(names)
}

fn digests(
    r: &mut Resolver<'_>,
    written: BTreeMap<String, String>,
    path: &Path,
    known: &[String],
) -> BTreeMap<String, String> {
    let mut digests = BTreeMap::new();
    for (name, digest) in written {
        let at = path.key(&name);
        if !known.contains(&name) {
            let (message, help) = unknown_policy(&name, known);
            r.wrong_field(&at, message, help);
        }
        let bare = digest.strip_prefix("sha256:").unwrap_or(&digest).to_ascii_lowercase();
        if bare.len() != 64 || !bare.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            r.wrong(
                &at,
                format!("`{digest}` is not a SHA-256 digest"),
                "write the 64 digits that `sha256sum` prints for the component",
            );
        }
        digests.insert(name, bare);
    }
    digests
}

/// What to say about a policy that does not exist.
pub(super) fn unknown_policy(name: &str, known: &[String]) -> (String, String) {
    let names = || known.iter().map(String::as_str);
    let mut help = format!("the policies here are {}", quoted(names()));
    if let Some(meant) = similar(name, names()) {
        help = format!("did you mean `{meant}`? {help}");
    }
    (format!("there is no policy `{name}`"), help)
}

fn limits_of(
    r: &mut Resolver<'_>,
    written: &BTreeMap<String, raw::Limits>,
    path: &Path,
    known: &[String],
) -> BTreeMap<String, PolicyLimits> {
    let mut all = BTreeMap::new();
    for (name, written) in written {
        let at = path.key(name);
        if !known.contains(name) {
            let (message, help) = unknown_policy(name, known);
            r.wrong_field(&at, message, help);
        }
        all.insert(name.clone(), limits(r, written, &at));
    }
    all
}

fn limits(r: &mut Resolver<'_>, written: &raw::Limits, path: &Path) -> PolicyLimits {
    let zero = [
        ("time", written.time.is_some_and(|span| span.0.is_zero())),
        ("fuel", written.fuel == Some(0)),
        ("memory_mib", written.memory_mib == Some(0)),
        ("answer_kib", written.answer_kib == Some(0)),
    ];
    for (field, _) in zero.into_iter().filter(|(_, zero)| *zero) {
        r.wrong(
            &path.key(field),
            format!("with {field} 0 no policy can answer"),
            "leave it out to get the default",
        );
    }
    if let Some(memory) = written.memory_mib.filter(|memory| *memory > MOST_MEMORY_MIB) {
        r.wrong(
            &path.key("memory_mib"),
            format!("memory_mib {memory} is more than a component can address"),
            format!("the most is {MOST_MEMORY_MIB}, and the default 64"),
        );
    }
    // A `u32` of mebibytes fits the address space of every machine that this runs on.
    let bytes = |count: Option<u32>, unit: usize| count.map(|count| count as usize * unit);
    PolicyLimits {
        time: written.time.map(|span| span.0),
        fuel: written.fuel,
        memory: bytes(written.memory_mib, 1 << 20),
        answer: bytes(written.answer_kib, 1 << 10),
        log: bytes(written.log_kib, 1 << 10),
    }
}
