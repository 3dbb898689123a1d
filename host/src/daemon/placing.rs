//! What an election's manifests should look like on this node, and the policy's answer to it.
//!
//! The core says which role this node has; the policy says what runs in that role; the manifest
//! loop makes it so. An answer that comes after the role changed again is dropped: each wish has
//! a number, and only the newest wish's answer counts.

use std::collections::BTreeMap;

use conclave_core::view::{ManifestView, Placement, Role, View};
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

/// What the policy answered ahead of a term that may begin.
#[derive(Clone, Debug)]
pub(crate) struct Ahead {
    pub(crate) token: Token,
    /// What it was asked about.
    pub(crate) view: View,
    pub(crate) placements: Vec<Placement>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    wish: Option<Wish>,
    /// Counts the wishes and their changed inputs.
    number: u64,
    /// `None` until the manifest loop has looked at every source.
    manifests: Option<Vec<ManifestView>>,
    /// Holds for the manifests and the policy of this number only.
    ahead: Option<Ahead>,
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
        place.ahead = None;
        place.question()
    }

    /// The question that a term which may begin would bring.
    pub(crate) fn question_ahead(&self, election: &ElectionName) -> Option<Question> {
        let place = self.0.get(election)?;
        let manifests = place.manifests.clone()?;
        Some(Question { number: place.number, role: Role::Leader, manifests })
    }

    /// Keeps what was answered to it, unless anything has changed since.
    pub(crate) fn keep_ahead(&mut self, election: &ElectionName, number: u64, ahead: Ahead) {
        if let Some(place) = self.0.get_mut(election).filter(|place| place.number == number) {
            place.ahead = Some(ahead);
        }
    }

    /// The answer to a question, if it was asked ahead and all is as it was then.
    pub(crate) fn answered_ahead(
        &mut self,
        election: &ElectionName,
        view: impl FnOnce() -> View,
    ) -> Option<Vec<Placement>> {
        let place = self.0.get_mut(election)?;
        let ahead = place.ahead.take()?;
        let Some(Wish::Lead { token }) = place.wish else { return None };
        (ahead.token == token && ahead.view == view()).then_some(ahead.placements)
    }

    /// The same question anew: the policy is another one, or did not answer.
    pub(crate) fn again(&mut self, election: &ElectionName) -> Option<Question> {
        let place = self.0.get_mut(election)?;
        place.ahead = None;
        place.question()
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
    fn an_answer_given_ahead_counts_for_that_term_only_and_while_nothing_changed() {
        let e = ElectionName::from("e");
        let view = |paused| View {
            election: e.clone(),
            me: "a".into(),
            candidates: Vec::new(),
            incumbent: None,
            previous: None,
            transfer: None,
            paused,
        };
        let ahead =
            |token| Ahead { token: Token(token), view: view(false), placements: Vec::new() };
        let lead = |token| Wish::Lead { token: Token(token) };
        for (what, asked, change, led, paused, expected) in [
            ("the term came as expected", 7, None, 7, false, true),
            ("another term came", 7, None, 8, false, false),
            ("the view changed", 7, None, 7, true, false),
            ("the sources changed", 7, Some("sources"), 7, false, false),
            ("the policy changed", 7, Some("policy"), 7, false, false),
        ] {
            let mut places = Places::default();
            assert!(places.question_ahead(&e).is_none(), "sources are not known yet");
            places.wish(&e, Wish::Follow { holder: None });
            places.manifests(&e, Vec::new());
            let question = places.question_ahead(&e).unwrap();
            assert_eq!(question.role, Role::Leader);
            places.keep_ahead(&e, question.number, ahead(asked));
            match change {
                Some("sources") => drop(places.manifests(&e, Vec::new())),
                Some(_) => drop(places.again(&e)),
                None => {}
            }
            if change.is_some() {
                places.keep_ahead(&e, question.number, ahead(asked)); // it comes too late
            }
            places.wish(&e, lead(led)).unwrap();
            let answered = places.answered_ahead(&e, || view(paused));
            assert_eq!(answered.is_some(), expected, "{what}");
            assert!(places.answered_ahead(&e, || view(false)).is_none(), "{what}: once only");
        }
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
