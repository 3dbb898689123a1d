//! What operators ask of a running cluster.

use std::time::Duration;

use clap::Args;

use super::{Output, StoreArguments};

/// How to ask: where, for how long to wait, and what to leave as a note.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Asking {
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// Why, for whoever looks later; who asks is noted anyway
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Ask, and do not wait for what comes of it
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for what comes of it: `30s`, `5m`
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
}

/// Whose term is to move, and where.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Transfer {
    /// The election
    pub election: String,
    /// The node that shall lead; without it, the next in the ranking
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// Ask although that node cannot lead now: the term moves once it can, if that is within the
    /// timeout
    #[arg(long, requires = "to")]
    pub force: bool,
    /// How to ask
    #[command(flatten)]
    pub asking: Asking,
}

/// Whose term is to end.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct StepDown {
    /// The election
    pub election: String,
    /// How to ask
    #[command(flatten)]
    pub asking: Asking,
}

/// Which node is to lead nothing, or may again.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Cordon {
    /// The node
    pub node: String,
    /// Only in this election; may be given several times. Otherwise in all that the store knows
    #[arg(long = "election", value_name = "ELECTION")]
    pub elections: Vec<String>,
    /// Also a node that the store does not know now, and also where nobody else could lead
    #[arg(long)]
    pub force: bool,
    /// How to ask
    #[command(flatten)]
    pub asking: Asking,
}

/// Which elections are to stay as they are, or may change again.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Pause {
    /// The election; without it, all that the store knows
    pub election: Option<String>,
    /// How to ask
    #[command(flatten)]
    pub asking: Asking,
}

/// Which elections are to stay as they are, and for how long.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct PauseFor {
    /// Which
    #[command(flatten)]
    pub pause: Pause,
    /// End it by itself after this long: `30m`, `2h`; each node counts from when it saw it
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub lasting: Option<Duration>,
}

/// Whose terms to show.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct History {
    /// The election
    pub election: String,
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
}

/// What to watch.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Watch {
    /// Only this election
    #[arg(long, value_name = "ELECTION")]
    pub election: Option<String>,
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// How to print it: for people, as a live table on a terminal and as lines elsewhere; or a JSON object on each line
    #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
}
