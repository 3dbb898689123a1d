//! Reads YAML that people write into Rust types, and reports every mistake in it with its line, its
//! column and what to do.
//!
//! ```text
//! text ── Document::parse ──> values and their places ── decode ──> the fields as they are written
//!                                                                       │
//!              what they mean, or Problems <── Resolver: checks ────────┘
//! ```
//!
//! `document` parses the text and knows where everything stands, `decode` reads it through serde into
//! shapes whose fields are all optional, and a [`Resolver`] is what gives those a meaning and collects
//! what is wrong. What the fields are is for its users: the configuration, the cases of policies.

mod decode;
mod document;
mod open;
mod problem;
mod repeated;
mod resolver;
mod short;
mod span;

pub use decode::{Decoded, decode};
pub use document::{Document, Part, Path};
pub use open::{MOST_OPEN, too_many_open};
pub use problem::{Place, Problem, Problems, Warning, quoted, similar, sort};
pub use repeated::{MOST_REPEATED, too_much_repeated};
pub use resolver::Resolver;
pub use short::NameOr;
pub use span::Span;

/// Declares a mapping in the file: its name here, what it is in words, and its fields, all optional,
/// so that what is missing can be reported together with everything else that is wrong.
#[macro_export]
macro_rules! section {
    ($(#[$doc:meta])* $name:ident, $expecting:tt { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, expecting = $expecting)]
        pub(super) struct $name {
            $(pub(super) $field: Option<$type>,)*
        }
    };
}
