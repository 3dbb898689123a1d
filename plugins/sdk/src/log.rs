//! Writing to the daemon's log. Natively, as in unit tests, messages are discarded.

/// For the policy's author.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Worth knowing.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Something that an operator should look at.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

use crate::bindings::conclave::policy::logging::Level;

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: &str) {
    crate::bindings::conclave::policy::logging::log(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
fn write(_: Level, _: &str) {}
