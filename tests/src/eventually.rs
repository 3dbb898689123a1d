//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long the suites wait for something that must happen. It says nothing of how fast that is
/// expected: it only has to be long enough for the busiest machine.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(3);

/// Repeats `probe` until it gives a value, and returns that.
///
/// # Errors
///
/// When `within` has passed, naming `what` was waited for.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if began.elapsed() >= within {
            bail!("still waiting after {within:?} for: {what}");
        }
        std::thread::sleep(STEP);
    }
}

/// Makes sure that a condition goes on holding for a time: for what must *not* happen.
///
/// # Errors
///
/// When it stops holding, naming `what` should have held.
pub fn holds_for(what: &str, span: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < span {
        if !condition() {
            bail!("after {:?} this no longer held: {what}", began.elapsed());
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_value() {
        let mut looks = 0;
        let found = eventually("a third look", PATIENCE, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn names_what_never_came() {
        let error = eventually("the end", Duration::ZERO, || None::<()>).unwrap_err();
        assert!(error.to_string().ends_with("for: the end"), "{error}");
    }

    #[test]
    fn notices_what_stops_holding() {
        let mut looks = 0;
        let error = holds_for("two looks", PATIENCE, || {
            looks += 1;
            looks < 3
        });
        assert!(error.is_err());
    }
}
