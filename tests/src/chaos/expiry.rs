//! How long before its expiry a node that could not renew its session had withdrawn.
//!
//! A beat that is confirmed was sent before the fault had taken hold, so that the session's expiry
//! is at most a TTL after that; by then nothing exclusive is in place. How much time is left until
//! then is what the margin is for. It is a figure and no rule here: the rule is that no two hold,
//! and on a machine with other work the observer learns of things late as well.

use std::time::{Duration, Instant};

use crate::chaos::fault::Kind;
use crate::chaos::record::{Record, Strike};
use crate::timeline::{Holding, Timeline};

/// A withdrawal of a node that could not renew its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// The step's number.
    pub step: usize,
    /// Whose.
    pub node: String,
    /// When nothing was in place any more; `None` when something was until the healing.
    pub gone: Option<Instant>,
    /// The latest that its session can have expired.
    pub expiry: Instant,
}

impl Withdrawal {
    /// How long before the expiry, in milliseconds; negative when it was after.
    pub fn spare_ms(&self) -> Option<f64> {
        let gone = self.gone?;
        let late = gone.saturating_duration_since(self.expiry);
        let early = self.expiry.saturating_duration_since(gone);
        Some((early.as_secs_f64() - late.as_secs_f64()) * 1e3)
    }
}

/// Faults that let no beat of a node be confirmed.
fn silences(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::LinksRefused
            | Kind::LinksBlackHoled
            | Kind::RepliesLost
            | Kind::RequestsLost
            | Kind::DaemonFrozen
            | Kind::StoreFrozen
    )
}

/// The withdrawals after faults that struck alone and lasted until the expiry at least.
pub fn withdrawals(
    story: &Timeline,
    files: &[&str],
    record: &Record,
    ttl: Duration,
) -> Vec<Withdrawal> {
    let holdings = story.holdings(files);
    let withdrawal = |strike: &Strike| {
        let expiry = strike.took + ttl;
        let healed = strike.healed.filter(|healed| *healed > expiry)?;
        let stood = |holding: &&Holding| {
            (strike.fault.kind == Kind::StoreFrozen || holding.node == strike.at)
                && holding.from <= strike.struck
                && holding.to.is_none_or(|to| to > strike.struck)
        };
        let holding = holdings.iter().find(stood)?;
        let gone = holding.to.filter(|gone| *gone <= healed);
        Some(Withdrawal { step: strike.step, node: holding.node.clone(), gone, expiry })
    };
    let alone = |strike: &&Strike| record.strikes_of(strike.step).count() == 1;
    let silent = record.strikes.iter().filter(|strike| silences(strike.fault.kind));
    silent.filter(alone).filter_map(withdrawal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::fault::{Fault, Target};
    use crate::timeline::{Change, Sighting};

    const TTL: Duration = Duration::from_secs(1);

    #[test]
    fn only_silence_until_the_expiry_counts() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let seen = |ms, change| Sighting {
            at: at(ms),
            node: "a".to_owned(),
            file: "s".to_owned(),
            change,
            term: None,
        };
        let strike = |kind, node: &str, healed| Strike {
            fault: Fault { kind, target: Target::Holder, after: Duration::ZERO, chance: 0 },
            step: 0,
            at: node.to_owned(),
            holder: true,
            struck: at(1000),
            took: at(1010),
            healed: Some(at(healed)),
        };
        for (kind, node, healed, gone, spare) in [
            (Kind::LinksRefused, "a", 2500, 1900, Some(Some(110.0))),
            (Kind::StoreFrozen, "m0", 2500, 1900, Some(Some(110.0))),
            (Kind::DaemonFrozen, "a", 2500, 2020, Some(Some(-10.0))),
            // It was never withdrawn.
            (Kind::DaemonFrozen, "a", 2500, 9000, Some(None)),
            // Healed before the expiry; somebody else's; no silence.
            (Kind::LinksRefused, "a", 2000, 1900, None),
            (Kind::LinksRefused, "b", 2500, 1900, None),
            (Kind::LinksSlow, "a", 2500, 1900, None),
        ] {
            let seen = vec![seen(0, Change::MovedIn), seen(gone, Change::Vanished)];
            let story = Timeline::new(zero, seen, Vec::new());
            let strikes = vec![strike(kind, node, healed)];
            let record = Record { strikes, ..Record::default() };
            let found = withdrawals(&story, &["s"], &record, TTL);
            let spares: Vec<_> = found.iter().map(Withdrawal::spare_ms).collect();
            assert_eq!(spares, Vec::from_iter(spare), "{kind:?} {node} {healed} {gone}");
        }
    }
}
