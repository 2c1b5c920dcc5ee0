//! Ranks that are processes which a launcher of MPI began.
//!
//! MPI tells neither of a lost network nor, everywhere, of a lost process: a rank that waits too long says so by itself.

use super::Ranks;
use crate::{Error, Kind};
use ::mpi::Threading;
use ::mpi::environment::Universe;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, CommunicatorCollectives, Root};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How often a wait is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// All processes of a launch, as one of them sees them. Used on the thread that opened it.
///
/// The end of MPI waits for all processes, so that it comes with [`Ranks::close`] alone: a process that fails leaves without it, and the
/// launcher ends the others.
pub struct Mpi {
    universe: RefCell<Option<Universe>>,
    world: SimpleCommunicator,
    // MPI tells neither once it has ended.
    rank: usize,
    size: usize,
    watch: Arc<Watch>,
}

/// What this process waits for.
#[derive(Default)]
struct Watch {
    /// Since when, while it waits.
    since: Mutex<Option<Instant>>,
}

impl Watch {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mpi {
    /// Joins the other processes. Where an exchange takes longer than `patience`, `lost` is called from a thread of its own, once, with what
    /// to say: the thread that waits cannot be woken, so that the process has to be ended.
    ///
    /// # Errors
    /// When MPI was begun before, or a thread cannot be started.
    pub fn open(patience: Duration, lost: impl FnOnce(Error) + Send + 'static) -> Result<Self, Error> {
        let failed = |text: String| Error::new(Kind::Internal, format!("MPI: {text}"));
        let (universe, _) = ::mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| failed("was begun before in this process".into()))?;
        let (world, watch) = (universe.world(), Arc::new(Watch::default()));
        let (rank, size, seen) = (world.rank() as usize, world.size() as usize, Arc::downgrade(&watch));
        let text = format!(
            "rank {rank} of {size} waited more than {} seconds for the others: a process or the network is lost; the last checkpoint is \
             good, and the same command goes on from there (--step-timeout for more patience)",
            patience.as_secs()
        );
        let look = move || {
            if waits_too_long(&seen, patience) {
                lost(Error::new(Kind::Internal, text));
            }
        };
        std::thread::Builder::new()
            .name("patience".into())
            .spawn(look)
            .map_err(|e| failed(format!("no thread to watch over its time: {e}")))?;
        Ok(Mpi { universe: RefCell::new(Some(universe)), world, rank, size, watch })
    }

    /// Waits for an exchange.
    fn wait(&self, exchange: impl FnOnce(&SimpleCommunicator)) {
        *self.watch.since() = Some(Instant::now());
        exchange(&self.world);
        *self.watch.since() = None;
    }
}

/// Looks until a wait takes too long, or there is nobody who waits.
fn waits_too_long(watch: &Weak<Watch>, patience: Duration) -> bool {
    while let Some(watch) = watch.upgrade() {
        if watch.since().is_some_and(|since| since.elapsed() > patience) {
            return true;
        }
        drop(watch);
        std::thread::sleep(LOOK);
    }
    false
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // Without `close` something failed.
        std::mem::forget(self.universe.take());
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&self, send: &[f32], receive: &mut [f32]) -> Result<(), Error> {
        self.wait(|world| world.all_to_all_into(send, receive));
        Ok(())
    }

    fn gather(&self, send: &[f32], receive: &mut [f32]) -> Result<(), Error> {
        self.wait(|world| world.all_gather_into(send, receive));
        Ok(())
    }

    fn gather_numbers(&self, send: &[f64], receive: &mut [f64]) -> Result<(), Error> {
        self.wait(|world| world.all_gather_into(send, receive));
        Ok(())
    }

    fn broadcast(&self, values: &mut [f32]) -> Result<(), Error> {
        self.wait(|world| world.process_at_rank(0).broadcast_into(values));
        Ok(())
    }

    fn close(&self) {
        // Its end waits for all processes.
        let universe = self.universe.take();
        self.wait(|_| drop(universe));
    }
}
