//! What programs use: models, answers, matrices, and errors they can match.

mod answer;
mod error;
mod example;
mod fitted;
mod matrix;
mod model;
mod sequential;

pub use answer::{Answer, Ask};
pub use error::Error;
pub use example::Example;
pub use fitted::Fitted;
pub use matrix::{Matrix, quantize};
pub use model::{Classification, Model};
pub use sequential::{Sequential, Targets};

use lowbit_kernels::Cpu;
use std::sync::{Mutex, PoisonError};

/// The CPU of all that was not given another: the best instruction set, the physical cores this process may use, or what
/// `LOWBIT_ISA` and `LOWBIT_THREADS` say. Its threads are shared.
///
/// # Errors
/// [`Error::Request`] when a variable names what this machine has not.
pub fn cpu() -> Result<Cpu, Error> {
    static CPU: Mutex<Option<Cpu>> = Mutex::new(None);
    let mut cpu = CPU.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cpu) = &*cpu {
        return Ok(cpu.clone());
    }
    Ok(cpu.insert(Cpu::new(None, None)?).clone())
}
