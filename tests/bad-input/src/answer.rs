//! Policies' answers of any content, down to pointers that lead nowhere.
//!
//! A component here is a puppet: what it answers is the memory that its configuration spells out
//! in hexadecimal, whichever function is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use conclave_core::record::Fitness;
use conclave_core::view::{CandidateView, ManifestView, NodeView, Placement, Role, View};
use conclave_policy::{Answer, Limits, Policy, PolicyError, PolicyHost};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the answer's memory begins in the puppet's; its first word points to the answer.
pub const BASE: u32 = 1024;

/// Longer answers are what the limits are for, which the policy host's own tests try.
const MOST_BYTES: usize = 16 * 1024;

const NODES: [&str; 3] = ["a", "b", "c"];

/// Takes bytes for the memory that every answer is read from.
pub fn run(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MOST_BYTES)];
    let config: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = puppet();
    let election = "masters".into();
    ranked(policy, &config);
    for role in [Role::Leader, Role::Standby] {
        placed(policy, role, &config);
    }
    if let Some(facts) = answered(policy.describe(&election, &node(), &manifests(), &config)) {
        assert!(facts.len() <= 64, "{} facts", facts.len());
        facts.iter().for_each(|(name, value)| assert!(plain(name) && value.len() <= 4096));
    }
    if let Some(problems) = answered(policy.validate(&election, &config)) {
        assert!(problems.iter().all(|problem| plain(&problem.path) && plain(&problem.message)));
    }
    // Whatever one said, the next one is read for itself.
    let honest = policy.rank(&view(), &hex(&forgets_everybody())).expect("an empty ranking");
    assert_eq!(honest.value.forgotten.len(), NODES.len());
}

fn ranked(policy: &Policy, config: &str) {
    let Some(ranks) = answered(policy.rank(&view(), config)) else { return };
    let (order, excluded) = (&ranks.ranking.order, &ranks.ranking.excluded);
    let mut seen = BTreeSet::new();
    let named = order.iter().chain(excluded).map(|ranked| ranked.node.as_str());
    for name in named.chain(ranks.forgotten.iter().map(|node| node.as_str())) {
        assert!(NODES.contains(&name) && seen.insert(name), "{name} is unknown or there twice");
    }
    assert_eq!(seen.len(), NODES.len());
    assert!(order.iter().chain(excluded).all(|ranked| plain(&ranked.reason)));
}

fn placed(policy: &Policy, role: Role, config: &str) {
    let asked = policy.place(&view(), &node(), role, &manifests(), config);
    let Some(placements) = answered(asked) else { return };
    let names: BTreeSet<&str> = placements.iter().map(|p| p.manifest.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["api.yaml", "scheduler.yaml"]));
    assert_eq!(placements.len(), names.len());
    for Placement { manifest, run, variables } in &placements {
        let exclusive = manifest == "scheduler.yaml";
        assert!(!(exclusive && *run && role == Role::Standby), "{manifest} runs on a standby");
        assert!(variables.keys().all(|name| !name.starts_with("CONCLAVE_") && plain(name)));
    }
}

fn answered<T>(answer: Result<Answer<T>, PolicyError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer.value),
        Err(error) => {
            let text = crate::told(&error);
            assert!(text.contains("policy `puppet` (") && text.len() < 4_000, "{text}");
            None
        }
    }
}

fn plain(text: &str) -> bool {
    text.len() <= 4_096 && !text.chars().any(char::is_control)
}

