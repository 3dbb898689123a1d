//! The sandbox: a fresh store and instance per call, within limits, never used again.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::{Instance, InstancePre, Linker, WasmStr};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter,
    Store, StoreContextMut, Trap,
};

use crate::bindings::conclave::policy::logging::Level;
use crate::error::{BadAnswer, Cause, HostError};
use crate::limits::Limits;
use crate::ticker::Ticker;
use crate::wasi::{self, Wasi};

/// How many ticks of the epoch make a decision's deadline.
const TICKS: u32 = 5;
/// However short the deadline, the ticker must not keep a processor busy.
const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// How much of a hurry a call is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// A decision waits for it: the deadline holds.
    Decision,
    /// Loading and checking configurations, where a busy machine must not make a good policy look
    /// bad: twenty times the deadline. The fuel is the same.
    Loading,
}

impl Pace {
    fn factor(self) -> u32 {
        match self {
            Pace::Decision => 1,
            Pace::Loading => 20,
        }
    }
}

/// What a call spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Fuel; zero where the built-in default answered.
    pub fuel: u64,
    /// Wall-clock time in the sandbox, from making the instance to the lifted answer.
    pub elapsed: Duration,
    /// Bytes of all linear memories at the end, which is the most there were: they only grow.
    pub memory: usize,
    /// Bytes of log that were dropped because the call wrote more than it may.
    pub log_dropped: usize,
}

/// A line that a guest logged.
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) text: String,
}

/// What a call leaves behind besides its answer.
#[derive(Default)]
pub(crate) struct Traces {
    pub(crate) usage: Usage,
    pub(crate) lines: Vec<Line>,
}

/// The engine, what guests may import, and the limits.
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<Call>,
    limits: Limits,
    /// Those of policies that have their own.
    own: BTreeMap<String, Limits>,
    /// How far apart the epoch's ticks are.
    tick: Duration,
    gate: Gate,
    _ticker: Ticker,
}

impl Sandbox {
    pub(crate) fn new(limits: Limits, own: BTreeMap<String, Limits>) -> Result<Self, HostError> {
        let setup = |error: wasmtime::Error| HostError::Engine(error.into());
        // What is made once for all has room for the largest, and ticks for the most hurried.
        let all = || own.values().chain([&limits]);
        let widest = Limits {
            memory: all().map(|limits| limits.memory).max().unwrap_or_default(),
            table_elements: all().map(|limits| limits.table_elements).max().unwrap_or_default(),
            ..limits.clone()
        };
        let shortest = all().map(|limits| limits.deadline).min().unwrap_or_default();
        let tick = (shortest / TICKS).max(SHORTEST_TICK);
        let engine = Engine::new(&config(&widest)).map_err(setup)?;
        let mut linker = Linker::new(&engine);
        linker.allow_shadowing(true);
        add_logging(&mut linker).map_err(setup)?;
        wasi::add_to_linker(&mut linker).map_err(setup)?;
        let ticker = Ticker::start(&engine, tick).map_err(HostError::Ticker)?;
        let gate = Gate::new(limits.concurrent);
        Ok(Sandbox { engine, linker, limits, own, tick, gate, _ticker: ticker })
    }

    /// What one call of a policy may use.
    pub(crate) fn limits_of(&self, policy: &str) -> &Limits {
        self.own.get(policy).unwrap_or(&self.limits)
    }

    /// Makes a fresh instance and lets `call` use it. Blocks while too many calls run.
    pub(crate) fn run<T>(
        &self,
        pre: &InstancePre<Call>,
        limits: &Limits,
        pace: Pace,
        call: impl FnOnce(&mut Store<Call>, &Instance) -> wasmtime::Result<T>,
    ) -> (Result<T, Cause>, Traces) {
        let _pass = self.gate.pass();
        let start = Instant::now();
        let mut store = Store::new(&self.engine, Call::new(limits));
        store.limiter(|call| &mut call.meter);
        store.set_hostcall_fuel(limits.answer);
        // The running tick counts as one, so that a call gets its full time.
        let ticks = (limits.deadline * pace.factor()).div_duration_f64(self.tick).ceil();
        store.set_epoch_deadline(ticks as u64 + 1);
        let result = store
            .set_fuel(limits.fuel)
            .and_then(|()| pre.instantiate(&mut store))
            .map_err(|error| cause(error, &store, limits, pace, true))
            .and_then(|instance| {
                call(&mut store, &instance)
                    .map_err(|error| cause(error, &store, limits, pace, false))
            });
        let fuel = limits.fuel - store.get_fuel().unwrap_or_default();
        let memory = limits.memory - store.data().meter.memory;
        let (lines, log_dropped) = store.into_data().into_log();
        let usage = Usage { fuel, elapsed: start.elapsed(), memory, log_dropped };
        (result, Traces { usage, lines })
    }
}

/// Why a call failed, by type wherever there is one.
fn cause(
    error: wasmtime::Error,
    store: &Store<Call>,
    limits: &Limits,
    pace: Pace,
    starting: bool,
) -> Cause {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Cause::Fuel { budget: limits.fuel },
        Some(Trap::Interrupt) => Cause::Deadline { limit: limits.deadline * pace.factor() },
        _ if store.data().meter.denied => Cause::Memory { limit: limits.memory },
        Some(trap) => Cause::Trap(*trap),
        None => match error.downcast_ref::<wasmtime_wasi::I32Exit>() {
            Some(exit) => Cause::Exit { code: exit.0 },
            None if starting => Cause::Instantiate(error.into()),
            None if is_too_large(&error) => {
                Cause::BadAnswer(BadAnswer::TooLarge { limit: limits.answer })
            }
            None => Cause::BadAnswer(BadAnswer::Malformed(error.into())),
        },
    }
}

