//! What a policy logs while it answers, for whoever reads why a case fails.
//!
//! The policy host writes it to the program's log. Calls run on their caller's thread, so a listener
//! of this thread hears all of it and nothing else.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The target of the host's lines.
const TARGET: &str = "conclave_policy";

/// Does something and returns what policies logged meanwhile, a line each.
pub(crate) fn heard<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let listener = Listener { lines: Arc::clone(&lines) };
    let done = tracing::subscriber::with_default(listener, work);
    let lines = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
    (done, lines)
}

struct Listener {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with(TARGET)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // Spans are not enabled.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        let level = event.metadata().level().as_str().to_lowercase();
        let line = match said.text {
            // The policy's own words.
            Some(text) => format!("{level}: {text}"),
            None if *event.metadata().level() <= tracing::Level::WARN => {
                format!("{level}: {}", said.message)
            }
            None => return,
        };
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    text: Option<String>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "text" {
            self.text = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                // Writing into text does not fail.
                let _ = write!(self.message, "{value:?}");
            }
            "text" => self.text = Some(format!("{value:?}")),
            _ => {}
        }
    }
}
