//! What an election's manifests should look like on this node, and the policy's answer to it.
//!
//! The core says which role this node has; the policy says what runs in that role; the manifest
//! loop makes it so. An answer that comes after the role changed again is dropped: each wish has
//! a number, and only the newest wish's answer counts.

use std::collections::BTreeMap;

use conclave_core::view::{ManifestView, Role};
use conclave_core::{ElectionName, NodeName, Token};

/// What the core wants of an election's manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Exclusive effects of this term.
    Lead { token: Token },
    /// Only what runs everywhere.
    Follow { holder: Option<(NodeName, Token)> },
    /// Exclusive effects are being withdrawn; nothing is placed.
    Withdraw,
}

impl Wish {
    /// The role that the policy is asked about.
    pub(crate) fn role(&self) -> Option<Role> {
        match self {
            Wish::Lead { .. } => Some(Role::Leader),
            Wish::Follow { .. } => Some(Role::Standby),
            Wish::Withdraw => None,
        }
    }
}

/// A question to the policy.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) number: u64,
    pub(crate) role: Role,
    pub(crate) manifests: Vec<ManifestView>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    wish: Option<Wish>,
    /// Counts the wishes and their changed inputs.
    number: u64,
    /// `None` until the manifest loop has looked at every source.
    manifests: Option<Vec<ManifestView>>,
    /// Counts the questions for a description.
    descriptions: u64,
}

impl Place {
    fn question(&mut self) -> Option<Question> {
        self.number += 1;
        let role = self.wish.as_ref()?.role()?;
        let manifests = self.manifests.clone()?;
        Some(Question { number: self.number, role, manifests })
    }
}

/// Every election's wish.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(BTreeMap<ElectionName, Place>);

impl Places {
    /// The core's wish changed; returns the question for the policy, if one can be asked.
    pub(crate) fn wish(&mut self, election: &ElectionName, wish: Wish) -> Option<Question> {
        let place = self.0.entry(election.clone()).or_default();
        place.wish = Some(wish);
        place.question()
    }

    /// The manifests changed; returns the question for the policy, if one can be asked.
    pub(crate) fn manifests(
        &mut self,
        election: &ElectionName,
        manifests: Vec<ManifestView>,
    ) -> Option<Question> {
        let place = self.0.entry(election.clone()).or_default();
        place.manifests = Some(manifests);
        place.question()
    }

    /// The same question anew: the policy is another one, or did not answer.
    pub(crate) fn again(&mut self, election: &ElectionName) -> Option<Question> {
        self.0.get_mut(election)?.question()
    }

    /// What a policy is to describe, and the number of that question.
    pub(crate) fn description(
        &mut self,
        election: &ElectionName,
    ) -> Option<(u64, Vec<ManifestView>)> {
        let place = self.0.get_mut(election)?;
        let manifests = place.manifests.clone()?;
        place.descriptions += 1;
        Some((place.descriptions, manifests))
    }

    /// Whether a description answers the newest question for one.
    pub(crate) fn is_newest_description(&self, election: &ElectionName, number: u64) -> bool {
        self.0.get(election).is_some_and(|place| place.descriptions == number)
    }

    /// The manifests as they are now.
    pub(crate) fn known_manifests(&self, election: &ElectionName) -> Option<&Vec<ManifestView>> {
        self.0.get(election)?.manifests.as_ref()
    }

    /// The wish that an answer belongs to, unless it has changed since.
    pub(crate) fn answered(&self, election: &ElectionName, number: u64) -> Option<&Wish> {
        let place = self.0.get(election)?;
        (place.number == number).then_some(place.wish.as_ref()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_only_for_the_newest_wish() {
        let mut places = Places::default();
        let e = ElectionName::from("e");
        let lead = Wish::Lead { token: Token(7) };
        assert!(places.wish(&e, lead.clone()).is_none(), "sources are not known yet");
        let first = places.manifests(&e, Vec::new()).unwrap();
        assert_eq!(first.role, Role::Leader);
        assert_eq!(places.answered(&e, first.number), Some(&lead));
        assert!(places.wish(&e, Wish::Withdraw).is_none(), "a withdrawal needs no policy");
        assert_eq!(places.answered(&e, first.number), None, "too late");
        let after = places.wish(&e, Wish::Follow { holder: None }).unwrap();
        assert_eq!(after.role, Role::Standby);
        assert!(places.answered(&e, after.number).is_some());
    }

    #[test]
    fn a_question_that_is_asked_anew_makes_the_old_answer_void() {
        let mut places = Places::default();
        let e = ElectionName::from("e");
        assert!(places.again(&e).is_none(), "nothing is known of it");
        places.wish(&e, Wish::Lead { token: Token(7) });
        let first = places.manifests(&e, Vec::new()).unwrap();
        let second = places.again(&e).unwrap();
        assert_eq!(second.role, Role::Leader);
        assert_eq!(places.answered(&e, first.number), None);
        assert!(places.answered(&e, second.number).is_some());
        places.wish(&e, Wish::Withdraw);
        assert!(places.again(&e).is_none());
    }

    #[test]
    fn of_two_descriptions_under_way_the_newer_counts() {
        let mut places = Places::default();
        let e = ElectionName::from("e");
        assert_eq!(places.description(&e), None, "sources are not known yet");
        places.manifests(&e, Vec::new());
        let (first, _) = places.description(&e).unwrap();
        let (second, _) = places.description(&e).unwrap();
        assert!(!places.is_newest_description(&e, first));
        assert!(places.is_newest_description(&e, second));
    }
}