/// Whether the guest passed more than the limit on what the host copies. wasmtime has a private
/// type for it, whose text is all that can be seen.
fn is_too_large(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().ends_with("fuel allocated for hostcalls has been exhausted")
}

/// wasmtime's configuration: limits on everything, and nothing that differs between machines.
fn config(limits: &Limits) -> Config {
    /// What one component may be made of. Interpreted languages link a dozen modules or two.
    const INSTANCES: u32 = 64;
    const MEMORIES: u32 = 4;
    const TABLES: u32 = 32;
    /// What plugins/build gives a component as memory to start with is less.
    const KEPT_MEMORY: usize = 512 << 10;
    const KEPT_TABLE: usize = 64 << 10;

    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(limits.concurrent)
        .max_core_instances_per_component(INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .total_core_instances(limits.concurrent * INSTANCES)
        .total_memories(limits.concurrent * MEMORIES)
        .total_tables(limits.concurrent * TABLES)
        // Calls run on their caller's stack.
        .total_stacks(0)
        .max_memory_size(limits.memory)
        .table_elements(limits.table_elements)
        // A slot's used pages stay for the next call, which spares it most page faults. Kernels
        // with PAGEMAP_SCAN (6.7) know which pages were used; others clear all that is kept.
        .linear_memory_keep_resident(KEPT_MEMORY)
        .table_keep_resident(KEPT_TABLE)
        .pagemap_scan(Enabled::Auto);

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .consume_fuel(true)
        .epoch_interruption(true)
        .concurrency_support(false)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true);
    config
}

fn add_logging(linker: &mut Linker<Call>) -> wasmtime::Result<()> {
    linker.instance("conclave:policy/logging@0.1.0")?.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, Call>, (level, message): (Level, WasmStr)| {
            let message = message.to_str(&store)?.into_owned();
            store.data_mut().log(level, message);
            Ok(())
        },
    )
}

/// The host's side of one call.
pub(crate) struct Call {
    meter: Meter,
    log_left: usize,
    log_dropped: usize,
    lines: Vec<Line>,
    wasi: Option<Wasi>,
}

impl Call {
    fn new(limits: &Limits) -> Self {
        Call {
            meter: Meter {
                memory: limits.memory,
                table_elements: limits.table_elements,
                denied: false,
            },
            log_left: limits.log,
            log_dropped: 0,
            lines: Vec::new(),
            wasi: None,
        }
    }

    pub(crate) fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Wasi::new(self.log_left))
    }

    fn log(&mut self, level: Level, text: String) {
        /// What a line costs beside its text, so that empty lines are not free.
        const LINE: usize = 16;
        match self.log_left.checked_sub(text.len() + LINE) {
            Some(left) => {
                self.log_left = left;
                self.lines.push(Line { level, text });
            }
            None => self.log_dropped += text.len(),
        }
    }

    /// What it logged, what it printed, and how many bytes were dropped.
    fn into_log(mut self) -> (Vec<Line>, usize) {
        if let Some(wasi) = self.wasi.take() {
            let output = wasi.output.contents();
            for text in String::from_utf8_lossy(&output).lines() {
                self.log(Level::Info, text.to_owned());
            }
        }
        (self.lines, self.log_dropped)
    }
}

/// Counts what the memories and tables of an instance have left, all together.
struct Meter {
    memory: usize,
    table_elements: usize,
    /// Whether the guest asked for more: if it fails then, that is why.
    denied: bool,
}

impl Meter {
    fn grant(left: &mut usize, denied: &mut bool, current: usize, desired: usize) -> bool {
        match left.checked_sub(desired.saturating_sub(current)) {
            Some(rest) => *left = rest,
            None => *denied = true,
        }
        !*denied
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(Self::grant(&mut self.memory, &mut self.denied, current, desired))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(Self::grant(&mut self.table_elements, &mut self.denied, current, desired))
    }
}

/// Lets as many calls run at once as the pool has room for; the others wait, and go in the order in
/// which they came.
struct Gate {
    places: Mutex<Places>,
    freed: Condvar,
}

struct Places {
    free: u32,
    /// The number of the next call to come, and of the next to go in.
    next: u64,
    turn: u64,
}

impl Gate {
    fn new(free: u32) -> Self {
        Gate { places: Mutex::new(Places { free, next: 0, turn: 0 }), freed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self) -> Pass<'_> {
        let mut places = self.lock();
        let number = places.next;
        places.next += 1;
        while places.free == 0 || places.turn != number {
            places = self.freed.wait(places).unwrap_or_else(PoisonError::into_inner);
        }
        places.free -= 1;
        places.turn += 1;
        self.wake(&places);
        Pass(self)
    }

    /// Nobody is woken where nobody waits: that would be a system call in every call.
    fn wake(&self, places: &Places) {
        if places.free > 0 && places.turn != places.next {
            self.freed.notify_all();
        }
    }
}

struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut places = self.0.lock();
        places.free += 1;
        self.0.wake(&places);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn calls_go_in_as_they_came() {
        let gate = Gate::new(1);
        let (went_in, order) = mpsc::channel();
        let only = gate.pass();
        thread::scope(|scope| {
            for number in 1..=20 {
                let (gate, went_in) = (&gate, went_in.clone());
                scope.spawn(move || {
                    let _pass = gate.pass();
                    went_in.send(number).expect("the test listens");
                });
                // The next comes once this one waits.
                while gate.lock().next != number + 1 {
                    thread::yield_now();
                }
            }
            drop(only);
        });
        drop(went_in);
        let order: Vec<u64> = order.into_iter().collect();
        assert_eq!(order, (1..=20).collect::<Vec<_>>());
    }
}
