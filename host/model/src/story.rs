//! A broken promise as a list of steps that a person can follow.

use std::fmt;

use conclave_core::Now;

use crate::machine::{Machine, Page, Work};
use crate::state::State;
use crate::step::Step;

/// The shortest way to a state that breaks a promise.
#[derive(Debug)]
pub struct Story {
    /// Which promise.
    pub promise: String,
    lines: Vec<String>,
}

impl Story {
    pub(crate) fn new(promise: &str, path: Vec<(State, Option<Step>)>) -> Self {
        let mut lines = Vec::new();
        let mut promise = promise.to_owned();
        let first = path.first().map_or(0, |(state, _)| state.tick);
        let mut known = Vec::new();
        for (state, step) in &path {
            for (n, machine) in state.machines.iter().enumerate() {
                let now = describe(state, machine, state.now(n));
                if known.len() <= n {
                    known.push(String::new());
                }
                if known[n] != now {
                    lines.push(format!("           {now}"));
                    known[n] = now;
                }
            }
            if let Some(step) = step {
                lines.push(format!("  tick {:>3} {}", state.tick - first, phrase(state, step)));
            }
            if let Some(what) = &state.broken {
                promise.clone_from(what);
            }
        }
        Story { promise, lines }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.promise)?;
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// What matters of a machine, in a line.
fn describe(state: &State, machine: &Machine, now: Now) -> String {
    let mut parts = vec![format!("[{}", machine.name)];
    match &machine.core {
        None => parts.push("no daemon".to_owned()),
        Some(core) => {
            for election in core.status(now).elections {
                let token = election.token.map(|token| format!(" {token}")).unwrap_or_default();
                parts.push(format!("{} {:?}{token}", election.election, election.phase));
            }
        }
    }
    match machine.page {
        Page::Empty => {}
        Page::Open { deadline, .. } => {
            parts.push(format!("deadline in {:?}", deadline.since(now.fast)));
        }
        Page::Expired(_) => parts.push("expired".to_owned()),
    }
    for (election, effect) in &machine.effects {
        let (lowest, _) = state.lowest(election).unwrap_or_default();
        let stands = if lowest == effect.token { "" } else { ", which no longer leads" };
        parts.push(format!("HAS {election} for {}{stands}", effect.token));
    }
    parts.join("; ") + "]"
}

fn phrase(state: &State, step: &Step) -> String {
    let request = |n: usize, op| {
        let flight = state.machines[n].flights.get(&op);
        flight.map_or_else(String::new, |flight| name(&format!("{:?}", flight.request)))
    };
    match *step {
        Step::Tick => "time passes".to_owned(),
        Step::Execute(n, op) => format!("n{n}: {} is executed and answered", request(n, op)),
        Step::Work(n) => match state.machines[n].work.front() {
            Some(Work::Place { token, .. }) => format!("n{n}: the worker places for {token}"),
            _ => format!("n{n}: the worker withdraws"),
        },
        Step::Guard(n) => format!("n{n}: the guard finds the deadline passed"),
        Step::Break(ref fault) => match fault.op {
            Some(op) => format!("n{}: {:?} {}", fault.node, fault.kind, request(fault.node, op)),
            None => format!("n{}: {:?}", fault.node, fault.kind),
        },
        Step::ExecuteLate(i) => {
            format!("late: {} is executed", name(&format!("{:?}", state.late[i])))
        }
        Step::Receive(n, op) => format!("n{n}: the reply to {} arrives late", request(n, op)),
        ref other => format!("{other:?}"),
    }
}

/// The first word of what Rust prints of a value, and the numbers that matter in it.
fn name(debug: &str) -> String {
    debug.chars().take_while(|c| c.is_alphanumeric()).collect()
}
