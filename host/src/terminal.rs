//! What may be done to a terminal.

use std::io::IsTerminal;

/// Whether colours may be written: to a terminal only, and not where the environment says that they
/// are not wanted (no-color.org).
pub(crate) fn takes_colours(stream: &impl IsTerminal) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !unwanted
}

/// A text that comes from elsewhere (the store, where anybody may have written it), such that it can
/// neither move a cursor nor begin a line.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Rows as a table: the columns stand under each other, two blanks apart, the last as wide as it is.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        plain(cells.collect::<Vec<_>>().join("  ").trim_end()) + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let row = |one: &str, other: &str| [one.to_owned(), other.to_owned()];
        assert_eq!(
            columns(&[row("NODE", "WHY"), row("ü", "a\u{1b}b"), row("longer", "")]),
            "NODE    WHY\nü       a b\nlonger\n"
        );
    }
}
