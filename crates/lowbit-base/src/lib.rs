#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod both;
pub mod error;
pub mod file;
pub mod memory;
pub mod name;
pub mod panics;
mod random;
mod stop;
pub mod testing;
pub mod text;

pub use both::both;
pub use error::{Error, Kind};
pub use name::{alternatives, did_you_mean, nearest};
pub use random::{SplitMix64, mix};
pub use stop::Stop;
pub use text::{escaped, hex};
