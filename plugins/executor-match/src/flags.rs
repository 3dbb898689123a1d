//! The flags that matter to executors, told apart from all others, and the hash over them.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};

use sha2::{Digest, Sha256};

/// What the schedulers of Kubernetes on Mesos make an executor's configuration of; and the address by
/// which its name goes.
const OF_EXECUTORS: [&str; 12] = [
    "advertised-address",
    "allow-privileged",
    "api-servers",
    "auth-path",
    "cluster-*",
    "executor-*",
    "km-path",
    "kubelet-*",
    "profiling",
    "proxy-*",
    "proxy-path",
    "static-pods-config",
];

/// How many hexadecimal digits of a hash are shown and compared.
pub(crate) const DIGITS: usize = 16;

/// Flags and their values, by name. Of one that is given twice the last counts, as it does for the
/// program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Those of a command that match a pattern.
    pub(crate) fn of<'a>(
        words: impl Iterator<Item = &'a String>,
        patterns: Option<&[String]>,
    ) -> Self {
        let patterns: Vec<String> = match patterns {
            Some(patterns) => patterns.iter().map(|pattern| normal(pattern)).collect(),
            None => OF_EXECUTORS.map(str::to_owned).into(),
        };
        let matters = |name: &str| {
            patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == pattern,
            })
        };
        let mut flags = BTreeMap::new();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                continue;
            }
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (normal(name), unquoted(value).to_owned()),
                None => {
                    // A value of its own, or that of a switch, which is then on.
                    let value = words.next_if(|next| !next.starts_with('-'));
                    (
                        normal(word),
                        value.map_or("true".to_owned(), |value| unquoted(value).to_owned()),
                    )
                }
            };
            if matters(&name) {
                flags.insert(name, value);
            }
        }
        Flags(flags)
    }

    /// A hash over names and values, in hexadecimal.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        }
        shortened(&hasher.finalize())
    }
}

/// A line for each flag. A fact has 4 KB: if they are more, long values are replaced by their hash.
impl Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ROOM: usize = 4_000;
        let size: usize = self.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        for (index, (name, value)) in self.0.iter().enumerate() {
            let line = if index == 0 { "" } else { "\n" };
            if size > ROOM && value.len() > DIGITS {
                write!(f, "{line}{name}=#{}", shortened(&Sha256::digest(value)))?;
            } else {
                write!(f, "{line}{name}={value}")?;
            }
        }
        Ok(())
    }
}

fn shortened(hash: &[u8]) -> String {
    let mut text = String::with_capacity(DIGITS);
    for byte in &hash[..DIGITS / 2] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Without dashes in front, and with `-` for `_`: programs take both.
fn normal(name: &str) -> String {
    name.trim_start_matches('-').replace('_', "-")
}

/// In a shell's words values may stand in quotes.
fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// Which flags differ between two lists of lines, and how.
pub(crate) fn differences(last: Option<&str>, own: Option<&str>) -> String {
    let lines = |text: Option<&'_ str>| -> BTreeMap<String, String> {
        let pairs = text.unwrap_or_default().lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let (last, own) = (lines(last), lines(own));
    let names: std::collections::BTreeSet<_> = last.keys().chain(own.keys()).collect();
    let shown = |value: Option<&String>| value.map_or("not set".to_owned(), |v| format!("`{v}`"));
    let different: Vec<String> = names
        .into_iter()
        .filter(|name| last.get(*name) != own.get(*name))
        .map(|name| {
            format!("--{name} is {} and was {}", shown(own.get(name)), shown(last.get(name)))
        })
        .collect();
    if different.is_empty() { "its flags differ".to_owned() } else { different.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(command: &str) -> Flags {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        Flags::of(words.iter(), None)
    }

    #[test]
    fn flags_are_the_same_however_they_are_written() {
        let expected = flags("km scheduler --api-servers=a:1 --proxy-path=/p --profiling=true");
        assert_eq!(expected.0.len(), 3);
        for command in [
            "--proxy_path=/p --api_servers=a:1 --profiling=true",
            "-api-servers a:1 -proxy-path /p --profiling",
            "--profiling --api-servers='a:1' --proxy-path=\"/p\" --v=10 --address=10.0.0.1",
            "--api-servers=b:2 --proxy-path=/p --profiling=true --api-servers=a:1",
        ] {
            assert_eq!(flags(command), expected, "{command}");
            assert_eq!(flags(command).hash(), expected.hash());
        }
        for command in ["--api-servers=a:1 --proxy-path=/p", "--api-servers=a:1,--proxy-path=/p"] {
            assert_ne!(flags(command).hash(), expected.hash(), "{command}");
        }
    }

    #[test]
    fn only_what_matters_to_executors_counts() {
        let command = "km scheduler --address=10.0.0.1 --mesos-master=m --v=10 --executor_cores=2 \
                       --kubelet-root-dir /k --cluster-dns=d --advertised-address=n:1 --auth_path=/a";
        let names: Vec<_> = flags(command).0.into_keys().collect();
        let expected = [
            "advertised-address",
            "auth-path",
            "cluster-dns",
            "executor-cores",
            "kubelet-root-dir",
        ];
        assert_eq!(names, expected);
        let words = ["--a-b=1".to_owned(), "--c=2".to_owned()];
        let own = Flags::of(words.iter(), Some(&["--a_*".to_owned()]));
        assert_eq!(own.to_string(), "a-b=1");
    }

    #[test]
    fn differences_name_the_flags() {
        let last = flags("--api-servers=a:1 --proxy-path=/p --profiling").to_string();
        let own = flags("--api-servers=b:1 --proxy-path=/p --km-path=/k").to_string();
        assert_eq!(
            differences(Some(&last), Some(&own)),
            "--api-servers is `b:1` and was `a:1`, --km-path is `/k` and was not set, \
             --profiling is not set and was `true`"
        );
        assert_eq!(differences(Some(&last), Some(&last)), "its flags differ");
    }

    #[test]
    fn many_flags_fit_into_a_fact() {
        let command: Vec<String> =
            (0..60).map(|i| format!("--executor-{i}={}", "x".repeat(500 + i))).collect();
        let flags = flags(&command.join(" "));
        assert!(flags.to_string().len() <= 4_096, "{}", flags.to_string().len());
        assert_eq!(flags.hash().len(), DIGITS);
    }
}
