//! Versions as people write them, `v1.28.3-rc.1+build`, in the order of semantic versioning.

use std::cmp::Ordering;

/// A version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The numbers, as many as there are; trailing zeros do not count.
    numbers: Vec<u64>,
    /// What it is a step towards; empty for a release.
    before: Vec<Part>,
}

/// A part of what follows the hyphen. Numbers come before words.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    /// Reads a version, with or without a `v`, of at least one number. What follows a `+` says
    /// nothing about the order and is left out.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split('+').next()?;
        let (numbers, before) = text.split_once('-').unwrap_or((text, ""));
        let mut numbers: Vec<u64> = numbers.split('.').map(number).collect::<Option<_>>()?;
        while numbers.len() > 1 && numbers.last() == Some(&0) {
            numbers.pop();
        }
        let part = |text: &str| number(text).map_or_else(|| Part::Word(text.into()), Part::Number);
        let before =
            if before.is_empty() { Vec::new() } else { before.split('.').map(part).collect() };
        Some(Version { numbers, before })
    }
}

/// A number in digits alone.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        // Steps towards a release come before it.
        let release = (self.before.is_empty(), other.before.is_empty());
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| release.0.cmp(&release.1))
            .then_with(|| self.before.cmp(&other.before))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_in_order() {
        let ascending = [
            "0.9",
            "1",
            "1.2-alpha",
            "1.2-alpha.1",
            "1.2-alpha.beta",
            "1.2-beta.2",
            "1.2-beta.11",
            "1.2-rc.1",
            "1.2",
            "1.2.1",
            "1.10",
            "v2.0.0-1",
            "2.0.0+build7",
            "10.0",
        ];
        let versions = ascending.map(|text| Version::parse(text).expect(text));
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        assert_eq!(Version::parse("v1.28.0+a"), Version::parse(" 1.28 "));
        assert_eq!(Version::parse("0"), Version::parse("0.0"));
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in ["", "v", "latest", "1.x", "1..2", "-1", "+5", "1.-1", "99999999999999999999"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
