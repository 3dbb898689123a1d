//! The commands: each file runs one and says with which exit status it ends.

mod check;
mod clean;
mod cluster;
mod exec;
mod kept;
mod operate;
mod policy;
mod run;
mod simulate;
mod status;
mod upgrade;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory;
use conclave_guard::{GuardError, LockError};

use crate::cli::{Cli, Command, ConfigCommand, PolicyCommand, StandIn, exit};
use crate::config::{ConfigErrors, Warning};
use crate::demo;

/// Runs what was asked for. Words go to standard error, data to standard output.
pub fn dispatch(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run { config, accept_store } => run::guard_config(&config, accept_store),
        Command::Podmaster { arguments } => run::guard_podmaster(&arguments),
        Command::Daemon { arguments } => run::daemon(arguments),
        Command::TakesOver { version, arguments } => upgrade::answer(&version, arguments),
        Command::Config(ConfigCommand::Check { file }) => check::check(&file),
        Command::Policy(PolicyCommand::New(wanted)) => policy::new::new(&wanted),
        Command::Policy(PolicyCommand::Build(wanted)) => policy::build::build(&wanted),
        Command::Policy(PolicyCommand::Inspect { policy, output }) => {
            policy::inspect::inspect(&policy, output)
        }
        Command::Policy(PolicyCommand::Test(test)) => policy::test::test(&test),
        Command::Policy(PolicyCommand::Bench(wanted)) => policy::bench::bench(&wanted),
        Command::Policy(PolicyCommand::Replay(wanted)) => policy::replay::replay(&wanted),
        Command::Simulate(wanted) => simulate::simulate(&wanted),
        Command::Clean(whose) => clean::clean(&whose),
        Command::Status(status) => status::status(&status),
        Command::Transfer(wanted) => operate::transfer::transfer(&wanted),
        Command::StepDown(wanted) => operate::transfer::step_down(&wanted),
        Command::Cordon(wanted) => operate::cordon::cordon(&wanted),
        Command::Uncordon(wanted) => operate::cordon::uncordon(&wanted),
        Command::Drain(wanted) => operate::cordon::drain(&wanted),
        Command::Pause(wanted) => operate::pause::pause(&wanted),
        Command::Resume(wanted) => operate::pause::resume(&wanted),
        Command::History(wanted) => operate::history::history(&wanted),
        Command::Explain(wanted) => operate::explain::explain(&wanted),
        Command::Nodes(wanted) => operate::nodes::nodes(&wanted),
        Command::Watch(wanted) => operate::watch::watch(&wanted),
        Command::Exec(wanted) => exec::exec(&wanted),
        Command::Stub { command } => Ok(crate::exec::stub::wait_and_become(&command)),
        Command::Demo => demo::run().map(|()| exit::SUCCESS).map_err(Into::into),
        Command::StandIn(StandIn::Pod { .. }) => {
            demo::stand_in::pod();
            Ok(exit::SUCCESS)
        }
        Command::StandIn(StandIn::Node { config }) => {
            demo::stand_in::node(&config).map(|()| exit::FAILURE).map_err(Into::into)
        }
        Command::Man { directory } => man(&directory),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "conclave", &mut std::io::stdout());
            Ok(exit::SUCCESS)
        }
    };
    ExitCode::from(result.unwrap_or_else(|error| {
        let (code, words) = failure(&error);
        say(&words);
        code
    }))
}

fn man(directory: &Path) -> anyhow::Result<u8> {
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.with_context(|| format!("cannot write man pages into {}", directory.display()))?;
    Ok(exit::SUCCESS)
}

/// The exit status that an error stands for, and the error with its causes.
fn failure(error: &anyhow::Error) -> (u8, String) {
    if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
        return (exit::USAGE, errors.to_string());
    }
    let code = if error.downcast_ref::<Usage>().is_some() {
        exit::USAGE
    } else if let Some(GuardError::Lock(LockError::Held { .. })) = error.downcast_ref() {
        exit::NAME_TAKEN
    } else {
        exit::FAILURE
    };
    (code, format!("conclave: {error:#}"))
}

/// An error that starting again will not mend.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Usage(anyhow::Error);

fn say(text: &str) {
    // There is nobody to tell that standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn say_warnings(warnings: &[Warning]) {
    for warning in warnings {
        say(&warning.to_string());
    }
}