/// The bytes of an answer that is an empty list, or two.
fn forgets_everybody() -> Vec<u8> {
    [BASE + 16, 0, 0, 0, 0, 0, 0, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compiled once. Fuel decides, and not how busy the machine is.
fn puppet() -> &'static Policy {
    static PUPPET: OnceLock<(PolicyHost, Policy)> = OnceLock::new();
    let (_, policy) = PUPPET.get_or_init(|| {
        let limits = Limits { deadline: Duration::from_secs(60), ..Limits::default() };
        let host = PolicyHost::new(limits, None).expect("a sandbox");
        let policy = host.load("puppet", &component()).expect("the puppet");
        (host, policy)
    });
    policy
}

/// The puppet's component.
pub fn component() -> Vec<u8> {
    let mut module = wat::parse_str(MODULE).expect("the puppet's module");
    let mut resolve = Resolve::default();
    let interface = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    let (package, _) = resolve.push_dir(interface).expect("the policy interface");
    let world = resolve.select_world(&[package], Some("policy")).expect("its world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("a module that takes it");
    ComponentEncoder::default()
        .module(&module)
        .expect("a module with its interface")
        .validate(true)
        .encode()
        .expect("a component")
}

/// Every function copies its configuration, decoded, to [`BASE`] and answers with what the first
/// word there points to. Where the configuration lies among the arguments is laid down by the
/// canonical ABI: too many arguments are passed in memory, as a record of them all.
const MODULE: &str = r#"(module
    (memory (export "memory") 32)
    (global $free (mut i32) (i32.const 0x100000))

    (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
        (local $at i32)
        (local.set $at (i32.and
            (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
            (i32.sub (i32.const 0) (local.get $align))))
        (global.set $free (i32.add (local.get $at) (local.get $size)))
        (local.get $at))

    (func $nibble (param $at i32) (result i32)
        (local $c i32)
        (local.set $c (i32.load8_u (local.get $at)))
        (i32.add
            (i32.and (local.get $c) (i32.const 15))
            (i32.mul (i32.shr_u (local.get $c) (i32.const 6)) (i32.const 9))))

    (func $answer (param $from i32) (param $length i32) (result i32)
        (local $to i32) (local $end i32)
        (local.set $to (i32.const 1024))
        (local.set $end (i32.add (local.get $from) (local.get $length)))
        (block $done
            (loop $next
                (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
                (i32.store8 (local.get $to) (i32.or
                    (i32.shl (call $nibble (local.get $from)) (i32.const 4))
                    (call $nibble (i32.add (local.get $from) (i32.const 1)))))
                (local.set $from (i32.add (local.get $from) (i32.const 2)))
                (local.set $to (i32.add (local.get $to) (i32.const 1)))
                (br $next)))
        (i32.load (i32.const 1024)))

    (func (export "conclave:policy/about@0.1.0#introduce") (result i32)
        (i32.const 0))
    (func (export "conclave:policy/about@0.1.0#validate")
        (param $config i32) (param $length i32) (result i32)
        (call $answer (local.get $config) (local.get $length)))
    (func (export "conclave:policy/facts@0.1.0#describe")
        (param i32 i32 i32 i32 i32 i32 i32 i32) (param $config i32) (param $length i32) (result i32)
        (call $answer (local.get $config) (local.get $length)))
    (func (export "conclave:policy/leadership@0.1.0#rank") (param $all i32) (result i32)
        (call $answer
            (i32.load offset=104 (local.get $all)) (i32.load offset=108 (local.get $all))))
    (func (export "conclave:policy/placement@0.1.0#place") (param $all i32) (result i32)
        (call $answer
            (i32.load offset=140 (local.get $all)) (i32.load offset=144 (local.get $all))))
)"#;

fn view() -> View {
    let candidate = |name: &&str| CandidateView {
        name: (*name).into(),
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        fitness: Fitness::fit(),
        cordoned: false,
        holds: Vec::new(),
        standing_ms: 60_000,
    };
    View {
        election: "masters".into(),
        me: "a".into(),
        candidates: NODES.iter().map(candidate).collect(),
        incumbent: None,
        previous: None,
        transfer: None,
        paused: false,
    }
}

fn node() -> NodeView {
    NodeView { name: "a".into(), labels: BTreeMap::new(), variables: BTreeMap::new() }
}

fn manifests() -> [ManifestView; 2] {
    [("api.yaml", false), ("scheduler.yaml", true)].map(|(name, exclusive)| ManifestView {
        name: name.into(),
        exclusive,
        content: String::new(),
    })
}
