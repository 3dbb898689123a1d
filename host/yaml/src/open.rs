//! Refuses what is nested without end, before a parser spends hours on it.

/// More brackets than any file leaves open, quoted ones included. The parser needs time by the
/// square of how deep braces stand in braces: for this many half a second, for a large file's hours.
pub const MOST_OPEN: u32 = 10_000;

/// Where more than [`MOST_OPEN`] brackets are open, if that is anywhere.
pub fn too_many_open(text: &str) -> Option<(usize, usize)> {
    let mut open = 0_u32;
    let at = text.bytes().position(|byte| {
        match byte {
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MOST_OPEN
    })?;
    let before = &text[..at];
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    Some((before.matches('\n').count() + 1, before[line..].chars().count() + 1))
}
