//! Stories as tables: each line is one change, and the violation that it must or must not be.

use super::*;
use crate::chaos::fault::{Fault, Kind, Target};
use crate::chaos::history::Term;
use crate::chaos::record::{Helpless, Strike};
use Change::{Created, MovedIn, Vanished};

const BOTH: [&str; 2] = ["s", "c"];
const TTL: Duration = Duration::from_secs(1);

/// A change: when in milliseconds, of which node and file, and the term that the file names.
type Line = (u64, &'static str, &'static str, Change, u64);

/// A time in which a node was helpless.
type Down = (&'static str, Cause, u64, Option<u64>);

fn story(zero: Instant, lines: &[Line]) -> Timeline {
    let sightings = lines.iter().map(|(ms, node, file, change, term)| Sighting {
        at: zero + Duration::from_millis(*ms),
        node: (*node).to_owned(),
        file: (*file).to_owned(),
        change: *change,
        term: (*term > 0).then_some(*term),
    });
    Timeline::new(zero, sightings.collect(), Vec::new())
}

fn record(zero: Instant, downs: &[Down]) -> Record {
    let at = |ms: u64| zero + Duration::from_millis(ms);
    let helpless = downs.iter().map(|(node, cause, from, to)| Helpless {
        node: (*node).to_owned(),
        cause: *cause,
        from: at(*from),
        to: to.map(at),
    });
    Record { helpless: helpless.collect(), ..Record::default() }
}

/// The rules that a story breaks, in order, once each.
fn broken(lines: &[Line], downs: &[Down]) -> Vec<Rule> {
    let zero = Instant::now();
    let (story, record) = (story(zero, lines), record(zero, downs));
    let evidence = Evidence { story: &story, record: &record, files: &BOTH, ttl: TTL };
    let mut rules: Vec<Rule> =
        evidence.violations().into_iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

/// Both files come or go, a millisecond apart.
fn both(ms: u64, node: &'static str, change: Change, term: u64) -> [Line; 2] {
    [(ms, node, "s", change, term), (ms + 1, node, "c", change, term)]
}

fn lines(parts: &[&[Line]]) -> Vec<Line> {
    parts.concat()
}

/// `a` leads, goes, and `b` leads.
fn handover() -> Vec<Line> {
    lines(&[&both(0, "a", MovedIn, 5), &both(1000, "a", Vanished, 0), &both(1010, "b", MovedIn, 8)])
}

/// `a` leads and stays in place, `b` leads at 2000, `a` goes at this moment.
fn orphan(gone: u64) -> Vec<Line> {
    let mut all = lines(&[
        &both(0, "a", MovedIn, 5),
        &both(2000, "b", MovedIn, 8),
        &both(gone, "a", Vanished, 0),
    ]);
    all.sort_by_key(|line| line.0);
    all
}

#[test]
fn a_clean_story_breaks_nothing() {
    assert_eq!(broken(&handover(), &[]), []);
    assert_eq!(broken(&[], &[]), []);
}

#[test]
fn two_holders_are_excused_only_by_a_helpless_one() {
    for (gone, downs, expected) in [
        // Nothing was done to anybody.
        (2100, &[][..], &[Rule::OneHolder][..]),
        // Killed before the other appeared: an orphan until it is gone, whenever that is.
        (2100, &[("a", Cause::Killed, 900, Some(2050))], &[]),
        (9000, &[("a", Cause::Killed, 900, Some(8900))], &[]),
        // Killed after the other had appeared.
        (2100, &[("a", Cause::Killed, 2050, Some(2090))], &[Rule::OneHolder]),
        // The other one was helpless, not this one.
        (2100, &[("b", Cause::Killed, 900, Some(2050))], &[Rule::OneHolder]),
        // Frozen, and gone as soon as it woke.
        (2100, &[("a", Cause::Frozen, 900, Some(2050))], &[]),
        // Frozen, but awake long before the other appeared.
        (2100, &[("a", Cause::Frozen, 900, Some(1500))], &[Rule::OneHolder]),
        // A disk that could not be written to.
        (2100, &[("a", Cause::Disk, 900, Some(2050))], &[]),
    ] {
        assert_eq!(broken(&orphan(gone), downs), expected, "{gone} {downs:?}");
    }
}

#[test]
fn what_a_helpless_node_had_not_placed_before_is_no_orphan() {
    let late = lines(&[
        &both(0, "b", MovedIn, 5),
        &both(2000, "a", MovedIn, 8),
        &both(2010, "a", Vanished, 0),
    ]);
    assert_eq!(broken(&late, &[("a", Cause::Frozen, 900, Some(2005))]), [Rule::OneHolder]);
}

#[test]
fn an_orphan_goes_first() {
    let first = |ms, file, change| (ms, "a", file, change, 0);
    let down = [("a", Cause::Killed, 900, Some(2000))];
    let begun = both(0, "a", MovedIn, 5);
    for (then, expected) in [
        // Both go, and something comes.
        (
            &[first(2100, "s", Vanished), first(2101, "c", Vanished), first(2200, "x", MovedIn)][..],
            &[][..],
        ),
        // Something comes while one is still there: another file, or the orphan itself again.
        (
            &[first(2100, "s", Vanished), first(2101, "x", MovedIn), first(2102, "c", Vanished)],
            &[Rule::OrphanFirst],
        ),
        (
            &[first(2100, "s", MovedIn), first(2101, "s", Vanished), first(2102, "c", Vanished)],
            &[Rule::OrphanFirst],
        ),
        // It is never taken away.
        (&[first(2100, "s", Vanished)], &[Rule::Together, Rule::OrphanFirst]),
    ] {
        let mut all = lines(&[&begun, then]);
        all.push((9000, "b", "x", MovedIn, 0));
        let mut rules = broken(&all, &down);
        rules.sort();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(rules, expected, "{then:?}");
    }
}

#[test]
fn tokens_only_grow_and_are_of_one_term() {
    let older = lines(&[
        &both(0, "a", MovedIn, 9),
        &both(1000, "a", Vanished, 0),
        &both(1010, "b", MovedIn, 8),
    ]);
    assert_eq!(broken(&older, &[]), [Rule::Tokens]);
    let mixed = [(0, "a", "s", MovedIn, 5), (1, "a", "c", MovedIn, 8)];
    assert_eq!(broken(&mixed, &[]), [Rule::Tokens]);
    // What was gone before it could be read names no term.
    let unread = [(0, "a", "s", MovedIn, 5), (1, "a", "c", MovedIn, 0)];
    assert_eq!(broken(&unread, &[]), []);
}

#[test]
fn a_part_of_the_manifests_is_a_passing_state() {
    let part = |until| {
        vec![
            (0, "a", "s", MovedIn, 5),
            (until, "a", "c", MovedIn, 5),
            (until + 5, "b", "x", MovedIn, 0),
        ]
    };
    let ttl = TTL.as_millis() as u64;
    assert_eq!(broken(&part(ttl), &[]), []);
    assert_eq!(broken(&part(ttl + 1), &[]), [Rule::Together]);
    let down = ("a", Cause::Frozen, 10, Some(ttl));
    assert_eq!(broken(&part(ttl + 1), &[down]), []);
    let left = [(0, "a", "s", MovedIn, 5), (ttl + 1, "b", "x", MovedIn, 0)];
    assert_eq!(broken(&left, &[]), [Rule::Together], "a part to the very end");
}

#[test]
fn a_bad_disk_excuses_a_part() {
    let zero = Instant::now();
    let ttl = TTL.as_millis() as u64;
    let lines = [(0, "a", "s", MovedIn, 5), (ttl + 1, "a", "s", Vanished, 0)];
    let story = story(zero, &lines);
    let strike = |at: &str| Strike {
        fault: Fault {
            kind: Kind::DiskHung,
            target: Target::Holder,
            after: Duration::ZERO,
            chance: 0,
        },
        step: 0,
        at: at.to_owned(),
        holder: true,
        struck: zero + Duration::from_millis(5),
        took: zero + Duration::from_millis(5),
        healed: Some(zero + Duration::from_millis(500)),
    };
    for (at, count) in [("a", 0), ("b", 1)] {
        let record = Record { strikes: vec![strike(at)], ..Record::default() };
        let evidence = Evidence { story: &story, record: &record, files: &BOTH, ttl: TTL };
        assert_eq!(evidence.violations().len(), count, "{at}");
    }
}

#[test]
fn half_a_file_is_seen() {
    assert_eq!(broken(&both(0, "a", Created, 5), &[]), [Rule::Whole]);
}

#[test]
fn polling_is_believed_too() {
    let zero = Instant::now();
    let at = zero + Duration::from_millis(2000);
    let nodes = ["a".to_owned(), "b".to_owned()];
    let overlap = Overlap { at, file: "s".to_owned(), nodes };
    let sightings = story(zero, &both(0, "a", MovedIn, 5)).all_sightings().to_vec();
    let story = Timeline::new(zero, sightings, vec![overlap]);
    for (downs, count) in [(&[][..], 1), (&[("a", Cause::Killed, 900, None)], 0)] {
        let record = record(zero, downs);
        let evidence = Evidence { story: &story, record: &record, files: &BOTH, ttl: TTL };
        assert_eq!(evidence.violations().len(), count, "{downs:?}");
    }
}

#[test]
fn the_store_is_asked_whose_term_it_was() {
    let zero = Instant::now();
    let (story, record) = (story(zero, &handover()), Record::default());
    let evidence = Evidence { story: &story, record: &record, files: &BOTH, ttl: TTL };
    let term = |token: u64, holder: &str, ended, entered| {
        (token, Term { token, holder: holder.to_owned(), ended, entered })
    };
    for (terms, rules) in [
        (vec![term(5, "a", Some(8), true), term(8, "b", None, false)], &[][..]),
        // Nobody's term, and somebody else's.
        (vec![term(8, "b", None, false)], &[Rule::Tokens, Rule::Tokens]),
        (
            vec![term(5, "a", Some(7), true), term(8, "a", None, false)],
            &[Rule::Tokens, Rule::Tokens],
        ),
        // Two at once.
        (vec![term(5, "a", Some(9), true), term(8, "b", None, false)], &[Rule::History]),
        (vec![term(5, "a", None, false), term(8, "b", None, false)], &[Rule::History]),
        // An end that nobody wrote down.
        (vec![term(5, "a", Some(8), false), term(8, "b", None, false)], &[Rule::History]),
    ] {
        let history = History { terms: terms.into_iter().collect(), strange: Vec::new() };
        let found: Vec<Rule> =
            evidence.against(&history).into_iter().map(|violation| violation.rule).collect();
        assert_eq!(found, rules, "{history}");
    }
}
