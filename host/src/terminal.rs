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
