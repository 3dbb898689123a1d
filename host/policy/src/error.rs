//! What goes wrong, typed by cause: with a call, with loading a component, with the directory.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conclave_core::ElectionName;

use crate::digest::Digest;
use crate::directory::Origin;
use crate::interface::{Function, Interface, SPEAKS};
use crate::sandbox::Usage;

type Source = Box<dyn StdError + Send + Sync>;

/// A policy gave no usable answer.
#[derive(Debug, thiserror::Error)]
#[error("policy `{plugin}` ({}) gave no usable answer to `{function}`{}", digest.short(), of(election))]
pub struct PolicyError {
    /// The policy's name.
    pub plugin: String,
    /// Its component's digest.
    pub digest: Digest,
    /// Which election it was asked about, if one.
    pub election: Option<ElectionName>,
    /// What it was asked.
    pub function: Function,
    /// What the call spent all the same.
    pub usage: Box<Usage>,
    /// Why there is no answer.
    #[source]
    pub cause: Box<Cause>,
}

fn of(election: &Option<ElectionName>) -> String {
    election.as_ref().map(|name| format!(" for election `{name}`")).unwrap_or_default()
}

/// Why a call gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The guest did what WebAssembly does not allow, or gave up: a panic, a stack overflow.
    #[error("it trapped; a message that it may have left is in the log")]
    Trap(#[source] wasmtime::Trap),
    /// It spent its fuel.
    #[error("it used up its {budget} units of fuel; does it loop?")]
    Fuel {
        /// The limit.
        budget: u64,
    },
    /// It spent its time.
    #[error("it ran for longer than {limit:?}")]
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// It failed after having been denied more memory or a larger table.
    #[error("it needs more memory than {} MiB or a larger table than allowed", limit >> 20)]
    Memory {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It said that it gives no answer.
    #[error("it refused: {0}")]
    Refused(Refusal),
    /// Its answer cannot be used.
    #[error("its answer is wrong")]
    BadAnswer(#[source] BadAnswer),
    /// It called WASI's `exit`.
    #[error("it exited with code {code} instead of answering")]
    Exit {
        /// The code.
        code: i32,
    },
    /// No instance of it could be made.
    #[error("it cannot be instantiated")]
    Instantiate(#[source] Source),
}

impl Cause {
    /// Which it is, for programs.
    pub fn label(&self) -> &'static str {
        match self {
            Cause::Trap(_) => "trap",
            Cause::Fuel { .. } => "fuel",
            Cause::Deadline { .. } => "deadline",
            Cause::Memory { .. } => "memory",
            Cause::Refused(_) => "refused",
            Cause::BadAnswer(_) => "bad_answer",
            Cause::Exit { .. } => "exit",
            Cause::Instantiate(_) => "instantiate",
        }
    }
}

/// A policy's own word that it gives no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The configuration cannot be used, or not with these manifests: a mistake of the
    /// operator's.
    Configuration(String),
    /// The arguments do not allow an answer now.
    Undecided(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Configuration(message) => write!(f, "{message} (configuration)"),
            Refusal::Undecided(message) => f.write_str(message),
        }
    }
}

