//! The checks of an election: what must hold for a node to be fit, and what must be gone before
//! a term has cleanly ended.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::time::Duration;

use conclave_yaml::{Path, Resolver, Span};
use rustix::fs::{Access, access};

use crate::check::{FitnessCheck, Probe, StopCheck};

use super::raw;

/// Above this a duration is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks a command: it may be needed for the first time in the middle of the night.
pub(super) fn command(r: &mut Resolver<'_>, command: &[String], path: &Path) {
    const HELP: &str = "write a program and its arguments as a list";
    let Some(program) = command.first().filter(|program| !program.is_empty()) else {
        return r.wrong(path, "the command is empty", HELP);
    };
    if let Some(reason) = not_executable(program) {
        r.wrong(
            &path.index(0),
            format!("the program {program} {reason}"),
            "give its absolute path; for a shell's command write [\"sh\", \"-c\", …]",
        );
    }
}

/// Why a program could not be run, if so.
fn not_executable(program: &str) -> Option<String> {
    let executable = |path: &FilePath| access(path, Access::EXEC_OK);
    if program.contains('/') {
        let path = FilePath::new(program);
        return match executable(path) {
            Err(error) => Some(format!("cannot be run: {error}")),
            Ok(()) if path.is_dir() => Some("is a directory".to_owned()),
            Ok(()) => None,
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .any(|file| file.is_file() && executable(&file).is_ok());
    (!found).then(|| "is in no directory of PATH".to_owned())
}

const ONE_OF: &str = "give it one of `command`, `tcp`, `http` and `file`";

pub(super) fn fitness(
    r: &mut Resolver<'_>,
    written: Vec<raw::FitnessCheck>,
    list: &Path,
) -> Vec<FitnessCheck> {
    let mut checks: Vec<FitnessCheck> = Vec::new();
    let mut names = BTreeMap::new();
    for (path, written) in r.items(list, written.len()).into_iter().zip(written) {
        let Some(probe) = probe(r, &path, written.command, written.tcp, written.http, written.file)
        else {
            continue;
        };
        let name = written.name.unwrap_or_else(|| probe.to_string());
        if names.insert(name.clone(), ()).is_some() {
            r.wrong(
                &path,
                format!("there are two checks `{name}`"),
                "give one of them another `name`",
            );
        }
        let second = Duration::from_secs(1);
        let check = FitnessCheck {
            name,
            probe,
            interval: span(r, &path, "interval", written.interval, second),
            timeout: span(r, &path, "timeout", written.timeout, second),
            rise: written.rise.unwrap_or(2),
            fall: written.fall.unwrap_or(3),
        };
        for (field, _) in
            [("rise", check.rise), ("fall", check.fall)].iter().filter(|(_, count)| *count == 0)
        {
            r.wrong(
                &path.key(field),
                format!("{field} must be at least 1"),
                "it counts looks in a row",
            );
        }
        checks.push(check);
    }
    checks
}

pub(super) fn stop(
    r: &mut Resolver<'_>,
    written: raw::StopCheck,
    path: &Path,
) -> Option<StopCheck> {
    let probe = probe(r, path, written.command, written.tcp, written.http, written.file)?;
    let check = StopCheck {
        probe,
        interval: span(r, path, "interval", written.interval, Duration::from_millis(200)),
        timeout: span(r, path, "timeout", written.timeout, Duration::from_secs(1)),
        within: span(r, path, "within", written.within, Duration::from_secs(60)),
    };
    if check.within < check.interval {
        let (within, interval) =
            (super::timings::text(check.within), super::timings::text(check.interval));
        r.wrong(
            &path.key("within"),
            format!("within {within} is shorter than interval {interval}"),
            "it is the time for the whole check; the default is 60s",
        );
    }
    Some(check)
}

fn span(
    r: &mut Resolver<'_>,
    path: &Path,
    field: &str,
    written: Option<Span>,
    default: Duration,
) -> Duration {
    let span = written.map_or(default, |span| span.0);
    if span.is_zero() {
        r.wrong(
            &path.key(field),
            format!("{field} must be longer than nothing"),
            "leave it out to get the default",
        );
    }
    not_for_ever(r, &path.key(field), field, span)
}

/// Refuses a duration that nobody would wait for, and that clocks might not be able to add.
pub(super) fn not_for_ever(
    r: &mut Resolver<'_>,
    path: &Path,
    field: &str,
    span: Duration,
) -> Duration {
    if span <= LONGEST {
        return span;
    }
    r.wrong(
        path,
        format!(
            "{field} {} is longer than {}",
            super::timings::text(span),
            super::timings::text(LONGEST)
        ),
        "it is usually some seconds",
    );
    LONGEST
}

fn probe(
    r: &mut Resolver<'_>,
    path: &Path,
    command: Option<Vec<String>>,
    tcp: Option<String>,
    http: Option<String>,
    file: Option<String>,
) -> Option<Probe> {
    let given: Vec<&str> = [
        ("command", command.is_some()),
        ("tcp", tcp.is_some()),
        ("http", http.is_some()),
        ("file", file.is_some()),
    ]
    .iter()
    .filter(|(_, given)| *given)
    .map(|(field, _)| *field)
    .collect();
    match given[..] {
        [_] => {}
        [] => {
            if !["command", "tcp", "http", "file"].iter().any(|field| r.is_faulty(&path.key(field)))
            {
                r.wrong(path, "this check looks at nothing", ONE_OF);
            }
            return None;
        }
        _ => {
            r.wrong(
                path,
                "this check looks at several things at once",
                "make it several checks: all of them must hold",
            );
            return None;
        }
    }
    if let Some(arguments) = command {
        self::command(r, &arguments, &path.key("command"));
        return Some(Probe::Command(arguments));
    }
    if let Some(text) = file {
        return Some(Probe::File(r.file(&path.key("file"), &text)));
    }
    let (field, parsed) = match (tcp, http) {
        (Some(text), _) => ("tcp", text.parse().map(Probe::Tcp)),
        (_, Some(text)) => ("http", text.parse().map(Probe::Http)),
        _ => return None,
    };
    match parsed {
        Ok(probe) => Some(probe),
        Err(error) => {
            r.wrong(&path.key(field), error.to_string(), "correct the address");
            None
        }
    }
}
