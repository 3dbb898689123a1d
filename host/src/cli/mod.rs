//! The command line: what can be asked for, and how a call is read.

mod operate;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::podmaster::is_podmaster;

pub use operate::{Asking, Cordon, History, Pause, PauseFor, StepDown, Transfer, Watch};

/// The exit statuses, for scripts; each command ends with one of them.
pub mod exit {
    /// Done.
    pub const SUCCESS: u8 = 0;
    /// Something went wrong while running.
    pub const FAILURE: u8 = 1;
    /// The call, the configuration or the store's kind is wrong; starting again will not help.
    pub const USAGE: u8 = 2;
    /// Another live daemon has this node's name.
    pub const NAME_TAKEN: u8 = 3;
    /// The store is not the one that this node knows, or went back in time.
    pub const OTHER_STORE: u8 = 4;
    /// There is nothing to clean up after: the node runs.
    pub const RUNNING: u8 = 5;
}

/// Keeps exactly one copy of a service running across several nodes.
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(
    name = "conclave",
    version,
    propagate_version = false,
    after_help = "Exit status: 0 done; 1 something went wrong while running; 2 the call or the \
                  configuration is wrong, and starting again will not help; 3 another live daemon \
                  has this node's name; 4 the store is another one, or went back in time; 5 the node \
                  runs, and there is nothing to clean up after."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Command {
    /// Take part in elections and run what follows the leader
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Accept a store that was restored or replaced; only once you know that no two are in use
        #[arg(long)]
        accept_store: bool,
    },
    /// Look at a configuration without running it
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Show who holds which election, and who else stands
    Status(Status),
    /// Hand an election's term to another node, by plan
    Transfer(Transfer),
    /// Have whoever leads an election hand it to the next, by plan
    StepDown(StepDown),
    /// Keep a node from leading: its terms move away, and it stays a spectator
    Cordon(Cordon),
    /// Let a cordoned node lead again
    Uncordon(Cordon),
    /// Cordon a node and wait until it leads nothing, as before maintenance
    Drain(Cordon),
    /// Keep leaders where they are: no ranking and no transfer moves a term
    ///
    /// What must be is still done: a leader that dies, is stopped, falls ill or is cordoned is followed by
    /// another.
    Pause(PauseFor),
    /// End a pause
    Resume(Pause),
    /// Show an election's terms: who led, how long, why it ended, and how long nobody led
    History(History),
    /// Say why this node holds an election, why the others do not, and what would have to change
    Explain(History),
    /// Show the nodes, what they hold, and whether they are cordoned
    Nodes(Status),
    /// Show what changes, as it changes
    Watch(Watch),
    /// Run a command while this node leads an election, and end it when it does not
    ///
    /// Takes part in the election for that alone; whoever else does the same competes. While this node leads, the
    /// command runs, with CONCLAVE_TERM (the fencing token), CONCLAVE_ELECTION, CONCLAVE_NODE and CONCLAVE_ROLE in its
    /// environment and nothing on its standard input. When the term is over all of its processes are ended, by the
    /// deadline, whatever happens to this program; when this node leads again, the command runs again. When the
    /// command ends by itself so does this, with its exit status.
    Exec(Exec),
    /// Look at a policy, and test it
    #[command(subcommand, arg_required_else_help = true)]
    Policy(PolicyCommand),
    /// Play a story with the real core and real policies on simulated time, and show who led when
    ///
    /// A scenario names nodes, policies to compare, and what happens: steps at their times, or failures at
    /// random. Every policy meets the same story; the same seed gives the same result. A judge watches all
    /// along: two leaders would end the play.
    Simulate(Simulate),
    /// Withdraw what a dead node left in place: before the kubelet starts, or after the node ended
    ///
    /// Withdraws by the ledger in the state directory every exclusive manifest and role file that
    /// guard and daemon left when both were killed at once, saves what somebody has changed, and
    /// prints the paths. It needs no store. Exit status: 0 nothing of it is in place any more; 1
    /// something still is, or may be; 2 the call or the configuration is wrong; 5 the node runs.
    Clean(Clean),
    /// See it work: three nodes on this machine, with nothing to install
    Demo,
    /// Run with podmaster's command line; see `conclave podmaster --help`
    #[command(disable_help_flag = true)]
    Podmaster {
        /// podmaster's flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        arguments: Vec<OsString>,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one for each command, into a directory
    Man {
        /// The directory
        directory: PathBuf,
    },
    /// What becomes the command of `conclave exec`, once its daemon gives leave
    #[command(hide = true, disable_help_flag = true)]
    Stub {
        /// Program and arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// What the demo starts
    #[command(subcommand, hide = true)]
    StandIn(StandIn),
    /// The guard's other half; started by `conclave run` and `conclave podmaster`
    #[command(hide = true, disable_help_flag = true)]
    Daemon {
        /// What the guard was called with
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Whether this program can take over from a running guard; asked by that guard
    #[command(hide = true, disable_help_flag = true)]
    TakesOver {
        /// What the guard's program has that this one must have in common with it
        version: String,
        /// What the guard was called with
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// What the demo starts.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum StandIn {
    /// A process in place of a pod
    Pod {
        /// Which, for people who look at the process list
        name: String,
    },
    /// A node that ends with the demo
    Node {
        /// Its configuration file
        config: PathBuf,
    },
}

/// What can be done with a configuration.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum ConfigCommand {
    /// Report every mistake in a configuration, and measure the store to judge the timings
    Check {
        /// The configuration file
        file: PathBuf,
    },
}

/// What can be done with a policy.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum PolicyCommand {
    /// Make a little project for a policy of your own, ready to be built and tested
    New(NewPolicy),
    /// Make a component of a core module that carries its interface, as compilers write it
    Build(BuildPolicy),
    /// Show what a policy is: its interfaces, imports, digest and configuration
    Inspect {
        /// A component, or the name of a built-in policy
        #[arg(value_name = "FILE")]
        policy: String,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
        output: Output,
    },
    /// Run a policy's test cases in the sandbox that runs the policy later
    ///
    /// A case file names a policy and lists cases: what the policy is asked, and what is expected of
    /// its answer. Beside what a case says, every policy must meet this, on the cases' views and on
    /// generated ones: each answer is usable and within the limits, the same question gets the same
    /// answer whichever node asks, and whoever is put in the lead stays there while nothing changes.
    ///
    /// Exit status: 0 every case passed; 1 one failed; 2 the call or a case file is
    /// wrong, a policy cannot be loaded, or there is no case.
    Test(PolicyTest),
    /// Measure what a policy's decisions cost, as the number of candidates grows
    ///
    /// Each call is measured as the daemon makes it, in a fresh instance; each candidate has two
    /// labels and a fact. Exit status: 0 everything was measured; 1 a call gave no usable answer;
    /// 2 the call is wrong, or the policy cannot be loaded.
    Bench(PolicyBench),
    /// Ask a policy what another was asked, and show where it decides otherwise
    ///
    /// Every node keeps a log of its policies' decisions in its state directory. Reasons are shown and
    /// not compared, for they decide nothing. Exit status: 0 it decides everything in the same way; 1
    /// something otherwise; 2 the call is wrong, or log or policy cannot be read.
    Replay(Replay),
}

/// What to run while this node leads.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Exec {
    /// The election
    pub election: String,
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// The name to take part by, instead of the host's and a number
    #[arg(long, value_name = "NODE")]
    pub name: Option<String>,
    /// How long a silent node keeps the lead; without it, as configured, or 10s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    /// How long the command has to end once it is asked to by SIGTERM; past the deadline it has no time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// Where guard and daemon keep their state; they know
    #[arg(long, hide = true, value_name = "DIR")]
    pub state_directory: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What to play, and how to show it.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Simulate {
    /// The scenario; examples/simulate has some
    #[arg(value_name = "SCENARIO")]
    pub scenario: PathBuf,
    /// The seed, instead of the scenario's
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Draw it into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
}

/// What to ask again, and whom.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Replay {
    /// A node's state directory, or a file of its decision log
    #[arg(value_name = "LOG")]
    pub log: PathBuf,
    /// The policy to ask: a component, or a built-in one
    #[arg(long, value_name = "FILE")]
    pub policy: String,
    /// Its configuration, in YAML, instead of the one that each decision was made with
    #[arg(long, value_name = "YAML")]
    pub config: Option<String>,
    /// Only decisions about this election
    #[arg(long, value_name = "ELECTION")]
    pub election: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
}

/// What to measure of a policy.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct PolicyBench {
    /// A component, or the name of a built-in policy
    #[arg(value_name = "FILE")]
    pub policy: String,
    /// How many candidates, each number in turn
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_values_t = [10, 100, 1_000],
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub candidates: Vec<u32>,
    /// How many calls of each kind; fewer, if they take longer than two seconds
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub calls: u32,
    /// The policy's configuration, in YAML
    #[arg(long, value_name = "YAML", default_value = "{}")]
    pub config: String,
    /// The fuel that a call may use, instead of what the daemon gives it unless configured
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub fuel: Option<u64>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
}

