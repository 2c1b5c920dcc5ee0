#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod api;
mod app;
mod body;
mod calls;
mod connection;
mod grammar;
mod guard;
mod key;
mod metrics;
mod parameters;
mod refusal;
mod rows;
mod seats;
mod served;
mod server;
mod settings;
mod stream;
mod tokens;
mod worker;

pub use key::Key;
pub use lowbit_base::{Error, Kind};
pub use served::{EngineOptions, Served};
pub use server::Server;
pub use settings::{Limits, Settings};
