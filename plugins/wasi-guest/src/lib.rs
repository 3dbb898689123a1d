//! A policy that looks around in WASI and reports what it found as the reasons of its ranking.
//!
//! It stands for guests whose language needs WASI, and exports `leadership` alone, without the
//! SDK, as such a guest may. The policy host's tests expect it to find nothing.

#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

#[allow(missing_docs, unreachable_pub, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "conclave:wasi-guest/guest",
        generate_all,
        inline: r#"
            package conclave:wasi-guest;

            world guest {
                import wasi:cli/environment@0.2.0;
                import wasi:cli/exit@0.2.0;
                import wasi:cli/stdout@0.2.0;
                import wasi:clocks/monotonic-clock@0.2.0;
                import wasi:clocks/wall-clock@0.2.0;
                import wasi:filesystem/preopens@0.2.0;
                import wasi:random/random@0.2.0;
                export conclave:policy/leadership@0.1.0;
            }

            package wasi:cli@0.2.0 {
                interface environment {
                    get-environment: func() -> list<tuple<string, string>>;
                    get-arguments: func() -> list<string>;
                }
                interface exit {
                    exit: func(status: result);
                }
                interface stdout {
                    use wasi:io/streams@0.2.0.{output-stream};
                    get-stdout: func() -> output-stream;
                }
            }

            package wasi:io@0.2.0 {
                interface error {
                    resource error;
                }
                interface poll {
                    resource pollable {
                        block: func();
                    }
                }
                interface streams {
                    use error.{error};
                    variant stream-error { last-operation-failed(error), closed }
                    resource output-stream {
                        blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
                    }
                }
            }

            package wasi:clocks@0.2.0 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.0.{pollable};
                    now: func() -> u64;
                    subscribe-duration: func(when: u64) -> pollable;
                }
                interface wall-clock {
                    record datetime { seconds: u64, nanoseconds: u32 }
                    now: func() -> datetime;
                }
            }

            package wasi:filesystem@0.2.0 {
                interface types {
                    resource descriptor;
                }
                interface preopens {
                    use types.{descriptor};
                    get-directories: func() -> list<tuple<descriptor, string>>;
                }
            }

            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                    get-random-u64: func() -> u64;
                }
            }
        "#,
    });
}

use bindings::conclave::policy::types::{Refusal, View};
use bindings::exports::conclave::policy::leadership::{Guest, Ranked, Ranking};
use bindings::wasi::cli::{environment, exit, stdout};
use bindings::wasi::clocks::{monotonic_clock, wall_clock};
use bindings::wasi::filesystem::preopens;
use bindings::wasi::random::random;

struct WasiGuest;

impl Guest for WasiGuest {
    fn rank(view: View, config: String) -> Result<Ranking, Refusal> {
        match config.as_str() {
            "exit" => exit::exit(Err(())),
            "greedy" => drop(random::get_random_bytes(1 << 30)),
            "hoard" => hoard(),
            "chatty" => chat(),
            _ => {}
        }
        let reason = look_around();
        let ranked = |node| Ranked { node, reason: reason.clone() };
        let order = view.candidates.into_iter().map(|candidate| ranked(candidate.name)).collect();
        Ok(Ranking { order, excluded: Vec::new() })
    }
}

fn look_around() -> String {
    const HOUR: u64 = 3_600_000_000_000;
    let before = monotonic_clock::now();
    monotonic_clock::subscribe_duration(HOUR).block();
    let waited = monotonic_clock::now() - before;
    let printed = stdout::get_stdout().blocking_write_and_flush(b"hello\n").is_ok();
    format!(
        "waited {waited}, clock {}, environment {}, arguments {}, directories {}, printed {printed}, random {:x}",
        wall_clock::now().seconds,
        environment::get_environment().len(),
        environment::get_arguments().len(),
        preopens::get_directories().len(),
        random::get_random_u64(),
    )
}

/// Keeps asking for resources that the host has to remember.
fn hoard() {
    let mut kept = Vec::new();
    loop {
        kept.push(monotonic_clock::subscribe_duration(1));
    }
}

/// Prints more than the log takes.
fn chat() {
    let out = stdout::get_stdout();
    while out.blocking_write_and_flush(&[b'x'; 4_096]).is_ok() {}
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
const _: () = {
    bindings::export!(WasiGuest with_types_in bindings);
};