/// A project to make.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct NewPolicy {
    /// The policy's name, such as `rack-first`
    pub name: String,
    /// What to write it in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    pub language: Language,
    /// Where to make it, instead of a directory of the policy's name
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// A language that projects are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Small and fast: 140 KB, microseconds
    Rust,
    /// 12 MB, a millisecond for ten candidates
    Javascript,
    /// 18 MB, two milliseconds
    Python,
    /// Smallest: 8 KB, microseconds
    C,
}

/// A component to make.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct BuildPolicy {
    /// The core module
    #[arg(value_name = "MODULE")]
    pub module: PathBuf,
    /// The component to write, instead of one called like the module in this directory
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Which cases to run, and how to tell of them.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct PolicyTest {
    /// Case files, or directories that have some in `tests/`
    #[arg(value_name = "PATH", default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Test this policy, whichever the files name: a component, or a built-in one
    #[arg(long, value_name = "FILE")]
    pub policy: Option<String>,
    /// Only cases whose name contains this text
    #[arg(long, value_name = "PATTERN")]
    pub run: Option<String>,
    /// About how many generated views to ask what every policy must meet
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    pub views: u32,
    /// The seed of these views: the same one makes the same views
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// How to print it
    #[arg(long, value_enum, default_value_t = TestOutput::Table, value_name = "FORMAT")]
    pub output: TestOutput,
}

