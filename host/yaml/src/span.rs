//! Durations as people write them.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// No duration is longer: what is added to a time must stay one.
const LONGEST_SPAN: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A duration such as `10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;

        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as `10s`, `500ms` or `1m 30s`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let span = humantime::parse_duration(text)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))?;
                if span > LONGEST_SPAN {
                    let expected = &"a duration of a hundred years at most";
                    return Err(E::invalid_value(de::Unexpected::Str(text), expected));
                }
                Ok(Span(span))
            }
        }

        deserializer.deserialize_any(SpanVisitor)
    }
}
