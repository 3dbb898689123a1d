//! The core's notices as log lines: constant messages, typed fields.

use conclave_core::Notice;
use tracing::{error, info, warn};

/// Logs a notice of the node `node`.
pub(crate) fn log(notice: &Notice) {
    match notice {
        Notice::SessionBegan { session } => info!(%session, "session began"),
        Notice::SessionLost { session, deadline_passed } => {
            warn!(%session, deadline_passed, "session lost");
        }
        Notice::NameContested { nonce } => {
            info!(%nonce, "another daemon's session stands under this node's name; waiting for its time to pass");
        }
        Notice::TermBegan { election, token, delay, from, gap, why } => {
            let from = from.as_ref().map(tracing::field::display);
            let delay_ms = delay.as_millis() as u64;
            let gap_ms = gap.map(|gap| gap.as_millis() as u64);
            info!(%election, %token, delay_ms, from, gap_ms, why, "term began");
        }
        Notice::TermEnded { election, token, successor, why } => {
            let successor = successor.as_ref().map(tracing::field::display);
            info!(%election, %token, successor, ?why, "term ended");
        }
        Notice::HolderChanged { election, holder: Some((holder, token)) } => {
            info!(%election, %holder, %token, "holder in store changed");
        }
        Notice::HolderChanged { election, holder: None } => {
            info!(%election, "no holder in store");
        }
        Notice::Stuck { election, token, reason } => {
            error!(%election, %token, reason, "stuck: exclusive effects cannot be withdrawn; the term is kept so that nobody else leads");
        }
        Notice::Unstuck { election } => warn!(%election, "withdrawn at last, no longer stuck"),
        Notice::PolicyFailed { election, reason, fallback: true } => {
            error!(%election, reason, "policy failed; the built-in ranking stands in");
        }
        Notice::PolicyFailed { election, reason, fallback: false } => {
            error!(%election, reason, "policy failed; nobody new is elected");
        }
        Notice::VersionsDiffer { election, nodes } => {
            warn!(%election, ?nodes, "no voluntary change of leader: these nodes decide by another policy version");
        }
        Notice::ForeignHolder { election, suffix } => {
            warn!(%election, key = suffix, "a foreign key holds the election");
        }
        Notice::StrayReply { op } => tracing::debug!(%op, "a reply came that answers nothing"),
    }
}
