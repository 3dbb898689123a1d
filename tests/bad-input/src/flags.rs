//! podmaster's command line, and conclave's own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use conclave::cli::Cli;
use conclave::podmaster::{self, Parsed};

/// Takes bytes for arguments, parted by zero bytes, as the kernel does.
pub fn run(bytes: &[u8]) {
    let arguments: Vec<OsString> = bytes
        .split(|byte| *byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()))
        .collect();
    if let Err(error) = Cli::read(std::iter::once("conclave".into()).chain(arguments.clone())) {
        assert!(!error.to_string().trim().is_empty());
    }
    match podmaster::parse(arguments.clone()) {
        Ok(Parsed::Run(podmaster)) => {
            let config = &podmaster.config;
            assert!(config.timings.mistakes().is_empty(), "{:?}", config.timings);
            assert_eq!(config.elections.len(), 1);
            let again = podmaster::parse_again(arguments).expect("taken once, taken again");
            let Parsed::Run(again) = again else { panic!("help the second time") };
            assert_eq!(*config, again.config);
        }
        Ok(Parsed::Help(text)) => assert!(text.contains("--etcd-servers")),
        Err(errors) => {
            let said = |problem: &conclave::config::Problem| !problem.message.trim().is_empty();
            assert!(!errors.problems().is_empty() && errors.problems().iter().all(said));
        }
    }
}
