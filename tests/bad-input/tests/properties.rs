//! Property tests: every way in is fed what its corpus becomes when it is cut, patched and
//! spliced, and what has no form at all.
//!
//! The seed is printed, and `CONCLAVE_TEST_SEED` runs it again. An input that fails is made as
//! small as proptest can make it, and saved; it belongs into `fuzz/corpus`, which `corpora.rs` replays.

use conclave_bad_input::watchdog::Feeder;
use conclave_bad_input::{TARGETS, corpus};
use conclave_tests::seed::Seed;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

/// What parsers trip over.
const SPLINTERS: [&[u8]; 24] = [
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xef\xbb\xbf",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\n",
    b"\r",
    b"\t",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"!t ",
    b"%",
    b"${",
    b"18446744073709551616",
    b"-1",
    b"1e999",
    b"null",
];

/// One change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Set(u16, u8),
    Insert(u16, Vec<u8>),
    Remove(u16, u16),
    Repeat(u16, u16),
    Cut(u16),
}

fn edit() -> impl Strategy<Value = Edit> {
    let splinter =
        prop_oneof![select(&SPLINTERS[..]).prop_map(<[u8]>::to_vec), vec(any::<u8>(), 1..9),];
    prop_oneof![
        4 => (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        4 => (any::<u16>(), splinter).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (any::<u16>(), 1..200_u16).prop_map(|(at, length)| Edit::Remove(at, length)),
        2 => (any::<u16>(), 1..200_u16).prop_map(|(at, length)| Edit::Repeat(at, length)),
        1 => any::<u16>().prop_map(Edit::Cut),
    ]
}

impl Edit {
    fn make(self, input: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) % (input.len() + 1);
        match self {
            Edit::Set(at, byte) => {
                let at = place(at);
                if let Some(here) = input.get_mut(at) {
                    *here = byte;
                }
            }
            Edit::Insert(at, bytes) => {
                let at = place(at);
                input.splice(at..at, bytes);
            }
            Edit::Remove(at, length) => {
                let (from, to) = (place(at), (place(at) + usize::from(length)).min(input.len()));
                input.drain(from..to);
            }
            Edit::Repeat(at, length) => {
                let (from, to) = (place(at), (place(at) + usize::from(length)).min(input.len()));
                let part = input[from..to].to_vec();
                input.splice(to..to, part);
            }
            Edit::Cut(at) => input.truncate(place(at)),
        }
    }
}

/// Feeds a target so many inputs.
fn property(name: &'static str, cases: u32) {
    let target = *TARGETS.iter().find(|target| target.name == name).expect("a target");
    let seeds: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, input)| input).collect();
    let edited = (select(seeds), vec(edit(), 0..8)).prop_map(|(mut input, edits)| {
        edits.into_iter().for_each(|edit| edit.make(&mut input));
        input
    });
    let inputs = prop_oneof![4 => edited, 1 => vec(any::<u8>(), 0..800)];
    let feeder = Feeder::new(target);
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(Seed::announce(name).number()),
        failure_persistence: None,
        ..Config::default()
    };
    let fed = TestRunner::new(config)
        .run(&inputs, |input| feeder.feed(&input).map_err(TestCaseError::fail));
    match fed {
        Ok(()) => {}
        Err(TestError::Fail(what, input)) => panic!("{name}: {what}\n{}", feeder.save(&input)),
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
}

#[test]
fn policies_answers() {
    property("answer", 400);
}

#[test]
fn case_files() {
    property("cases", 1_000);
}

#[test]
fn components() {
    property("component", 60);
}

#[test]
fn configurations() {
    property("config", 1_000);
}

#[test]
fn the_election_core() {
    property("core", 10_000);
}

#[test]
fn database_files() {
    property("database", 150);
}

#[test]
fn command_lines() {
    property("flags", 1_000);
}

#[test]
fn manifests() {
    property("manifest", 2_000);
}

#[test]
fn state_files() {
    property("state", 500);
}

#[test]
fn values_in_the_store() {
    property("values", 500);
}
