//! Errors as one phrase, for log lines and for the core.

use std::error::Error;

/// An error with its causes.
pub(crate) fn phrase(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow() {
        assert_eq!(phrase(&Outer(std::io::Error::other("no disk"))), "cannot start: no disk");
    }
}
