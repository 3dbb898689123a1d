//! The difference between two lists of lines, as people read it.

use serde::Serialize;

/// A line of a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// On which side it stands.
    pub side: Side,
    /// The line.
    pub text: String,
}

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// It was expected, and found.
    Both,
    /// It was expected, and is missing.
    Expected,
    /// It was found, and not expected.
    Found,
}

/// A line of an answer: what it is compared by, and what is shown of it.
pub(crate) struct Item {
    pub(crate) key: String,
    pub(crate) shown: String,
}

impl Item {
    pub(crate) fn new(key: impl Into<String>, remark: &str) -> Self {
        let key = key.into();
        let shown = if remark.is_empty() { key.clone() } else { format!("{key}  ({remark})") };
        Item { key, shown }
    }
}

/// Compares lines that were expected with lines that were found, each with a remark that is shown and
/// not compared.
pub fn difference(
    expected: &[String],
    found: impl IntoIterator<Item = (String, String)>,
) -> Vec<Line> {
    let found = found.into_iter().map(|(line, remark)| self::Item::new(line, &remark));
    let found: Vec<self::Item> = found.collect();
    diff(expected, &found)
}

/// Compares what was expected with what was found, by a longest common subsequence.
pub(crate) fn diff(expected: &[String], found: &[Item]) -> Vec<Line> {
    // common[i][j]: how many lines expected[i..] and found[j..] have in common.
    let mut common = vec![vec![0_usize; found.len() + 1]; expected.len() + 1];
    for i in (0..expected.len()).rev() {
        for j in (0..found.len()).rev() {
            common[i][j] = if expected[i] == found[j].key {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let mut lines = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < expected.len() || j < found.len() {
        let both = i < expected.len() && j < found.len() && expected[i] == found[j].key;
        if both {
            lines.push(Line { side: Side::Both, text: found[j].shown.clone() });
            (i, j) = (i + 1, j + 1);
        } else if j == found.len() || (i < expected.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(Line { side: Side::Expected, text: expected[i].clone() });
            i += 1;
        } else {
            lines.push(Line { side: Side::Found, text: found[j].shown.clone() });
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(expected: &str, found: &str) -> String {
        let expected: Vec<String> = expected.chars().map(String::from).collect();
        let found: Vec<Item> = found.chars().map(|c| Item::new(c, "")).collect();
        let sign = |side| match side {
            Side::Both => ' ',
            Side::Expected => '-',
            Side::Found => '+',
        };
        let lines = diff(&expected, &found);
        lines.iter().map(|line| format!("{}{}", sign(line.side), line.text)).collect()
    }

    #[test]
    fn what_is_common_stands_between_what_differs() {
        for (expected, found, difference) in [
            ("abc", "abc", " a b c"),
            ("bac", "abc", "-b a+b c"),
            ("ab", "", "-a-b"),
            ("", "ab", "+a+b"),
            ("axc", "ayc", " a-x+y c"),
        ] {
            assert_eq!(shown(expected, found), difference, "{expected} {found}");
        }
    }
}
