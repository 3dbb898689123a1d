//! `conclave simulate`: the real core and real policies, for several nodes on simulated time, through a
//! story. What comes of it is judged by the simulator all along: two leaders would end it.
//!
//! ```text
//! scenario.yaml ── scenario ──> what is written ── story ──> steps, each at its time
//!                                                              │
//!      text, svg, JSON <── figures <── who led when <── play <─┘
//! ```

mod figures;
mod play;
mod policy;
mod raw;
mod scenario;
mod story;
mod svg;
mod text;

pub(crate) use figures::Outcome;
pub(crate) use play::play;
pub(crate) use scenario::Scenario;
pub(crate) use story::Story;
pub(crate) use svg::svg;
pub(crate) use text::text;
