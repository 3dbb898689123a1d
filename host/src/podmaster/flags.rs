//! The command line as Go's flag packages read it.
//!
//! podmaster was built with `flag` first and with `pflag` later, so both ways of writing are
//! taken: one dash or two, `--flag=value` or `--flag value`, `_` for `-` in names, booleans
//! without a value, and `-v2`.

use crate::config::{Place, Problem};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// A value, in the same or the next argument.
    Value,
    /// Nothing, or a truth value in the same argument.
    Truth,
}

/// A flag that is understood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// Its name, with dashes between words.
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    /// What the value is called in the help text.
    pub(super) value: &'static str,
    /// One line of help.
    pub(super) about: &'static str,
}

/// A command line taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Names and values, in the order given.
    pub(super) values: Vec<(&'static str, String)>,
    /// Arguments that belong to no flag.
    pub(super) strays: Vec<String>,
    /// Whether `--help` is among them.
    pub(super) help: bool,
}

impl Given {
    /// A flag's value: the last one counts.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }
}

/// Takes a command line apart, and collects what is wrong with it.
pub(super) fn read(
    arguments: impl IntoIterator<Item = String>,
    known: &'static [Flag],
) -> (Given, Vec<Problem>) {
    let mut given = Given::default();
    let mut problems = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let body = match argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) {
            Some("") if argument == "--" => {
                given.strays.extend(arguments.by_ref());
                break;
            }
            Some(body) if !body.is_empty() => body,
            _ => {
                given.strays.push(argument);
                continue;
            }
        };
        let (written, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let name = written.replace('_', "-");
        if matches!(name.as_str(), "help" | "h") {
            given.help = true;
            continue;
        }
        let (flag, inline) = match find(known, &name) {
            Some(flag) => (flag, inline),
            // `-v2`: the value sticks to a name of one letter.
            None => match verbosity(&argument, known) {
                Some((flag, value)) => (flag, Some(value)),
                None => {
                    problems.push(unknown(&argument, &name, known));
                    continue;
                }
            },
        };
        let value = match (flag.takes, inline) {
            (_, Some(value)) => value,
            (Takes::Truth, None) => "true".to_owned(),
            (Takes::Value, None) => match arguments.next() {
                Some(value) => value,
                None => {
                    let place = Some(Place::Flag(format!("--{}", flag.name).into()));
                    problems.push(
                        Problem::new(place, format!("flag needs an argument: --{}", flag.name))
                            .help(format!("write --{}={}", flag.name, flag.value)),
                    );
                    continue;
                }
            },
        };
        given.values.push((flag.name, value));
    }
    (given, problems)
}

fn find(known: &'static [Flag], name: &str) -> Option<&'static Flag> {
    known.iter().find(|flag| flag.name == name)
}

fn verbosity(argument: &str, known: &'static [Flag]) -> Option<(&'static Flag, String)> {
    let level = argument.strip_prefix("-v")?;
    let all_digits = !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| find(known, "v")).flatten().map(|flag| (flag, level.to_owned()))
}

fn unknown(argument: &str, name: &str, known: &'static [Flag]) -> Problem {
    let shown = argument.split('=').next().unwrap_or(argument);
    let names = known.iter().map(|flag| flag.name);
    let help = match conclave_yaml::similar(name, names) {
        Some(meant) => format!("did you mean --{meant}?"),
        None => "`conclave podmaster --help` lists the flags".to_owned(),
    };
    Problem::new(None, format!("unknown flag: {shown}")).help(help)
}

/// A truth value as Go reads it.
pub(super) fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number as Go reads it: decimal, or with `0x`, `0o`, `0b` or a leading zero.
pub(super) fn number(value: &str) -> Option<u64> {
    let lower = value.to_ascii_lowercase();
    let (digits, radix) = if let Some(digits) = lower.strip_prefix("0x") {
        (digits, 16)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (digits, 2)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (digits, 8)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (&lower[1..], 8)
    } else {
        (lower.as_str(), 10)
    };
    // `from_str_radix` would also take a sign.
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[
        Flag { name: "key", takes: Takes::Value, value: "NAME", about: "" },
        Flag { name: "source-file", takes: Takes::Value, value: "FILE", about: "" },
        Flag { name: "logtostderr", takes: Takes::Truth, value: "", about: "" },
        Flag { name: "v", takes: Takes::Value, value: "LEVEL", about: "" },
    ];

    fn given(line: &str) -> (Given, Vec<String>) {
        let (given, problems) = read(line.split(' ').map(str::to_owned), KNOWN);
        (given, problems.into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn every_way_to_write_a_flag() {
        let table = [
            ("--key=a", "key", "a"),
            ("--key a", "key", "a"),
            ("-key=a", "key", "a"),
            ("-key a", "key", "a"),
            ("--key=", "key", ""),
            ("--key=a=b", "key", "a=b"),
            ("--key a --key=b", "key", "b"),
            ("--key --logtostderr", "key", "--logtostderr"),
            ("--source_file=x", "source-file", "x"),
            ("-source_file x", "source-file", "x"),
            ("--logtostderr", "logtostderr", "true"),
            ("-logtostderr", "logtostderr", "true"),
            ("--logtostderr=false", "logtostderr", "false"),
            ("--v=2", "v", "2"),
            ("-v=2", "v", "2"),
            ("-v 2", "v", "2"),
            ("-v2", "v", "2"),
        ];
        for (line, name, value) in table {
            let (given, problems) = given(line);
            assert_eq!(problems, [""; 0], "{line}");
            assert_eq!(given.value(name), Some(value), "{line}");
            assert_eq!(given.strays, [""; 0], "{line}");
        }
    }

    #[test]
    fn what_is_not_understood() {
        let table = [
            ("--kei=a", "unknown flag: --kei"),
            ("-x", "unknown flag: -x"),
            ("--=a", "unknown flag: --"),
            ("--key", "flag needs an argument: --key"),
            ("--v2", "unknown flag: --v2"),
        ];
        for (line, message) in table {
            assert_eq!(given(line).1, [message], "{line}");
        }
    }

    #[test]
    fn a_truth_value_does_not_swallow_the_next_argument() {
        let (given, problems) = given("--logtostderr true --key a -- --v=1");
        assert_eq!(problems, [""; 0]);
        assert_eq!(given.value("logtostderr"), Some("true"));
        assert_eq!(given.value("key"), Some("a"));
        assert_eq!(given.value("v"), None);
        assert_eq!(given.strays, ["true", "--v=1"]);
    }

    #[test]
    fn help_in_any_form() {
        for line in ["--help", "-help", "-h", "--key a -h"] {
            assert!(given(line).0.help, "{line}");
        }
    }

    #[test]
    fn numbers_as_go_reads_them() {
        let table = [
            ("30", Some(30)),
            ("0", Some(0)),
            ("0x1E", Some(30)),
            ("036", Some(30)),
            ("0o36", Some(30)),
            ("0b11110", Some(30)),
            ("-1", None),
            ("+1", None),
            ("0x+1", None),
            ("", None),
            ("30s", None),
            ("099", None),
            ("18446744073709551616", None),
        ];
        for (text, expected) in table {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn truth_as_go_reads_it() {
        for (text, expected) in [("1", Some(true)), ("F", Some(false)), ("yes", None), ("", None)] {
            assert_eq!(truth(text), expected, "{text:?}");
        }
    }
}
