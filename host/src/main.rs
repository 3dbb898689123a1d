//! The program `conclave`: reads the call and runs the command.

use std::process::ExitCode;

use conclave::cli::Cli;
use conclave::commands::dispatch;

fn main() -> ExitCode {
    match Cli::read(std::env::args_os()) {
        Ok(cli) => dispatch(cli),
        // A request for help is an error too; clap knows where each goes and how it ends.
        Err(error) => error.exit(),
    }
}
