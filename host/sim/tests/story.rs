//! Stories of few steps, each a promise of the protocol, over several seeds.

use std::collections::BTreeSet;
use std::time::Duration;

use conclave_core::record::{Fitness, MarkRecord, TransferRecord};
use conclave_core::request::Key;
use conclave_core::{ElectionName, Exit, NodeName, Value};
use conclave_sim::{Fault, World, WorldSettings};

const SEEDS: std::ops::Range<u64> = 1..40;

fn e0() -> ElectionName {
    "e0".into()
}

fn led(world: &World) -> Option<NodeName> {
    world.holders(&e0()).first().map(|name| (*name).clone())
}

fn index(name: &NodeName) -> usize {
    name.as_str()[1..].parse().unwrap()
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A world of three in which somebody leads.
fn three(seed: u64) -> (World, usize) {
    let mut world = World::new(WorldSettings::new(seed, 3, 1));
    world.run(secs(1.0));
    let leader = index(&led(&world).unwrap_or_else(|| panic!("seed {seed}: nobody leads")));
    (world, leader)
}

#[test]
fn three_started_together_have_one_leader_at_once() {
    for seed in SEEDS {
        let mut world = World::new(WorldSettings::new(seed, 3, 5));
        world.run(secs(0.2));
        for election in 0..5 {
            let election = ElectionName::new(format!("e{election}"));
            assert_eq!(world.holders(&election).len(), 1, "seed {seed}: {election}");
        }
    }
}

#[test]
fn a_killed_node_is_replaced_after_its_ttl() {
    for seed in SEEDS {
        let (mut world, leader) = three(seed);
        world.inject(&Fault::KillNode(leader));
        world.run(secs(0.7));
        assert_eq!(led(&world), None, "seed {seed}: too early");
        world.run(secs(0.5));
        let next = led(&world).unwrap_or_else(|| panic!("seed {seed}: nobody took over"));
        assert_ne!(index(&next), leader, "seed {seed}");
        world.inject(&Fault::StartNode(leader));
        world.run(secs(2.0));
        assert_eq!(led(&world), Some(next), "seed {seed}: nothing moves without need");
    }
}

#[test]
fn a_hundred_elections_of_a_killed_node_are_taken_over_in_few_transactions() {
    for seed in SEEDS {
        let mut world = World::new(WorldSettings::new(seed, 2, 100));
        world.run(secs(1.0));
        let holds = |world: &World, node: &str| -> usize {
            let has = |i: &usize| world.holders(&ElectionName::new(format!("e{i}")))[0].as_str();
            (0..100).filter(|i| has(i) == node).count()
        };
        let of_n0 = holds(&world, "n0");
        world.inject(&Fault::KillNode(0));
        let before = world.store.revision();
        world.run(secs(1.5));
        assert_eq!(holds(&world, "n1"), 100, "seed {seed}");
        let taken: BTreeSet<_> = world
            .store
            .keys()
            .filter(|(key, _)| matches!(key, Key::Leader(..)))
            .map(|(_, stored)| stored.create)
            .filter(|create| *create > before)
            .collect();
        assert!(taken.len() <= of_n0.div_ceil(4), "seed {seed}: {of_n0} in {}", taken.len());
    }
}

#[test]
fn a_stopped_leader_hands_over_at_once() {
    for seed in SEEDS {
        let (mut world, leader) = three(seed);
        world.inject(&Fault::Stop(leader));
        world.run(secs(0.02));
        let next = led(&world).unwrap_or_else(|| panic!("seed {seed}: not handed over"));
        assert_ne!(index(&next), leader, "seed {seed}");
        assert_eq!(world.exited(leader), Some(&Exit::Stopped), "seed {seed}");
    }
}

#[test]
fn a_killed_daemon_changes_nothing() {
    for seed in SEEDS {
        let (mut world, leader) = three(seed);
        let before = world.record.len();
        world.inject(&Fault::KillDaemon(leader));
        world.run(secs(3.0));
        assert_eq!(led(&world).map(|n| index(&n)), Some(leader), "seed {seed}");
        assert_eq!(world.record.len(), before, "seed {seed}: files were touched");
    }
}

#[test]
fn a_frozen_or_cut_off_leader_is_replaced_and_comes_back_as_a_candidate() {
    for seed in SEEDS {
        for fault in [Fault::Freeze as fn(usize) -> Fault, Fault::LoseRequests, Fault::LoseReplies]
        {
            let (mut world, leader) = three(seed);
            world.inject(&fault(leader));
            world.run(secs(3.0));
            let next = led(&world).unwrap_or_else(|| panic!("seed {seed}: {:?}", fault(leader)));
            assert_ne!(index(&next), leader, "seed {seed}");
            world.inject(&Fault::Thaw(leader));
            world.inject(&Fault::Heal(leader));
            world.run(secs(3.0));
            assert_eq!(led(&world), Some(next.clone()), "seed {seed}");
            world.inject(&Fault::KillNode(index(&next)));
            world.inject(&Fault::KillNode(3 - leader - index(&next)));
            world.run(secs(2.0));
            assert_eq!(led(&world).map(|n| index(&n)), Some(leader), "seed {seed}: contends");
        }
    }
}

#[test]
fn a_store_outage_leaves_nothing_past_the_expiry_and_heals_by_itself() {
    for seed in SEEDS {
        let (mut world, _) = three(seed);
        world.inject(&Fault::StopStore);
        world.run(secs(1.01));
        assert_eq!(led(&world), None, "seed {seed}");
        world.run(secs(5.0));
        world.inject(&Fault::StartStore);
        world.run(secs(2.5));
        assert!(led(&world).is_some(), "seed {seed}");
    }
}

#[test]
fn a_stuck_leader_is_never_succeeded() {
    for seed in SEEDS {
        let (mut world, leader) = three(seed);
        world.inject(&Fault::RefuseUnlinks(leader));
        world.inject(&Fault::Stop(leader));
        world.run(secs(10.0));
        assert_eq!(led(&world).map(|n| index(&n)), Some(leader), "seed {seed}: S2");
        assert_eq!(world.exited(leader), None, "seed {seed}: S2 outranks a stop");
        world.inject(&Fault::MendDisk(leader));
        world.run(secs(3.0));
        assert_ne!(led(&world).map(|n| index(&n)), Some(leader), "seed {seed}");
        assert!(led(&world).is_some(), "seed {seed}");
    }
}

#[test]
fn an_unfit_leader_gives_way_only_to_a_fit_candidate() {
    for seed in SEEDS {
        let (mut world, leader) = three(seed);
        for node in 0..3 {
            world.set_fitness(node, &e0(), Fitness::unfit("no source"));
        }
        world.run(secs(1.0));
        assert_eq!(led(&world).map(|n| index(&n)), Some(leader), "seed {seed}");
        let fit = (leader + 1) % 3;
        world.set_fitness(fit, &e0(), Fitness::fit());
        world.run(secs(1.5));
        assert_eq!(led(&world).map(|n| index(&n)), Some(fit), "seed {seed}");
    }
}

#[test]
fn cordon_moves_the_term_and_pause_does_not_stop_it() {
    for seed in SEEDS {
        let (mut world, leader) = three(seed);
        let mark = || Value::Mark(MarkRecord::default());
        world.store.put(Key::Pause(e0()), mark(), false);
        world.store.put(Key::Cordon(e0(), NodeName::new(format!("n{leader}"))), mark(), false);
        world.run(secs(0.1));
        assert_ne!(led(&world).map(|n| index(&n)), Some(leader), "seed {seed}");
        assert!(led(&world).is_some(), "seed {seed}");
    }
}

#[test]
fn a_transfer_moves_the_term_it_names_and_no_other() {
    for seed in SEEDS {
        let (mut world, leader) = three(seed);
        let to = NodeName::new(format!("n{}", (leader + 2) % 3));
        let (_, token) = conclave_sim::store::terms(&world.store).into_iter().next().unwrap();
        let stale = conclave_core::Token(token.0 - 1);
        let transfer = |token| {
            Value::Transfer(TransferRecord { token, to: Some(to.clone()), note: String::new() })
        };
        world.store.put(Key::Transfer(e0()), transfer(stale), false);
        world.run(secs(1.0));
        assert_eq!(led(&world).map(|n| index(&n)), Some(leader), "seed {seed}: stale transfer");
        world.store.put(Key::Transfer(e0()), transfer(token), false);
        world.run(secs(0.1));
        assert_eq!(led(&world), Some(to.clone()), "seed {seed}");
        assert!(world.store.get(&Key::Transfer(e0())).is_none(), "seed {seed}");
    }
}

#[test]
fn the_preferred_node_leads_after_the_minimum_term_and_not_while_paused() {
    for seed in SEEDS {
        let mut settings = WorldSettings::new(seed, 3, 1);
        settings.prefer = Some("n2".into());
        let mut world = World::new(settings);
        world.run(secs(1.0));
        world.inject(&Fault::KillNode(2));
        world.run(secs(2.0));
        assert!(led(&world).is_some_and(|n| index(&n) != 2), "seed {seed}");
        world.store.put(Key::Pause(e0()), Value::Mark(MarkRecord::default()), false);
        world.inject(&Fault::StartNode(2));
        world.run(secs(5.0));
        assert!(led(&world).is_some_and(|n| index(&n) != 2), "seed {seed}: paused");
        world.store.delete(&Key::Pause(e0()));
        world.run(secs(1.0));
        assert_eq!(led(&world).map(|n| index(&n)), Some(2), "seed {seed}");
    }
}

#[test]
fn a_queued_foreign_competitor_leads_alone_when_we_give_way() {
    for seed in SEEDS {
        let (mut world, leader) = three(seed);
        let foreign = Key::Leader(e0(), "694d7a".into());
        world.store.put(foreign.clone(), Value::Garbage, true);
        world.run(secs(1.0));
        assert_eq!(led(&world).map(|n| index(&n)), Some(leader), "seed {seed}: it queues");
        world.inject(&Fault::Stop(leader));
        world.run(secs(3.0));
        assert_eq!(led(&world), None, "seed {seed}: the competitor leads");
        world.store.delete(&foreign);
        world.run(secs(0.5));
        assert!(led(&world).is_some(), "seed {seed}");
    }
}

#[test]
fn the_takeover_delay_is_served_after_a_crash() {
    for seed in SEEDS {
        let mut settings = WorldSettings::new(seed, 3, 1);
        for election in &mut settings.elections {
            election.takeover_delay = secs(3.0);
        }
        let mut world = World::new(settings);
        world.run(secs(1.0));
        let leader =
            index(&led(&world).unwrap_or_else(|| panic!("seed {seed}: a first term owes nothing")));
        world.inject(&Fault::KillNode(leader));
        world.run(secs(3.5));
        assert_eq!(led(&world), None, "seed {seed}: delay not served");
        world.run(secs(1.0));
        assert!(led(&world).is_some(), "seed {seed}");
    }
}

#[test]
fn a_second_live_daemon_of_the_same_name_is_refused() {
    let settings = WorldSettings::new(7, 2, 1);
    let mut world = World::new(settings);
    world.run(secs(1.0));
    // Somebody else beats under n0's name from another machine.
    world.inject(&Fault::KillNode(0));
    let record = |beat| {
        Value::Session(conclave_core::record::SessionRecord {
            nonce: "another".into(),
            ttl_ms: 1000,
            beat,
            age_ms: 0,
            boot_id: String::new(),
            addresses: vec!["elsewhere".into()],
            labels: Default::default(),
            version: String::new(),
            format: conclave_core::record::FORMAT,
        })
    };
    world.run(secs(2.0));
    world.store.put(Key::Session("n0".into()), record(0), false);
    world.inject(&Fault::StartNode(0));
    for beat in 1..10 {
        world.run(secs(0.2));
        world.store.put(Key::Session("n0".into()), record(beat), false);
    }
    world.run(secs(0.2));
    assert!(matches!(world.exited(0), Some(Exit::NameTaken { .. })), "{:?}", world.exited(0));
}