/// A way to print what became of test cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TestOutput {
    /// For people
    Table,
    /// For programs
    Json,
    /// For CI systems: JUnit's XML
    Junit,
}

/// Whose leftovers to withdraw.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct Clean {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The node's state directory; for podmaster, `.conclave/<key>/` beside its `--dest-file`
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// How to reach the store, and how to show what is in it.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Status {
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
}

/// A store, by a node's configuration or by itself.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct StoreArguments {
    /// A node's configuration file: its store and its cluster
    #[arg(long, value_name = "FILE", required_unless_present_any = ["endpoints", "embedded"], conflicts_with_all = ["endpoints", "embedded", "cluster"])]
    pub config: Option<PathBuf>,
    /// etcd's client URLs, separated by commas
    #[arg(
        long,
        value_name = "URLS",
        value_delimiter = ',',
        requires = "cluster",
        conflicts_with = "embedded"
    )]
    pub endpoints: Vec<String>,
    /// The file of an embedded store
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub embedded: Option<PathBuf>,
    /// The cluster, where no configuration names it
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub cluster: Option<String>,
}

/// A way to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Cli {
    /// Reads a call, the program's name first. Called as `podmaster`, everything else is
    /// podmaster's.
    ///
    /// # Errors
    ///
    /// clap's, which also stands for a request for help; it knows how to print itself.
    pub fn read(call: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut call = call.into_iter();
        let program = call.next().unwrap_or_else(|| "conclave".into());
        if is_podmaster(&program) {
            return Ok(Cli { command: Command::Podmaster { arguments: call.collect() } });
        }
        Cli::try_parse_from(std::iter::once(program).chain(call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn read(call: &str) -> Result<Command, clap::Error> {
        Cli::read(call.split(' ').map(OsString::from)).map(|cli| cli.command)
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn podmasters_flags_pass_through_untouched() {
        let arguments: Vec<OsString> =
            ["--key=a", "-v", "2", "--help"].into_iter().map(OsString::from).collect();
        for call in ["podmaster", "/podmaster", "conclave podmaster", "/usr/bin/conclave podmaster"]
        {
            let command = read(&format!("{call} --key=a -v 2 --help")).unwrap();
            assert_eq!(command, Command::Podmaster { arguments: arguments.clone() }, "{call}");
        }
    }

    #[test]
    fn a_store_is_named_in_one_way() {
        for good in [
            "--config f",
            "--endpoints http://a:1,http://b:1 --cluster c",
            "--embedded f --cluster c",
        ] {
            assert!(read(&format!("conclave status {good}")).is_ok(), "{good}");
        }
        for bad in [
            "",
            " --cluster c",
            " --endpoints http://a:1",
            " --config f --cluster c",
            " --embedded f --endpoints u --cluster c",
        ] {
            assert!(read(&format!("conclave status{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn cleaning_needs_to_know_after_whom() {
        assert!(read("conclave clean --config f").is_ok());
        assert!(read("conclave clean --state-dir d").is_ok());
        assert!(read("conclave clean").is_err());
        assert!(read("conclave clean --config f --state-dir d").is_err());
    }

    #[test]
    fn a_run_needs_its_configuration() {
        let run = Command::Run { config: "f".into(), accept_store: false };
        assert_eq!(read("conclave run --config f").unwrap(), run);
        assert_eq!(read("conclave run").unwrap_err().exit_code(), i32::from(exit::USAGE));
    }
}
