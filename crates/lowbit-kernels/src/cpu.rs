//! The instruction set chosen once, and the threads.

use crate::{Error, Isa, Pool};
use std::sync::Arc;

/// Where operations run: an instruction set and a thread pool. Cloning shares the pool.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// The instruction set all kernels use.
    pub isa: Isa,
    /// The threads all kernels use.
    pub pool: Arc<Pool>,
}

impl Cpu {
    /// The named instruction set (default: `LOWBIT_ISA`, else the best there is) and number of threads (default:
    /// `LOWBIT_THREADS`, else the cores this process may use).
    ///
    /// # Errors
    /// [`Error::Isa`] when the instruction set is unknown or the CPU lacks it.
    pub fn new(isa: Option<&str>, threads: Option<usize>) -> Result<Self, Error> {
        let forced = std::env::var("LOWBIT_ISA").ok();
        let isa = Isa::choose(isa.or(forced.as_deref()))?;
        let from_env = || std::env::var("LOWBIT_THREADS").ok().and_then(|n| n.parse().ok());
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = threads.or_else(from_env).unwrap_or_else(cores).max(1);
        Ok(Cpu { isa, pool: Arc::new(Pool::new(threads)) })
    }
}
