//! Refuses aliases that make much of little, before a parser spends minutes on what they stand for.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};

/// As many values as all aliases of a file together may stand for. The parser that follows needs
/// seven seconds, in a development build, for what 43 KB can make without a limit.
pub const MOST_REPEATED: usize = 20_000;

/// Where aliases come to stand for more than [`MOST_REPEATED`] values, if that is anywhere: line and
/// column from 1. Text that is no YAML is left to others to refuse.
pub fn too_much_repeated(text: &str) -> Option<(usize, usize)> {
    if !text.contains('*') {
        return None; // most files: they need not be read twice
    }
    let mut sizes: HashMap<usize, usize> = HashMap::new();
    // What is being read: its anchor, and how many values it has so far.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut repeated = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        let (anchor, size) = match event {
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, 1));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop()?,
            Event::Scalar(_, _, anchor, _) => (anchor, 1),
            Event::Alias(anchor) => {
                // One that is still being read stands for itself: no parser takes that.
                let size = sizes.get(&anchor).copied().unwrap_or(1);
                repeated = repeated.saturating_add(size);
                if repeated > MOST_REPEATED {
                    return Some((span.start.line(), span.start.col() + 1));
                }
                (0, size)
            }
            _ => continue,
        };
        if anchor != 0 {
            sizes.insert(anchor, size);
        }
        if let Some((_, around)) = open.last_mut() {
            *around = around.saturating_add(size);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each level has ten times the level before it.
    fn laughs(levels: usize) -> String {
        let mut text = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..=levels {
            let items = vec![format!("*l{}", level - 1); 10].join(", ");
            text += &format!("l{level}: &l{level} [{items}]\n");
        }
        text
    }

    #[test]
    fn what_people_write_passes() {
        for text in [
            "a: 1\n",
            "labels: &labels {rack: a}\nmore: {<<: *labels, zone: b}\nagain: [*labels, *labels]\n",
            "text: 'a * b *'\n",
            "loop: &a [*a]\n",
            "not: [yaml\n*",
            &laughs(2),
        ] {
            assert_eq!(too_much_repeated(text), None, "{text}");
        }
        let many: String = (0..5_000).map(|i| format!("  k{i}: *v\n")).collect();
        assert_eq!(too_much_repeated(&format!("v: &v 1\nmany:\n{many}")), None);
    }

    #[test]
    fn much_of_little_is_found_where_it_is_too_much() {
        // 110 values in the first level, 1,110 in the second, 11,110 in the third; then one of 11,111.
        assert_eq!(too_much_repeated(&laughs(4)), Some((5, 10)));
        assert_eq!(too_much_repeated(&laughs(40)), Some((5, 10)));
    }
}
