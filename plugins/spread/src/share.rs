//! The plan that all work out alike: how many elections each node should hold, and where the one
//! that is asked about should go.
//!
//! Carrying out a part of it in any order leaves the rest of it as it is. What leaves a node are the
//! last of its elections by name, so those that have not left yet are still its last ones; and the
//! n-th of all that leave goes to the n-th free place, so a pair that is done takes nothing from the
//! others.

use std::cmp::Reverse;

/// What a node can hold, and holds.
#[derive(Clone, Debug)]
pub(crate) struct Share<'a> {
    pub(crate) node: &'a str,
    /// In proportion to the other nodes'.
    pub(crate) capacity: u64,
    /// Names of elections, sorted.
    pub(crate) held: Vec<&'a str>,
}

impl Share<'_> {
    fn count(&self) -> u64 {
        self.held.len() as u64
    }

    /// How much it holds for its capacity, in thousandths; without capacity it is fuller than any.
    pub(crate) fn fullness(&self) -> u64 {
        (1_000 * self.count()).checked_div(self.capacity).unwrap_or(u64::MAX)
    }
}

/// Who should hold how many, and where one election should go.
#[derive(Debug)]
pub(crate) struct Plan {
    /// For each share, in its order.
    pub(crate) quotas: Vec<u64>,
    /// The share that the election should go to; `None` where it should stay.
    pub(crate) target: Option<usize>,
}

impl Plan {
    /// The plan, as far as it concerns an election that this node holds, or nobody.
    pub(crate) fn new(shares: &[Share<'_>], election: &str, holder: Option<&str>) -> Self {
        let held = shares.iter().any(|share| Some(share.node) == holder);
        let total = shares.iter().map(Share::count).sum::<u64>() + u64::from(!held);
        let quotas = quotas(shares, total);
        let target = if held {
            moved(shares, &quotas, election)
        } else {
            scattered(shares, &quotas, election)
        };
        Plan { quotas, target }
    }
}

/// In proportion to the capacities, and in whole numbers: what is left over goes to the greatest
/// remainders, and of equal ones to those that hold most, so that nothing moves for it.
fn quotas(shares: &[Share<'_>], total: u64) -> Vec<u64> {
    let sum: u64 = shares.iter().map(|share| share.capacity).sum();
    // Where nobody has any capacity, all have the same.
    let capacity = |share: &Share<'_>| if sum == 0 { 1 } else { share.capacity };
    let sum = if sum == 0 { shares.len().max(1) as u64 } else { sum };
    let mut quotas: Vec<u64> = shares.iter().map(|share| total * capacity(share) / sum).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|&i| {
        let share = &shares[i];
        (Reverse(total * capacity(share) % sum), Reverse(share.count()), share.node)
    });
    let left = total - quotas.iter().sum::<u64>();
    for i in order.into_iter().take(left as usize) {
        quotas[i] += 1;
    }
    quotas
}

/// Where an election goes that is one too many where it is.
fn moved(shares: &[Share<'_>], quotas: &[u64], election: &str) -> Option<usize> {
    let mut by_name: Vec<usize> = (0..shares.len()).collect();
    by_name.sort_by_key(|&i| shares[i].node);
    let surplus = |&i: &usize| shares[i].held.iter().skip(quotas[i] as usize);
    let place = by_name.iter().flat_map(surplus).position(|name| *name == election)?;
    let free = |&i: &usize| {
        let places = quotas[i].saturating_sub(shares[i].count());
        std::iter::repeat_n(i, places as usize)
    };
    by_name.iter().flat_map(free).nth(place)
}

/// Where an election goes that nobody holds. That others are vacant too, nobody can see: so they are
/// scattered over all that do not hold much more than their share, in proportion to the
/// capacities, and what comes out uneven is moved later.
fn scattered(shares: &[Share<'_>], quotas: &[u64], election: &str) -> Option<usize> {
    let roomy = |&i: &usize| shares[i].count() < quotas[i].max(1) + quotas[i] / 4;
    let mut among: Vec<usize> = (0..shares.len()).filter(roomy).collect();
    if among.is_empty() {
        among = (0..shares.len()).collect();
    }
    among.into_iter().max_by(|&a, &b| {
        score(&shares[a], election)
            .total_cmp(&score(&shares[b], election))
            .then_with(|| shares[b].node.cmp(shares[a].node))
    })
}

/// Rendezvous hashing: the node with the highest score has the election, which is so for a part of
/// all elections that is in proportion to its capacity.
fn score(share: &Share<'_>, election: &str) -> f64 {
    // From 0 to 1, exclusive.
    let random = ((hash(election, share.node) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    share.capacity as f64 / -random.ln()
}

/// FNV-1a, and a finish that spreads its last bytes over all bits.
fn hash(election: &str, node: &str) -> u64 {
    let bytes = election.bytes().chain([0xff]).chain(node.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share<'a>(node: &'a str, capacity: u64, held: &'a [&'a str]) -> Share<'a> {
        Share { node, capacity, held: held.to_vec() }
    }

    #[test]
    fn quotas_are_in_proportion_and_favour_those_that_hold_most() {
        for (capacities, counts, total, expected) in [
            ([1, 1, 1], [0, 0, 0], 9, [3, 3, 3]),
            ([1, 1, 1], [0, 0, 0], 10, [4, 3, 3]),
            ([1, 1, 1], [0, 2, 1], 10, [3, 4, 3]),
            ([1, 2, 1], [0, 0, 0], 8, [2, 4, 2]),
            ([0, 1, 1], [0, 0, 0], 5, [0, 3, 2]),
            ([0, 0, 0], [0, 0, 1], 4, [1, 1, 2]),
        ] {
            let names = ["x"; 9];
            let shares: Vec<_> = ["a", "b", "c"]
                .into_iter()
                .zip(capacities)
                .zip(counts)
                .map(|((node, capacity), count)| share(node, capacity, &names[..count]))
                .collect();
            assert_eq!(quotas(&shares, total), expected, "{capacities:?} {counts:?} {total}");
        }
    }

    #[test]
    fn what_is_too_many_goes_to_the_free_places() {
        let shares = [
            share("a", 1, &["e1", "e2", "e3", "e4", "e5", "e6"]),
            share("b", 1, &[]),
            share("c", 1, &["e7"]),
        ];
        // A quota of three, two and two: the last three of `a`'s leave, two to `b`, one to `c`.
        let target = |election| Plan::new(&shares, election, Some("a")).target;
        let targets = ["e1", "e2", "e3", "e4", "e5", "e6"].map(target);
        assert_eq!(targets, [None, None, None, Some(1), Some(1), Some(2)]);
        assert_eq!(Plan::new(&shares, "e7", Some("c")).target, None);
    }

    #[test]
    fn nothing_is_divided_among_nobody() {
        let plan = Plan::new(&[], "e", None);
        assert_eq!((plan.quotas.len(), plan.target), (0, None));
    }

    #[test]
    fn what_is_vacant_is_scattered_in_proportion() {
        let shares = [share("a", 1, &[]), share("b", 3, &[])];
        let names: Vec<String> = (0..4_000).map(|i| format!("shard-{i}")).collect();
        let on_b = names.iter().filter(|name| scattered(&shares, &[1, 3], name) == Some(1)).count();
        assert!((2_850..3_150).contains(&on_b), "{on_b} of 4000 on b, three quarters expected");
        // One that has much more than its share gets none.
        let full = [share("a", 1, &["x"; 9]), share("b", 1, &["y"])];
        assert!(names.iter().all(|name| scattered(&full, &[6, 5], name) == Some(1)));
    }
}
