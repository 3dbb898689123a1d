//! Text from policies, made fit for terminals and logs.

/// Makes one line of it: control characters become spaces, and what exceeds `limit` bytes is
/// cut off, marked by an ellipsis. What is fit already is not copied.
pub(crate) fn phrase(text: String, limit: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if text.len() <= limit {
        let fit = !text.chars().any(char::is_control);
        return if fit { text } else { text.chars().map(clean).collect() };
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(clean).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_one_line_and_bounded() {
        assert_eq!(phrase("in rack a".into(), 256), "in rack a");
        assert_eq!(phrase("\u{1b}[31mred\nline\u{9b}".into(), 256), " [31mred line ");
        assert_eq!(phrase("abcdefgh".into(), 8), "abcdefgh");
        assert_eq!(phrase("abcdefghi".into(), 8), "abcde…");
        assert_eq!(phrase("ääääää".into(), 8), "ää…");
        assert_eq!(phrase("ää".into(), 0), "…");
    }
}
