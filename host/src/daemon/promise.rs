//! That work beside the loop always answers.
//!
//! The core counts on every operation being answered once: one that never is would keep a listing
//! or a term waiting for ever. So whoever works beside the loop holds a promise, which tells the
//! loop something also when the work panics.

use tokio::sync::mpsc::UnboundedSender;

use crate::daemon::shell::Input;

/// An answer that the loop waits for.
pub(crate) struct Promise {
    inputs: UnboundedSender<Input>,
    otherwise: Option<Input>,
}

impl Promise {
    /// A promise to tell the loop something, which is `otherwise` if the work never comes to it.
    pub(crate) fn new(inputs: &UnboundedSender<Input>, otherwise: Input) -> Self {
        Promise { inputs: inputs.clone(), otherwise: Some(otherwise) }
    }

    /// Tells the loop.
    pub(crate) fn keep(mut self, input: Input) {
        self.otherwise = Some(input);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(input) = self.otherwise.take() {
            // A loop that has ended waits for no answer.
            let _ = self.inputs.send(input);
        }
    }
}

#[cfg(test)]
mod tests {
    use conclave_core::{Event, OpId};
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn stop_checked(stopped: bool) -> Input {
        Input::Core(Event::StopChecked { op: OpId(1), stopped })
    }

    fn heard(work: impl FnOnce(Promise)) -> Vec<bool> {
        let (inputs, mut received) = unbounded_channel();
        work(Promise::new(&inputs, stop_checked(false)));
        std::iter::from_fn(|| received.try_recv().ok())
            .map(|input| match input {
                Input::Core(Event::StopChecked { stopped, .. }) => stopped,
                _ => panic!("something else was told"),
            })
            .collect()
    }

    #[test]
    fn a_promise_is_kept_once() {
        assert_eq!(heard(|promise| promise.keep(stop_checked(true))), [true]);
    }

    #[test]
    fn work_that_ends_without_a_word_is_told_of_too() {
        assert_eq!(heard(drop), [false]);
    }
}
