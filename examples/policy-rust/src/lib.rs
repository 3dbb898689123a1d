//! The policy `rack-first`: nodes in a preferred rack lead, and some manifests run on standbys only.
//!
//! - **Who leads:** candidates by the place of their label `rack` in `racks` (as long as nothing
//!   is configured: rack a, then the others); in the same rack the incumbent stays.
//! - **What runs where:** exclusive manifests on the leader, told their rack as `${RACK}`; those
//!   under `standby_only` on the standbys; all others everywhere.

use conclave_policy_sdk::{
    Config, Info, Manifest, Node, Placement, Policy, Problem, Ranking, Refusal, Role, View,
    export_policy, placement, ranking,
};
use serde::Deserialize;

/// The policy.
pub struct RackFirst;

/// What an operator may write under `policy_config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Racks, the best first.
    racks: Vec<String>,
    /// Names of manifests that the leader does not run.
    standby_only: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { racks: vec!["a".into()], standby_only: Vec::new() }
    }
}

impl Config for Settings {}

impl Policy for RackFirst {
    type Config = Settings;

    fn introduce() -> Info {
        Info {
            name: "rack-first".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Nodes in a preferred rack lead; some manifests run on standbys only.".into(),
            config_schema: include_str!("../schema.json").into(),
        }
    }

    fn validate(settings: &Settings) -> Vec<Problem> {
        if settings.racks.is_empty() {
            return vec![Problem {
                path: "/racks".into(),
                message: "name at least one rack".into(),
            }];
        }
        Vec::new()
    }

    fn rank(view: &View, settings: &Settings) -> Result<Ranking, Refusal> {
        Ok(ranking::by_key(view, |candidate| {
            let rack = candidate.label("rack");
            let place = settings.racks.iter().position(|r| Some(r.as_str()) == rack);
            let reason = match rack {
                Some(rack) if place.is_some() => format!("in rack {rack}, which is preferred"),
                Some(rack) => format!("in rack {rack}"),
                None => "in no rack".to_owned(),
            };
            let moves = !ranking::is_incumbent(view, candidate);
            ((place.unwrap_or(usize::MAX), moves), reason)
        }))
    }

    fn place(
        _: &View,
        node: &Node,
        role: Role,
        manifests: &[Manifest],
        settings: &Settings,
    ) -> Result<Vec<Placement>, Refusal> {
        let place = |manifest: &Manifest| {
            let standby_only = settings.standby_only.contains(&manifest.name);
            if manifest.exclusive && standby_only {
                return Err(Refusal::Configuration(format!(
                    "manifest `{}` is exclusive, so it cannot run on standbys only",
                    manifest.name
                )));
            }
            let run = match role {
                Role::Leader => !standby_only,
                Role::Standby => !manifest.exclusive,
            };
            let mut placement = placement::of(manifest, run);
            if manifest.exclusive {
                let rack = node.label("rack").unwrap_or("none");
                placement.variables.push(("RACK".into(), rack.into()));
            }
            Ok(placement)
        };
        manifests.iter().map(place).collect()
    }
}

export_policy!(RackFirst);

#[cfg(test)]
mod tests {
    use conclave_policy_sdk::{Candidate, Fitness, Incumbent};

    use super::*;

    fn candidate(name: &str, rack: Option<&str>) -> Candidate {
        Candidate {
            name: name.into(),
            labels: rack.map(|rack| ("rack".into(), rack.into())).into_iter().collect(),
            facts: vec![],
            fitness: Fitness { fit: true, reasons: vec![], checks: vec![] },
            cordoned: false,
            holds: vec![],
            standing_ms: 0,
        }
    }

    fn view(candidates: Vec<Candidate>, incumbent: Option<&str>) -> View {
        View {
            election: "masters".into(),
            me: "n1".into(),
            candidates,
            incumbent: incumbent.map(|name| Incumbent {
                name: name.into(),
                facts: vec![],
                held_ms: 0,
            }),
            previous: None,
            transfer: None,
            paused: false,
        }
    }

    fn manifest(name: &str, exclusive: bool) -> Manifest {
        Manifest { name: name.into(), exclusive, content: String::new() }
    }

    #[test]
    fn the_rack_decides_and_then_the_incumbent() {
        let candidates = vec![
            candidate("n1", Some("b")),
            candidate("n2", Some("a")),
            candidate("n3", Some("a")),
        ];
        for (incumbent, expected) in [
            (None, ["n2", "n3", "n1"]),
            (Some("n1"), ["n2", "n3", "n1"]),
            (Some("n3"), ["n3", "n2", "n1"]),
        ] {
            let view = view(candidates.clone(), incumbent);
            let ranking = RackFirst::rank(&view, &Settings::default()).expect("a ranking");
            let order: Vec<_> = ranking.order.iter().map(|ranked| ranked.node.as_str()).collect();
            assert_eq!(order, expected, "incumbent {incumbent:?}");
        }
    }

    #[test]
    fn the_role_decides_what_runs() {
        let settings = Settings::parse(r#"{"standby_only": ["warm.yaml"]}"#).expect("settings");
        let manifests = [
            manifest("scheduler.yaml", true),
            manifest("warm.yaml", false),
            manifest("api.yaml", false),
        ];
        let node = Node {
            name: "n1".into(),
            labels: vec![("rack".into(), "b".into())],
            variables: vec![],
        };
        for (role, expected) in
            [(Role::Leader, [true, false, true]), (Role::Standby, [false, true, true])]
        {
            let placed = RackFirst::place(&view(vec![], None), &node, role, &manifests, &settings)
                .expect("placements");
            let runs: Vec<_> = placed.iter().map(|placement| placement.run).collect();
            assert_eq!(runs, expected, "{role:?}");
            assert_eq!(placed[0].variables, [("RACK".to_owned(), "b".to_owned())]);
        }
    }
}
