#![doc = include_str!("../README.md")]
//!
//! [`Model`] opens every layout, [`Model::chat`], [`Model::generate`] and [`Model::classify`] ask it; [`quantize`] stores one
//! matrix. Nothing of these prints, ends the process or handles a signal: [`Error`] is an enum to match, [`Stop`] a flag that
//! the caller owns. The floors below are re-exported: [`kernels`], [`model`], [`train`], [`eval`], [`base`].
//!
//! The other modules are the command line: suites, the comparison, commands and what they print.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod arguments;
pub mod commands;
pub mod comparison;
pub mod failure;
pub mod language;
mod library;
pub mod output;
pub mod run;
mod shipped;
pub mod signals;
pub mod start;
pub mod suite;
pub mod training;

pub use library::{Answer, Ask, Classification, Error, Matrix, Model, quantize};
pub use lowbit_base::{Error as Fault, Stop};
pub use shipped::SHIPPED;

pub use lowbit_base as base;
pub use lowbit_eval as eval;
pub use lowbit_kernels as kernels;
pub use lowbit_model as model;
pub use lowbit_train as train;

/// The programs of `docs/library.md` are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/library.md")]
mod programs {}
