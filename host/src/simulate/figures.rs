//! What a play comes to, in numbers.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::policy::Asked;
use super::scenario::Scenario;

/// A change within this time of the end before is a handover; a later one follows a silence.
const HANDOVER: Duration = Duration::from_secs(1);

/// Who loses a term and has it again within so many TTLs has flapped.
const FLAP: u32 = 30;

/// A stretch of time in which a node had what only the leader has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stretch {
    pub(crate) election: usize,
    pub(crate) node: usize,
    #[serde(serialize_with = "seconds")]
    pub(crate) from: Duration,
    #[serde(serialize_with = "seconds")]
    pub(crate) to: Duration,
}

/// One policy's play.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Outcome {
    pub(crate) policy: String,
    pub(crate) digest: String,
    pub(crate) asked: Asked,
    /// By election.
    pub(crate) figures: Vec<Figures>,
    pub(crate) stretches: Vec<Stretch>,
}

/// One election's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// The share of the time since it was first led in which it was.
    pub(crate) availability: f64,
    /// Times in which nobody led, once somebody had.
    pub(crate) gaps: usize,
    #[serde(serialize_with = "seconds")]
    pub(crate) longest_gap: Duration,
    #[serde(serialize_with = "seconds")]
    pub(crate) median_gap: Duration,
    #[serde(serialize_with = "seconds")]
    pub(crate) p95_gap: Duration,
    /// Changes of leader within a second.
    pub(crate) handovers: usize,
    /// Changes of leader, or returns, after a longer gap.
    pub(crate) takeovers: usize,
    /// Leaders that had led before and were back within 30 TTLs.
    pub(crate) flaps: usize,
}

fn seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

impl Figures {
    /// Of one election's stretches, in order.
    pub(crate) fn of<'a>(
        scenario: &Scenario,
        stretches: impl Iterator<Item = &'a Stretch>,
    ) -> Figures {
        let stretches: Vec<&Stretch> = stretches.collect();
        let Some(first) = stretches.first() else { return Figures::default() };
        let mut figures = Figures::default();
        let mut gaps = Vec::new();
        let led: Duration = stretches.iter().map(|it| it.to.saturating_sub(it.from)).sum();
        for (before, next) in stretches.iter().zip(stretches.iter().skip(1)) {
            let gap = next.from.saturating_sub(before.to);
            gaps.push(gap);
            if gap > HANDOVER {
                figures.takeovers += 1;
            } else if before.node != next.node {
                figures.handovers += 1;
            }
        }
        for (at, next) in stretches.iter().enumerate().skip(2) {
            let own = stretches[..at].iter().rev().find(|it| it.node == next.node);
            let other = stretches[at - 1].node != next.node;
            let soon =
                own.is_some_and(|own| next.from.saturating_sub(own.to) < scenario.ttl * FLAP);
            figures.flaps += usize::from(other && soon);
        }
        let last = stretches.last().map_or(Duration::ZERO, |it| it.to);
        if last < scenario.duration {
            gaps.push(scenario.duration - last);
        }
        gaps.sort_unstable();
        let whole = scenario.duration.saturating_sub(first.from).as_secs_f64();
        figures.availability = led.as_secs_f64() / whole;
        figures.gaps = gaps.len();
        figures.longest_gap = gaps.last().copied().unwrap_or_default();
        figures.median_gap = quantile(&gaps, 50);
        figures.p95_gap = quantile(&gaps, 95);
        figures
    }
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn gaps_handovers_takeovers_and_flaps_are_counted() {
        let text = "nodes: [a, b]\nttl: 1s\nduration: 100s\n";
        let scenario = Scenario::parse(Path::new("s.yaml"), text).unwrap();
        let stretch = |node, from: f64, to: f64| Stretch {
            election: 0,
            node,
            from: Duration::from_secs_f64(from),
            to: Duration::from_secs_f64(to),
        };
        let all = [
            stretch(0, 10.0, 40.0),
            stretch(1, 40.5, 50.0), // handed over
            stretch(0, 50.5, 60.0), // back at once: a flap
            stretch(1, 64.0, 90.0), // taken over, and a flap
        ];
        let figures = Figures::of(&scenario, all.iter());
        let expected = Figures {
            availability: 75.0 / 90.0,
            gaps: 4,
            longest_gap: Duration::from_secs(10),
            median_gap: Duration::from_millis(500),
            p95_gap: Duration::from_secs(10),
            handovers: 2,
            takeovers: 1,
            flaps: 2,
        };
        assert_eq!(figures, expected);
        assert_eq!(Figures::of(&scenario, [].iter()), Figures::default());
    }
}
