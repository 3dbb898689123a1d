//! The core's states and transitions as tables: given a state, when something happens, then
//! these actions and no others.
//!
//! Actions are written as short phrases, so that a table reads as a story. The node under test
//! is `a`, the election is `e`. The store here does what a row says became of a request; what a
//! real one would compare is tested with the stores and in the simulator.

mod following;
mod leading;
mod leaving;
mod naming;
mod scene;
mod session;
mod words;

use scene::{Scene, When};

/// Plays a table: each row is what happens and what the core then wants.
#[track_caller]
fn play(scene: &mut Scene, rows: &[(When, &str)]) {
    for (number, (when, expected)) in rows.iter().enumerate() {
        let wanted = scene.step(when);
        assert_eq!(wanted, *expected, "row {}: {when:?}", number + 1);
    }
}
