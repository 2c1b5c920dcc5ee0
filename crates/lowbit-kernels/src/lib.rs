#![doc = include_str!("../README.md")]
//!
//! * [`Isa`] and [`Simd`]: a kernel is a struct of its arguments with `impl Op`; its text is written once over [`Simd`] and
//!   [`Isa::run`] instantiates it for each instruction set. Every vector has 16 lanes of 32 bits on every instruction set,
//!   and a weight panel has 16 rows, so that results do not depend on the width of the machine.
//! * [`Format`] and [`Packed`]: how one matrix is stored; [`Format::dequantize_row`] is the definition and the oracle.
//! * [`Cpu`]: the instruction set chosen once and the thread pool; every operation takes it.
//!
//! This crate holds all the unsafe code of the workspace.
#![deny(missing_docs)]
#![allow(clippy::needless_range_loop)] // register tiles read best by index

mod activations;
mod bytes;
mod choice;
mod cpu;
mod error;
pub mod fatal;
pub mod format;
mod gemm;
mod isa;
pub mod limits;
pub mod ops;
mod pool;
mod scratch;
pub mod simd;
mod threads;
mod window;

pub use activations::{Activations, BLOCK, BLOCK_SIZES, Bf16Activations, GROUP, Int8Activations};
pub use bytes::Bytes;
pub use cpu::Cpu;
pub use error::Error;
pub use format::ways::{Way, Ways};
pub use format::{FORMATS, Format, Packed, QuantizeOptions, Spec, StoredPart};
pub use gemm::{Mat, Operand, Precision, gemm, gemm_in};
pub use isa::{Isa, Op, Products};
pub use pool::Pool;
pub use simd::Simd;
pub use threads::Threads;
pub use window::{Window, Windows};
