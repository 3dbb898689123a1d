//! The gate: every exclusive effect passes it, so that none appears once the term is over.
//!
//! The guard stands behind it. A claim tells the guard what to undo at the deadline *before*
//! anything is staged; the gate is then asked again right before the rename that makes the
//! effect visible.

use std::path::Path;

use conclave_core::ids::{ElectionName, Token};

/// What the guard has to do to undo an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// A manifest: unlink `staged`, then `destination`.
    Manifest,
    /// A role file that may say `leader`: rename `staged`, a file that says `standby`, over
    /// `destination`; where `staged` is gone already, unlink `destination`, because a missing role
    /// file means standby.
    RoleFile,
}

/// Why a claim was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// The term's deadline has passed, or it is not the term that the guard knows.
    #[error("the deadline of term {token} has passed")]
    Closed {
        /// The term.
        token: Token,
    },
    /// The guard cannot watch over this effect.
    #[error("the guard cannot watch over this path: {reason}")]
    Refused {
        /// Why not.
        reason: String,
    },
}

/// Claims effects, implemented over the guard's shared page.
pub trait Gate: Send + Sync {
    /// Publishes an effect for the guard to undo at the deadline. Called before anything is
    /// staged; one claim serves any number of placings of the same file in the term. Claiming a
    /// destination that stands claimed for this term, as after an adoption, returns that claim.
    ///
    /// # Errors
    /// When the term does not stand, or the guard cannot watch over the effect: then nothing is
    /// placed.
    fn claim(
        &self,
        election: &ElectionName,
        token: Token,
        effect: Effect,
        destination: &Path,
        staged: &Path,
    ) -> Result<Box<dyn Slot>, GateError>;
}

/// A claimed effect.
pub trait Slot: Send {
    /// Whether the effect may appear now: the claim stands and the deadline has not come. Asked
    /// right before the rename.
    fn open(&self) -> bool;

    /// The effect is withdrawn, and the guard need not watch over it any longer. `false` while the
    /// guard is withdrawing it too: it does not count as withdrawn before that has returned.
    fn release(&self) -> bool;
}
