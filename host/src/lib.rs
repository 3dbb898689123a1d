//! The daemon `conclave`: everything but the thin `main`, so that it can be tested.

pub mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
mod decisions;
pub mod demo;
mod exec;
mod http;
pub mod podmaster;
mod reading;
mod simulate;
mod terminal;
