#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod client;
mod pull;

pub use client::Hub;
pub use lowbit_base::{Error, Kind};
pub use pull::{Fetched, FetchedFile, Observer, Selection};
