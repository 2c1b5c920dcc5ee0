//! The extension module of the Python package `lowbit`: classes over those of the crate `lowbit`, arrays of NumPy, exceptions.
//!
//! Calls give the interpreter up while they compute, and the main thread looks for signals meanwhile: Ctrl-C sets the `Stop` of the
//! work. What is shorter in Python (tables, reports, arguments) is Python, in `python/lowbit`.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod answer;
mod array;
mod compare;
mod error;
mod fitted;
mod matrix;
mod model;
mod progress;
mod train;
mod work;

use pyo3::prelude::*;

/// What `lowbit` consists of beside its Python files.
#[pymodule]
mod _lowbit {
    #[pymodule_export]
    use super::answer::Answer;
    #[pymodule_export]
    use super::compare::{compare, probe};
    #[pymodule_export]
    use super::fitted::{Fitted, fit};
    #[pymodule_export]
    use super::matrix::{Packed, formats, quantize};
    #[pymodule_export]
    use super::model::{Classification, Model, recipes};
    #[pymodule_export]
    use super::train::train;

    /// The version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    /// The small model that the package brings along.
    #[pymodule_export]
    const SHIPPED: &str = lowbit::SHIPPED;
}
