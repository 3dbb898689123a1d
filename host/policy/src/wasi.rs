//! The empty WASI for guests whose language needs one to start.
//!
//! No files, no network, no environment and no arguments; input is at its end, output goes to
//! the policy's log; random numbers are the same in every call; and the clock stands still, so
//! that waiting ends at once. (Were it to wait, a guest could hold the host's thread for as long
//! as it likes: the epoch interrupts guests, not the host's functions.)

use std::sync::OnceLock;
use std::time::Duration;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
};

use crate::digest::Digest;
use crate::sandbox::Call;

/// The interfaces that a policy may import, without versions.
const ALLOWED: [&str; 27] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    // Some language runtimes import sockets although the policy opens none; every use fails.
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// How many bytes a guest may ask for at once, for the host fills them outside of the fuel.
const RANDOM_BYTES: u64 = 64 << 10;
/// How many WASI resources a guest may hold.
const RESOURCES: usize = 1_000;

/// Whether an import names an interface of the empty WASI, in a version of 0.2.
pub(crate) fn is_allowed(import: &str) -> bool {
    import.split_once('@').is_some_and(|(interface, version)| {
        ALLOWED.contains(&interface) && version.starts_with("0.2.")
    })
}

/// One call's WASI, made when the guest first uses it.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    /// What the guest printed.
    pub(crate) output: MemoryOutputPipe,
}

impl Wasi {
    /// With an output of at most `log` bytes.
    pub(crate) fn new(log: usize) -> Self {
        let output = MemoryOutputPipe::new(log);
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        let ctx = WasiCtxBuilder::new()
            .stdout(output.clone())
            .stderr(output.clone())
            .secure_random(seeded())
            .insecure_random(seeded())
            .insecure_random_seed(0)
            .max_random_size(RANDOM_BYTES)
            .wall_clock(Frozen)
            .monotonic_clock(Frozen)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Wasi { ctx, table, output }
    }
}

fn seeded() -> Deterministic {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        (0..32_u8)
            .flat_map(|block| *Digest::of(&[b"conclave".as_slice(), &[block]].concat()).bytes())
            .collect()
    });
    Deterministic::new(bytes.clone())
}

impl WasiView for Call {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

/// Defines the empty WASI. The linker must allow shadowing, for the clock replaces that of
/// wasmtime's WASI, on which a guest could wait.
pub(crate) fn add_to_linker(linker: &mut Linker<Call>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    monotonic_clock::add_to_linker::<Call, Clock>(linker, |call| Clock(&mut call.wasi().table))
}

/// The clock that stands still.
struct Frozen;

impl HostWallClock for Frozen {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Frozen {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}

struct Clock<'a>(&'a mut ResourceTable);

impl HasData for Clock<'static> {
    type Data<'a> = Clock<'a>;
}

impl monotonic_clock::Host for Clock<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::now(&Frozen))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::resolution(&Frozen))
    }

    fn subscribe_instant(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        at_once(self.0)
    }

    fn subscribe_duration(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        at_once(self.0)
    }
}

fn at_once(table: &mut ResourceTable) -> wasmtime::Result<Resource<DynPollable>> {
    let ready = table.push(Ready)?;
    subscribe(table, ready)
}

struct Ready;

#[wasmtime_wasi::async_trait]
impl Pollable for Ready {
    async fn ready(&mut self) {}
}
