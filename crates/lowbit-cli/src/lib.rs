#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod arguments;
mod cluster;
pub mod commands;
pub mod failure;
mod progress;
pub mod run;
pub mod signals;
pub mod terminal;
