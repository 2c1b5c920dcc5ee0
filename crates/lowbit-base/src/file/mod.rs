//! Files: small ones read with a limit, and results that are either complete or as they were.
//!
//! * [`read`] and [`open`] take regular files only: nothing that blocks, never ends, or has effects when opened.
//! * [`Replacement`] and [`replace`] write one file under a temporary name that nobody can have prepared, make it durable, and
//!   rename it. [`Set`] does so for the files of a folder that belong together.
//! * [`Lock`] keeps other processes out of a folder.
//!
//! What a killed process left is removed by the next that writes into the folder; a process that ends by a signal calls
//! [`abandon`].

/// Largest description that a person writes (a task, a suite), bytes.
pub const DESCRIPTION: u64 = 1 << 20;

mod disk;
mod folder;
mod live;
mod lock;
mod open;
mod replace;
mod set;

#[cfg(any(test, feature = "faults"))]
pub use disk::faults;
pub use folder::make;
pub use live::abandon;
pub use lock::Lock;
pub use open::{append, open, read, read_text};
pub use replace::{Replacement, replace};
pub use set::{NewFile, Set, settle};
