//! What a test returns, so that `?` fails the test at its own line.

/// A test's result. An error that meets `?` in such a test panics on the spot: unlike an error
/// that is returned, a panic is noticed by destructors, and those print the logs of the
/// processes that the test was running.
pub type Outcome = Result<(), Failed>;

/// Has no value: a failure has panicked before it could become one.
#[derive(Debug)]
pub enum Failed {}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    #[track_caller]
    fn from(error: E) -> Self {
        panic!("{:?}", error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "no such luck")]
    fn a_question_mark_panics() {
        fn test() -> Outcome {
            Err(anyhow::anyhow!("no such luck"))?;
            Ok(())
        }
        let _ = test();
    }
}
