//! A configuration file of any content.

use std::path::Path;

use conclave::config::{self, Config, ConfigErrors, Place, Problem};

/// What is read as a file of this name; relative paths in it lead nowhere.
const FILE: &str = "/nonexistent/conclave.yaml";

/// Reads bytes as a configuration file.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return unreadable(bytes) };
    let policies = ["cold-standby", "hot-standby"];
    let parsed = config::parse(Path::new(FILE), text, &policies);
    match &parsed {
        Ok((config, warnings)) => {
            sound(config);
            located(FILE, text, warnings.iter().map(|warning| &warning.0));
        }
        Err(errors) => refused(text, errors),
    }
    // What was taken once is taken again, and means the same.
    let again = config::parse_again(Path::new(FILE), text, &policies);
    match (parsed, again) {
        (Ok((config, _)), Ok((same, _))) => assert_eq!(config, same),
        (Ok(_), Err(errors)) => panic!("taken once and not again: {errors}"),
        // Whoever only looks, or has to live with it, is told all the same.
        (Err(_), Ok((_, warnings))) => {
            assert!(!warnings.is_empty());
            located(FILE, text, warnings.iter().map(|warning| &warning.0));
        }
        (Err(_), Err(errors)) => refused(text, &errors),
    }
}

/// What is no text never becomes a configuration, and the place where it stops being text is told.
fn unreadable(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, bytes).expect("room for it");
    let errors = config::read(file.path()).expect_err("this is no text");
    assert!(errors.problems().iter().all(|problem| problem.place.is_some()), "{errors}");
}

fn sound(config: &Config) {
    assert!(!config.elections.is_empty() && !config.cluster.is_empty());
    assert!(!config.node.name.as_str().is_empty());
    assert!(config.state_directory.is_absolute());
    assert!(config.timings.mistakes().is_empty(), "{:?}", config.timings);
    for election in &config.elections {
        assert!(election.policy_config.is_object(), "{election:?}");
        for manifest in &election.manifests {
            assert!(manifest.source.is_absolute() && manifest.destination.is_absolute());
        }
    }
}

fn refused(text: &str, errors: &ConfigErrors) {
    assert!(!errors.problems().is_empty());
    located(FILE, text, errors.problems());
    let most = 60 * (4_000 + text.len());
    assert!(errors.to_string().len() <= most, "an error longer than {most} bytes");
}

/// Each problem says something, and the place that it names is in the file.
pub(crate) fn located<'a>(name: &str, text: &str, problems: impl IntoIterator<Item = &'a Problem>) {
    // Measured once: there may be a problem in every line.
    let lines = crate::lines(text);
    let characters = text.chars().count();
    for problem in problems {
        assert!(!problem.message.trim().is_empty(), "{problem:?}");
        if let Some(Place::File { file, line, column, .. }) = &problem.place {
            assert_eq!(&**file, name);
            assert!((1..=lines + 1).contains(line), "line {line} of {lines}: {problem:?}");
            assert!((1..=characters + 1).contains(column), "{problem:?}");
        }
    }
}