/// An answer that lies or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    /// Too large to be read.
    #[error("what it passed is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not what the interface promises.
    #[error("what it passed is malformed")]
    Malformed(#[source] Source),
    /// A ranked node is no candidate.
    #[error("it ranked `{node}`, which is no candidate")]
    UnknownNode {
        /// The name.
        node: String,
    },
    /// A node stands in the ranking twice.
    #[error("it ranked `{node}` twice")]
    RepeatedNode {
        /// The name.
        node: String,
    },
    /// A placement for a manifest that the election has not.
    #[error("it placed manifest `{manifest}`, which the election has not")]
    UnknownManifest {
        /// The name.
        manifest: String,
    },
    /// Two placements for one manifest.
    #[error("it placed manifest `{manifest}` twice")]
    RepeatedManifest {
        /// The name.
        manifest: String,
    },
    /// No placement for a manifest.
    #[error("it left out manifest `{manifest}`; every manifest needs an answer, `run` or not")]
    MissingManifest {
        /// The name.
        manifest: String,
    },
    /// Only the leader may have it.
    #[error("it would run the exclusive manifest `{manifest}` on a standby")]
    ExclusiveOnStandby {
        /// The name.
        manifest: String,
    },
    /// Content that depends on the role belongs into exclusive manifests only.
    #[error(
        "it gives manifest `{manifest}` other variables as leader than as standby; only exclusive manifests may depend on the role"
    )]
    VariablesByRole {
        /// The manifest's name.
        manifest: String,
    },
    /// A variable's name, value or number.
    #[error("variable `{variable}` of manifest `{manifest}` {fault}")]
    Variable {
        /// The manifest's name.
        manifest: String,
        /// The variable's name.
        variable: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A fact's key, value or number.
    #[error("fact `{key}` {fault}")]
    Fact {
        /// The key.
        key: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The configuration's schema is no JSON.
    #[error("its configuration schema is not JSON")]
    Schema(#[source] serde_json::Error),
}

impl BadAnswer {
    /// The manifest that the answer is wrong about, if the election has it.
    pub fn manifest(&self) -> Option<&str> {
        match self {
            BadAnswer::RepeatedManifest { manifest }
            | BadAnswer::MissingManifest { manifest }
            | BadAnswer::ExclusiveOnStandby { manifest }
            | BadAnswer::VariablesByRole { manifest }
            | BadAnswer::Variable { manifest, .. } => Some(manifest),
            _ => None,
        }
    }
}

/// A file or built-in component is no usable policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Not a regular file.
    #[error("it is not a regular file")]
    NotAFile,
    /// Anybody may change it, and so decide who leads.
    #[error("everybody may write to it; take that right away (chmod o-w)")]
    WorldWritable,
    /// Larger than any policy needs.
    #[error("it has {size} bytes; the most is {limit}")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The name would not do in the configuration.
    #[error("its name may have letters, digits, `-`, `_` and `.` only")]
    Name,
    /// Not WebAssembly at all.
    #[error(
        "it is not a WebAssembly component (is it a complete file?); this host speaks conclave:policy@{SPEAKS}"
    )]
    NotWasm,
    /// A core module.
    #[error(
        "it is a core WebAssembly module, which exports {}; make it a component (plugins/build, or wasm-tools component new): this host speaks conclave:policy@{SPEAKS}",
        list(exports)
    )]
    CoreModule {
        /// What it exports, as far as it can be read: of a policy's functions the interfaces.
        exports: Vec<String>,
    },
    /// It does not validate or compile.
    #[error("it does not compile (is it a complete file?)")]
    Compile(#[source] Source),
    /// It wants something that no policy gets.
    #[error(
        "it imports `{import}`, which policies do not get: only conclave:policy/logging and an empty WASI 0.2 without HTTP"
    )]
    Import {
        /// The import's name.
        import: String,
    },
    /// Its imports are named as they should but have other types.
    #[error("its imports do not fit")]
    Link(#[source] Source),
    /// It was built for another version of the interface.
    #[error("it exports {}; this host speaks conclave:policy@{SPEAKS}", list(exports))]
    Version {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It exports no interface of a policy.
    #[error(
        "it exports {}; a policy exports about, facts, leadership or placement of conclave:policy@{SPEAKS}",
        list(exports)
    )]
    NoInterface {
        /// What it exports.
        exports: Vec<String>,
    },
    /// An interface is there by name, but its functions are not those of `wit/`.
    #[error("its `{interface}` is not that of conclave:policy@{SPEAKS}")]
    Signature {
        /// Which.
        interface: Interface,
        /// wasmtime's finding.
        #[source]
        source: Source,
    },
    /// A first instance could not be made within the limits.
    #[error("a trial instance of it failed")]
    Trial(#[source] Cause),
}

fn list(exports: &[String]) -> String {
    match exports {
        [] => "nothing".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// The plugin directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be read.
    #[error("cannot read the plugin directory {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anybody may put a policy into it, and so decide who leads.
    #[error("everybody may write to the plugin directory {}; take that right away (chmod o-w)", path.display())]
    WorldWritable {
        /// Which.
        path: PathBuf,
    },
}

/// No policy of that name can be used.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is none.
    #[error("there is no policy `{name}`; there are {}", list(known))]
    Unknown {
        /// The name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// Its file is bad.
    #[error("policy `{name}`{} cannot be used", place(origin))]
    Unusable {
        /// The name.
        name: String,
        /// Where it comes from.
        origin: Origin,
        /// Why.
        #[source]
        source: Arc<LoadError>,
    },
}

fn place(origin: &Origin) -> String {
    match origin {
        Origin::BuiltIn => ", which is built in,".to_owned(),
        Origin::File { path, .. } => format!(" in {}", path.display()),
    }
}

/// The sandbox itself cannot be set up on this machine.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// wasmtime refuses its configuration, or the system the address space for the pool.
    #[error("cannot set up the sandbox for policies")]
    Engine(#[source] Source),
    /// The thread that keeps deadlines cannot be started.
    #[error("cannot start the thread that keeps policies' deadlines")]
    Ticker(#[source] io::Error),
}
