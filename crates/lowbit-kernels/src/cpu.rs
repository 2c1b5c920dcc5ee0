//! The instruction set chosen once, and the threads.

use crate::{Error, Isa, Pool, Threads, Ways, choice};
use lowbit_base::Stop;
use std::sync::Arc;

/// Where operations run, and until when: an instruction set, a thread pool, a request to stop. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// The instruction set all kernels use.
    pub isa: Isa,
    /// The threads all kernels use.
    pub pool: Arc<Pool>,
    ways: Arc<Ways>,
    /// Set by the owner when long work on this CPU is to end; interpreters and loops look at it, kernels do not.
    pub stop: Stop,
}

impl Cpu {
    /// The named instruction set (default: `LOWBIT_ISA`, else the best there is) and number of threads (default:
    /// `LOWBIT_THREADS`, else the physical cores this process may use: [`Threads::choose`]). Products prefer the ways that
    /// `LOWBIT_WAYS` names, else those that were faster on this machine where that depends on it: measured for a few
    /// milliseconds, and kept in the user's cache.
    ///
    /// # Errors
    /// [`Error::Isa`] when the instruction set is unknown or the CPU lacks it, [`Error::Threads`] when there is no such
    /// number of threads, [`Error::Ways`] when a way is unknown.
    pub fn new(isa: Option<&str>, threads: Option<usize>) -> Result<Self, Error> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let isa = Isa::choose(isa.or(given("LOWBIT_ISA").as_deref()))?;
        let threads = Threads::choose(threads)?;
        let cpu = Cpu::with(isa, Arc::new(Pool::new(threads.count)));
        match given("LOWBIT_WAYS") {
            Some(names) => Ok(cpu.preferring(Ways::parse(&names, "LOWBIT_WAYS")?)),
            None => Ok(Cpu { ways: choice::of(isa), ..cpu }),
        }
    }

    /// An instruction set that this machine has, and threads; products prefer no way.
    pub fn with(isa: Isa, pool: Arc<Pool>) -> Self {
        Cpu { isa, pool, ways: Arc::default(), stop: Stop::default() }
    }

    /// The same, whose products prefer other ways.
    pub fn preferring(self, ways: Ways) -> Self {
        Cpu { ways: Arc::new(ways), ..self }
    }

    /// The ways that products prefer.
    pub fn ways(&self) -> &Ways {
        &self.ways
    }

    /// The same, whose work ends when this is set.
    pub fn until(self, stop: Stop) -> Self {
        Cpu { stop, ..self }
    }
}
