//! Low-bit neural networks: train, quantize, run, measure, compare.
//!
//! This crate composes the floors below: [`lowbit_kernels`], [`lowbit_model`], [`lowbit_train`] and [`lowbit_eval`],
//! which it re-exports; it holds suites, the comparison, and the command line.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod arguments;
pub mod commands;
pub mod comparison;
pub mod failure;
pub mod host;
pub mod kernel_bench;
pub mod language;
pub mod model_bench;
pub mod output;
pub mod run;
pub mod signals;
pub mod suite;
pub mod training;

pub use lowbit_eval as eval;
pub use lowbit_kernels as kernels;
pub use lowbit_model as model;
pub use lowbit_train as train;
