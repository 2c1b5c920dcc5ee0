#![doc = include_str!("../README.md")]
//!
//! [`Model`] opens every layout, [`Model::chat`], [`Model::generate`], [`Model::classify`] and
//! [`Model::predict`] ask it; [`quantize`] stores one
//! matrix. Nothing of these prints, ends the process or handles a signal: [`Error`] is an enum to match, [`Stop`] a flag that
//! the caller owns. The floors below are re-exported: [`kernels`], [`model`], [`train`], [`eval`], [`base`].
//!
//! [`calibrated`] quantizes with a text. [`suite`] and [`comparison`] train, quantize, score and time variants of one network; [`language`] describes language models to
//! train. [`Progress`] listens to both.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod calibrated;
pub mod comparison;
pub mod language;
mod library;
pub mod plan;
mod progress;
mod published;
pub mod shipped;
pub mod start;
pub mod suite;
pub mod training;

pub use library::{
    Answer, Ask, Classification, Error, Example, Fitted, Matrix, Model, Sequential, Targets, cpu, quantize,
};
pub use lowbit_base::{Error as Fault, Stop};
pub use progress::Progress;
pub use shipped::SHIPPED;

pub use lowbit_base as base;
/// Layers of a [`Sequential`] and their dimensions.
pub use lowbit_model::arch::sequential as layers;

pub use lowbit_eval as eval;
pub use lowbit_kernels as kernels;
pub use lowbit_model as model;
pub use lowbit_train as train;

/// The programs of `docs/library.md` are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/library.md")]
mod programs {}
