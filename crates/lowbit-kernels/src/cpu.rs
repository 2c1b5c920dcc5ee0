//! The instruction set chosen once, and the threads.

use crate::{Error, Isa, Pool, Threads};
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
    /// `LOWBIT_THREADS`, else the physical cores this process may use: [`Threads::choose`]).
    ///
    /// # Errors
    /// [`Error::Isa`] when the instruction set is unknown or the CPU lacks it, [`Error::Threads`] when there is no such
    /// number of threads.
    pub fn new(isa: Option<&str>, threads: Option<usize>) -> Result<Self, Error> {
        let forced = std::env::var("LOWBIT_ISA").ok().filter(|name| !name.is_empty());
        let isa = Isa::choose(isa.or(forced.as_deref()))?;
        let threads = Threads::choose(threads)?;
        Ok(Cpu { isa, pool: Arc::new(Pool::new(threads.count)) })
    }
}
